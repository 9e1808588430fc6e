"""Whether a submission is too large for what follows from it: the same for JobForge, the gateway and clients on the log."""

from collections.abc import Iterator

from controlplane.events.errors import envelope
from controlplane.events.sizes import (
    LARGEST_INLINE_BYTES,
    LONGEST_LABEL_CHARACTERS,
    LONGEST_TEXT_CHARACTERS,
    MOST_LABELS,
)
from controlplane.events.types import ErrorEnvelope, JobSubmitted


def oversized(event: JobSubmitted, error_id: str | None = None) -> ErrorEnvelope | None:
    """Return why no record could give the job to a runner, or None.

    A payload is measured as it stands on the log: encrypted, or as the reference to where it is kept.
    """
    for field, text in _texts(event):
        if len(text) > LONGEST_TEXT_CHARACTERS:
            return _too_long(field, f"at most {LONGEST_TEXT_CHARACTERS} characters", f"{len(text)}", error_id)
    labels = 0
    for field, found in (("required_labels", event.required_labels), ("preferred_labels", event.preferred_labels)):
        if not found:
            continue
        if len(found) > MOST_LABELS:
            return _too_long(field, f"at most {MOST_LABELS} labels", f"{len(found)}", error_id)
        longest = max(max(len(name), len(value)) for name, value in found.items())
        if longest > LONGEST_LABEL_CHARACTERS:
            return _too_long(
                field, f"names and values of at most {LONGEST_LABEL_CHARACTERS} characters", f"{longest}", error_id
            )
        labels += sum(len(name.encode()) + len(value.encode()) for name, value in found.items())
    content = event.payload
    size = len(content.data) + labels
    if size <= LARGEST_INLINE_BYTES:
        return None
    expected = f"at most {LARGEST_INLINE_BYTES} bytes"
    text = f"Expected payload and labels of {expected} on the log, but found {size}: keep larger ones in the content store."
    return envelope("payload_too_large", text, error_id=error_id, field="payload", expected=expected, found=size)


def _texts(event: JobSubmitted) -> Iterator[tuple[str, str]]:
    header, content, parent = event.header, event.payload, event.parent
    yield "job_id", event.job_id
    yield "job_type", event.job_type
    yield "pool", event.pool
    yield "tenant", header.tenant
    yield "correlation_id", header.correlation_id
    yield "actor", header.actor or ""
    yield "concurrency_key", event.concurrency_key or ""
    yield "rate_key", event.rate_key or ""
    yield "schedule_id", event.schedule_id or ""
    yield "idempotency_key", event.idempotency_key or ""
    yield "retry_of", event.retry_of or ""
    yield "payload", content.content_type
    yield "payload", content.encryption_key_id or ""
    if content.reference is not None:
        yield "payload", content.reference.uri
        yield "payload", content.reference.sha256
    if parent is not None:
        yield "parent", parent.job_id
        yield "parent", parent.attempt_id


def _too_long(field: str, expected: str, found: str, error_id: str | None) -> ErrorEnvelope:
    text = f"Expected {field} to have {expected}, but found {found}."
    return envelope("request_invalid", text, error_id=error_id, field=field, expected=expected, found=found)
