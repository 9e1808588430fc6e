"""From what a caller asks for to the event: the same for the gateway, for clients on the log and for jobs that submit jobs."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypedDict

import msgspec
from pydantic_core import to_json

from controlplane.api.models import JobRequest, RetryOptions, TimeoutOptions
from controlplane.events.identity import Instant
from controlplane.events.types import (
    Content,
    EventHeader,
    JobSubmitted,
    ParentJob,
    RetryPolicy,
    Timeouts,
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class OptionInvalid(ValueError):
    """Expected options that a job can have, but found others; the message names the option."""


class JobOptions(TypedDict, total=False):
    """What may be said about a job beside its type and payload; see `JobRequest` for the meaning and the defaults."""

    contract_major: int
    pool: str
    priority: int
    required_labels: dict[str, str]
    preferred_labels: dict[str, str]
    slots: int | None
    retry: RetryOptions | Mapping[str, Any] | None
    timeouts: TimeoutOptions | Mapping[str, Any] | None
    not_before: datetime | None
    deadline: datetime | None
    concurrency_key: str | None
    rate_key: str | None


def instant_of(moment: datetime, option: str) -> Instant:
    """Return a time in microseconds since 1970.

    Raises:
        OptionInvalid: it has no time zone.
    """
    if moment.tzinfo is None:
        raise OptionInvalid(f"Expected {option} with a time zone, but found {moment.isoformat()}.")
    since = moment - _EPOCH
    return Instant((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)


def json_content(value: object) -> Content:
    """Return a JSON value, Pydantic model or dataclass as the content of an event.

    Raises:
        pydantic_core.PydanticSerializationError: it cannot be written as JSON.
        OptionInvalid: it holds a number that JSON cannot.
    """
    data = to_json(value)
    if b"NaN" in data or b"Infinity" in data:  # In a text, perhaps: whoever reads JSON strictly knows.
        try:
            msgspec.json.decode(data)
        except msgspec.DecodeError as error:
            raise OptionInvalid(f"Expected numbers that JSON can hold, but found NaN or Infinity: {error}.") from error
    return Content(data=data)


def job_submitted(
    request: JobRequest, *, job_id: str, payload: Content, header: EventHeader, parent: ParentJob | None = None,
    idempotency_key: str | None = None, usual: RetryPolicy | None = None,
) -> JobSubmitted:  # fmt: skip
    """Return the event of a request; the payload is given apart, because it may have been put elsewhere.

    `usual` is the job type's policy of retries, where it is known: it fills what the request leaves open.

    Raises:
        OptionInvalid: a time has no zone, a category is not one of the contract, or a secret would be in the clear.
    """
    if request.secret is not None and payload.encryption_key_id is None:
        raise OptionInvalid(
            "Expected no secret where nothing encrypts it: submit through the gateway, which has the keys."
        )
    retry, limits = request.retry, request.timeouts
    return JobSubmitted(
        header=header, job_id=job_id, job_type=request.job_type, contract_major=request.contract_major, payload=payload,
        pool=request.pool, priority=request.priority, required_labels=request.required_labels,
        preferred_labels=request.preferred_labels, slots=request.slots,
        retry=None if retry is None else _policy(retry, usual or RetryPolicy()),
        timeouts=None if limits is None else Timeouts(
            attempt_seconds=limits.attempt_seconds, queue_seconds=limits.queue_seconds, total_seconds=limits.total_seconds
        ),
        not_before=None if request.not_before is None else instant_of(request.not_before, "not_before"),
        deadline=None if request.deadline is None else instant_of(request.deadline, "deadline"),
        concurrency_key=request.concurrency_key, rate_key=request.rate_key, parent=parent, idempotency_key=idempotency_key,
    )  # fmt: skip


def _policy(options: RetryOptions, usual: RetryPolicy) -> RetryPolicy:
    chosen = options.model_dump(exclude_unset=True)
    if "never_retry" in chosen:
        chosen["never_retry"] = tuple(options.never_retry)
    return msgspec.structs.replace(usual, **chosen)
