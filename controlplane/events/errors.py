"""The ErrorEnvelope: every refusal anywhere has this one form, and every code stands in this one table."""

from typing import Final

import msgspec

from controlplane.events.identity import random_id
from controlplane.events.texts import valid_text
from controlplane.events.types import Category, ContractVersion, ErrorEnvelope, Severity

CONTRACT_VERSION: Final = ContractVersion(major=1, minor=0, patch=0)
FOUND_LIMIT_CHARACTERS: Final = 200


class ErrorCode(msgspec.Struct, frozen=True, kw_only=True):
    """One documented error: its stable code, who has to act, how loud it is, and whether a repeat can help."""

    code: str
    category: Category
    http_status: int
    title: str
    severity: Severity = Severity.ERROR
    retryable: bool = False
    retry_after_seconds: float | None = None


_TABLE: Final = (
    # What the caller sent.
    ErrorCode(code="payload_invalid", category=Category.VALIDATION, http_status=422, title="The payload breaks its contract"),
    ErrorCode(code="request_invalid", category=Category.VALIDATION, http_status=422, title="The request breaks the contract"),
    ErrorCode(code="result_invalid", category=Category.CONTRACT, http_status=422, title="The handler's result breaks its contract"),
    ErrorCode(code="job_type_unknown", category=Category.NOT_FOUND, http_status=422, title="No runner ever offered this job type"),
    ErrorCode(code="contract_version_unknown", category=Category.NOT_FOUND, http_status=422, title="No runner ever offered this major version"),
    ErrorCode(code="payload_too_large", category=Category.LIMIT, http_status=413, title="The payload is larger than the limit"),
    ErrorCode(code="not_found", category=Category.NOT_FOUND, http_status=404, title="There is no such thing"),
    ErrorCode(code="content_forgotten", category=Category.NOT_FOUND, http_status=410, title="It was encrypted, and its key was forgotten"),
    ErrorCode(code="key_missing", category=Category.INTERNAL, http_status=500, title="It is encrypted, and its key is not here"),
    ErrorCode(code="method_not_allowed", category=Category.VALIDATION, http_status=405, title="This resource does not take that method"),
    ErrorCode(code="not_acceptable", category=Category.VALIDATION, http_status=406, title="The answer has none of the accepted forms"),
    ErrorCode(code="unsupported_media_type", category=Category.VALIDATION, http_status=415, title="The body has a form that is not taken here"),
    ErrorCode(code="http_malformed", category=Category.VALIDATION, http_status=400, title="This is no HTTP request"),
    ErrorCode(code="request_timeout", category=Category.TIMEOUT, http_status=408, title="The request did not come in time", severity=Severity.WARNING, retryable=True),
    ErrorCode(code="url_too_long", category=Category.LIMIT, http_status=414, title="The address is longer than the limit"),
    ErrorCode(code="headers_too_large", category=Category.LIMIT, http_status=431, title="The headers are larger than the limit"),
    ErrorCode(code="conflict", category=Category.CONFLICT, http_status=409, title="The state does not allow it"),
    ErrorCode(code="duplicate_with_other_content", category=Category.CONFLICT, http_status=409, title="The id was used before for something else"),
    ErrorCode(code="unauthorized", category=Category.UNAUTHORIZED, http_status=401, title="Who is asking is not known"),
    ErrorCode(code="forbidden", category=Category.FORBIDDEN, http_status=403, title="Whoever asks may not do this"),
    ErrorCode(code="rate_limited", category=Category.LIMIT, http_status=429, title="Too many requests", severity=Severity.WARNING, retryable=True, retry_after_seconds=1.0),
    ErrorCode(code="wrong_partition", category=Category.CONTRACT, http_status=422, title="The record is not in the partition of its key"),
    ErrorCode(code="record_undecodable", category=Category.CONTRACT, http_status=422, title="The record is no event of the contract"),
    ErrorCode(code="event_unexpected", category=Category.CONTRACT, http_status=422, title="The event does not belong on this topic"),
    ErrorCode(code="record_poisonous", category=Category.INTERNAL, http_status=500, title="The record cannot be decided", severity=Severity.CRITICAL),
    # What happened to an attempt.
    ErrorCode(code="handler_failed", category=Category.EXECUTION, http_status=500, title="The handler raised an error", retryable=True),
    ErrorCode(code="destination_unavailable", category=Category.UNAVAILABLE, http_status=503, title="What the handler needs does not answer", retryable=True),
    ErrorCode(code="runner_broken", category=Category.INTERNAL, http_status=500, title="The runner cannot execute handlers", retryable=True),
    ErrorCode(code="attempt_timed_out", category=Category.TIMEOUT, http_status=504, title="The attempt took longer than its limit", retryable=True),
    ErrorCode(code="attempts_lost", category=Category.UNAVAILABLE, http_status=503, title="Too many attempts were lost with their runners"),
    ErrorCode(code="attempt_lost", category=Category.UNAVAILABLE, http_status=503, title="The attempt was lost with its runner", retryable=True),
    ErrorCode(code="queue_timed_out", category=Category.TIMEOUT, http_status=504, title="No runner took the job in time"),
    ErrorCode(code="job_timed_out", category=Category.TIMEOUT, http_status=504, title="The job did not conclude in time"),
    ErrorCode(code="lease_stale", category=Category.CONFLICT, http_status=409, title="The observation came without a valid lease", severity=Severity.WARNING),
    ErrorCode(code="job_poisonous", category=Category.EXECUTION, http_status=500, title="The job took several runners down"),
    # What is wrong with us.
    ErrorCode(code="overloaded", category=Category.UNAVAILABLE, http_status=503, title="Too much work is in flight", severity=Severity.WARNING, retryable=True, retry_after_seconds=2.0),
    ErrorCode(code="log_unavailable", category=Category.UNAVAILABLE, http_status=503, title="The log does not answer", severity=Severity.CRITICAL, retryable=True, retry_after_seconds=2.0),
    ErrorCode(code="store_unavailable", category=Category.UNAVAILABLE, http_status=503, title="The schedule store does not answer", severity=Severity.CRITICAL, retryable=True, retry_after_seconds=2.0),
    ErrorCode(code="projection_unavailable", category=Category.UNAVAILABLE, http_status=503, title="TruthCore does not answer", retryable=True, retry_after_seconds=1.0),
    ErrorCode(code="projection_behind", category=Category.UNAVAILABLE, http_status=503, title="The projection has not reached that position yet", severity=Severity.WARNING, retryable=True, retry_after_seconds=0.5),
    ErrorCode(code="content_corrupt", category=Category.INTERNAL, http_status=500, title="Kept bytes are not those that the log names", severity=Severity.CRITICAL),
    ErrorCode(code="query_limit", category=Category.LIMIT, http_status=422, title="The query went over its limits"),
    ErrorCode(code="internal", category=Category.INTERNAL, http_status=500, title="A fault of ours", severity=Severity.CRITICAL),
)  # fmt: skip

ERROR_CODES: Final = {entry.code: entry for entry in _TABLE}


def envelope(
    code: str,
    message: str,
    *,
    error_id: str | None = None,
    field: str | None = None,
    expected: str | None = None,
    found: object = None,
    retryable: bool | None = None,
    retry_after_seconds: float | None = None,
) -> ErrorEnvelope:
    """Return the envelope of one refusal; what the code's entry says is the default.

    It can stand on the log whatever was found: a refusal that could not be written would be none. `error_id` is given where the refusal is decided from a record, so that deciding again gives the same bytes.

    Raises:
        KeyError: the code is not in the table.
    """
    entry = ERROR_CODES[code]
    return ErrorEnvelope(
        error_id=error_id or random_id(), category=entry.category, severity=entry.severity, code=code,
        message=valid_text(message),
        retryable=entry.retryable if retryable is None else retryable,
        retry_after_seconds=entry.retry_after_seconds if retry_after_seconds is None else retry_after_seconds,
        contract_version=CONTRACT_VERSION, field=None if field is None else valid_text(field),
        expected=None if expected is None else valid_text(expected),
        found=None if found is None else valid_text(str(found))[:FOUND_LIMIT_CHARACTERS],
    )  # fmt: skip
