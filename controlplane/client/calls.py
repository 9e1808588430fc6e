"""What a client asks, as values: the same for the synchronous and the asynchronous client, which only carry them over.

Every write carries an id that the client mints, or is harmless when it is repeated: so every call may be repeated.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Generic, NotRequired, TypedDict, TypeVar

import msgspec
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from controlplane.api.models import (
    Acknowledgement,
    CausationAnswer,
    DigestAnswer,
    EventsAnswer,
    EventView,
    JobAnswer,
    JobRequest,
    JobsAnswer,
    JobView,
    Phase,
    RunnersAnswer,
    TruthsAnswer,
)
from controlplane.api.scheduling import JobLogsAnswer, LimitsAnswer
from controlplane.api.submissions import JobOptions
from controlplane.client.errors import ControlPlaneError
from controlplane.client.tables import Rows, read_arrow
from controlplane.events.identity import random_id

T = TypeVar("T")

ATTEMPTS: Final = 6
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 10.0
BULK_LINES: Final = 2_000
PAGE_ROWS: Final = 1_000
CONCLUDED: Final = frozenset({Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED, Phase.REJECTED})
CONCLUSIONS: Final = frozenset({"JobCompleted", "JobFailed", "JobCancelled", "JobRejected"})
REPEATABLE_STATUS: Final = frozenset({429, 502, 503, 504})

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"


class Reading(TypedDict, total=False):
    """What every read takes: a log position that it must reflect, how long it may wait for that, and as of when it asks."""

    min_position: str | Sequence[str] | None
    wait_seconds: float | None
    as_of: datetime | str | None
    """What the log knew: up to a time, or positions topic/partition/offset, separated by commas."""


class SubmitOptions(JobOptions):
    """What may be said about a submission beside its type and payload."""

    job_id: NotRequired[str | None]
    correlation_id: NotRequired[str | None]
    tenant: NotRequired[str]
    secret: NotRequired[str | None]
    """Name of the key that payload and result are encrypted with."""


class TruthQuery(Reading):
    """How truths are chosen: by the source's belief, by what the log knew, by when they hold."""

    min_confidence: NotRequired[float | None]
    max_confidence: NotRequired[float | None]
    value: NotRequired[str | None]
    source: NotRequired[str | None]
    conflict: NotRequired[bool | None]
    since: NotRequired[datetime | str | None]
    until: NotRequired[datetime | str | None]
    valid_at: NotRequired[datetime | str | None]


class Call(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One request, and how its answer is read."""

    method: str
    path: str
    read: Callable[[bytes], T]
    query: Mapping[str, Any] = {}
    body: bytes | None = None
    content_type: str = JSON

    def parameters(self) -> list[tuple[str, str | int | float | bool | None]]:
        """Return the query's names and values; what is None is left out, what is a list is repeated."""
        return [
            (name, one.isoformat() if isinstance(one, datetime) else str(one))
            for name, value in self.query.items()
            for one in (value if isinstance(value, list | tuple) else [value])
            if one is not None
        ]

    def headers(self) -> dict[str, str]:
        """Return the headers of the request."""
        return {} if self.body is None else {"content-type": self.content_type}


def bearer(token: str | None) -> dict[str, str]:
    """Return the headers that say who asks."""
    return {"authorization": f"Bearer {token}"} if token else {}


def call(
    method: str, path: str, read: Callable[[bytes], T], *, query: Mapping[str, Any] | None = None, body: Any = None
) -> Call[T]:
    """Return a call with a JSON body."""
    return Call(method=method, path=path, read=read, query=query or {}, body=None if body is None else to_json(body))


def submit(job_type: str, payload: Any, options: SubmitOptions) -> Call[Acknowledgement]:
    """Return the call that submits a job, under an id of its own."""
    body = {"job_type": job_type, "payload": payload, **options, "job_id": options.get("job_id") or random_id()}
    return call("POST", "/v1/jobs", Acknowledgement.model_validate_json, body=body)


def job_lines(jobs: Iterable[JobRequest | Mapping[str, Any]]) -> list[bytes]:
    """Return one line for each job, each with an id."""
    lines = []
    for job in jobs:
        fields = job.model_dump(exclude_unset=True) if isinstance(job, JobRequest) else job
        lines.append(to_json({**fields, "job_id": fields.get("job_id") or random_id()}))
    return lines


def bulk(lines: Sequence[bytes]) -> Call[list[Acknowledgement | ControlPlaneError]]:
    """Return the call that submits a job per line."""
    return Call(method="POST", path="/v1/jobs/bulk", read=_bulk_answer, body=b"\n".join(lines), content_type=NDJSON)


def _bulk_answer(answer: bytes) -> list[Acknowledgement | ControlPlaneError]:
    outcomes: list[Acknowledgement | ControlPlaneError] = []
    for line in answer.splitlines():
        fields = from_json(line)
        outcomes.append(ControlPlaneError(fields) if "code" in fields else Acknowledgement.model_validate(fields))
    return outcomes


def job(job_id: str, reading: Reading) -> Call[JobView]:
    """Return the call for one job."""
    return call("GET", f"/v1/jobs/{job_id}", lambda answer: JobAnswer.model_validate_json(answer).job, query=reading)


def jobs(filters: Mapping[str, Any], cursor: str | None) -> Call[JobsAnswer]:
    """Return the call for a page of jobs."""
    return call("GET", "/v1/jobs", JobsAnswer.model_validate_json, query={**filters, "cursor": cursor})


def job_events(
    job_id: str, reading: Reading, cursor: str | None = None, limit: int | None = None
) -> Call[EventsAnswer]:
    """Return the call for a page of a job's events."""
    return call(
        "GET",
        f"/v1/jobs/{job_id}/events",
        EventsAnswer.model_validate_json,
        query={"cursor": cursor, "limit": limit, **reading},
    )


def events(filters: Mapping[str, Any], cursor: str | None) -> Call[EventsAnswer]:
    """Return the call for a page of events."""
    return call("GET", "/v1/events", EventsAnswer.model_validate_json, query={**filters, "cursor": cursor})


def dead_letters(cursor: str | None) -> Call[EventsAnswer]:
    """Return the call for a page of dead letters."""
    return call("GET", "/v1/deadletters", EventsAnswer.model_validate_json, query={"cursor": cursor})


def job_logs(job_id: str, cursor: str | None, reading: Reading) -> Call[JobLogsAnswer]:
    """Return the call for a page of what a job's handlers logged."""
    return call(
        "GET", f"/v1/jobs/{job_id}/logs", JobLogsAnswer.model_validate_json, query={"cursor": cursor, **reading}
    )


def content(sha256: str, job_id: str | None = None) -> Call[bytes]:
    """Return the call for the bytes that a reference of this job names."""
    return call("GET", f"/v1/contents/{sha256}", bytes, query={"job": job_id})


def kept_result(job: JobView) -> Call[bytes] | None:
    """Return the call for a result that the job's view does not show, because it is encrypted or too large; None where it does."""
    if job.encrypted_with is not None:
        return call("GET", f"/v1/jobs/{job.job_id}/opened", lambda data: to_json(from_json(data)["result"]))
    return content(job.result_reference.sha256, job.job_id) if job.result_reference is not None else None


def limits(subject: str | None, reading: Reading) -> Call[LimitsAnswer]:
    """Return the call for the limits in force and their use."""
    return call("GET", "/v1/limits", LimitsAnswer.model_validate_json, query={"subject": subject, **reading})


def cancel(job_id: str, reason: str, *, kill: bool, tree: bool) -> Call[Acknowledgement]:
    """Return the call that asks for a job to be cancelled."""
    body = {"reason": reason, "kill": kill, "tree": tree}
    return call("POST", f"/v1/jobs/{job_id}/cancel", Acknowledgement.model_validate_json, body=body)


def reprioritise(job_id: str, priority: int, reason: str) -> Call[Acknowledgement]:
    """Return the call that asks for a job to move in its queue."""
    body = {"priority": priority, "reason": reason}
    return call("POST", f"/v1/jobs/{job_id}/reprioritise", Acknowledgement.model_validate_json, body=body)


def truths(
    subject: str, predicate: str, query: TruthQuery, limit: int | None, cursor: str | None
) -> Call[TruthsAnswer]:
    """Return the call for a page of truths."""
    everything = {"subject": subject, "predicate": predicate, **query, "limit": limit, "cursor": cursor}
    return call("GET", "/v1/truths", TruthsAnswer.model_validate_json, query=everything)


def assert_truth(body: Mapping[str, Any]) -> Call[Acknowledgement]:
    """Return the call that asserts something, under an id of its own."""
    whole = {**body, "assertion_id": body.get("assertion_id") or random_id()}
    return call("POST", "/v1/assertions", Acknowledgement.model_validate_json, body=whole)


def retract(assertion_id: str, body: Mapping[str, Any]) -> Call[Acknowledgement]:
    """Return the call that takes an assertion back."""
    return call("POST", f"/v1/assertions/{assertion_id}/retract", Acknowledgement.model_validate_json, body=body)


def declare_predicate(body: Mapping[str, Any]) -> Call[Acknowledgement]:
    """Return the call that declares a predicate."""
    return call("POST", "/v1/predicates", Acknowledgement.model_validate_json, body=body)


def declare_source(body: Mapping[str, Any]) -> Call[Acknowledgement]:
    """Return the call that declares how reliable a source is."""
    return call("POST", "/v1/sources", Acknowledgement.model_validate_json, body=body)


def why(reference: Mapping[str, Any], reading: Reading) -> Call[CausationAnswer]:
    """Return the call for what caused a record and what followed from it."""
    return call("GET", "/v1/causation", CausationAnswer.model_validate_json, query={**reference, **reading})


def runners(reading: Reading) -> Call[RunnersAnswer]:
    """Return the call for all runners."""
    return call("GET", "/v1/runners", RunnersAnswer.model_validate_json, query=reading)


def digest(reading: Reading) -> Call[DigestAnswer]:
    """Return the call for the digest of every table."""
    return call("GET", "/v1/digest", DigestAnswer.model_validate_json, query=reading)


def sql(text: str, limit_rows: int, reading: Reading) -> Call[Rows]:
    """Return the call for one read-only SELECT."""
    body = {"sql": text, "limit_rows": limit_rows}
    return call("POST", "/v1/sql", Rows.model_validate_json, query=reading, body=body)


def sql_table(text: str, limit_rows: int, reading: Reading) -> Call[Any]:
    """Return the call for one read-only SELECT whose rows come as Arrow."""
    body = {"sql": text, "limit_rows": limit_rows}
    return call("POST", "/v1/sql", read_arrow, query={**reading, "format": "arrow"}, body=body)


# What an answer means.


def read_answer(asked: Call[T], content: bytes) -> T:
    """Return what a call asked for.

    Raises:
        ControlPlaneError: the answer is none that this client knows.
    """
    try:
        return asked.read(content)
    except (ValidationError, ValueError) as error:
        text = f"Expected an answer of {asked.method} {asked.path} that this client knows, but: {str(error)[:300]}"
        raise ControlPlaneError({"code": "answer_unknown", "category": "CONTRACT", "message": text}) from error


def refusal_of(status: int, reason: str, content: bytes, retry_after: str | None) -> ControlPlaneError:
    """Return the error of an answer that is a refusal: its envelope, or what a proxy before the gateway said."""
    try:
        problem = from_json(content)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"message": content[:500].decode(errors="replace") or reason}
    problem = {"title": reason, "retryable": status in REPEATABLE_STATUS, **problem, "status": status}
    if problem.get("retry_after_seconds") is None and retry_after is not None and retry_after.isdecimal():
        problem["retry_after_seconds"] = float(retry_after)
    return ControlPlaneError(problem)


def no_answer(url: object, error: Exception) -> ControlPlaneError:
    """Return the error of a request that nobody answered."""
    text = f"Expected the gateway at {url} to answer, but: {error!r}."
    return ControlPlaneError(
        {"title": "no answer", "message": text, "code": "no_answer", "category": "UNAVAILABLE", "retryable": True}
    )


def pause_before(attempt: int, refused: ControlPlaneError) -> float | None:
    """Return how many seconds to wait before a call is repeated, or None when repeating is of no use.

    Exponential with jitter, so that many clients do not come back together; what the answer asks for goes before.
    """
    if not refused.retryable or attempt >= ATTEMPTS:
        return None
    backoff: float = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (attempt - 1)) * random.uniform(0.5, 1)  # noqa: S311 -- jitter
    return max(backoff, refused.retry_after_seconds or 0)


def result_of(completed: JobView, as_type: Any = None, kept: bytes | None = None) -> Any:
    """Return the result of a completed job, as a type or as JSON says it; `kept` are its bytes if the log has only a reference.

    Raises:
        pydantic.ValidationError: the result is not of that type.
    """
    if kept is not None:
        return from_json(kept) if as_type is None else TypeAdapter(as_type).validate_json(kept)
    return completed.result if as_type is None else TypeAdapter(as_type).validate_python(completed.result)


def failure_of(concluded: JobView, history: Iterable[EventView]) -> ControlPlaneError:
    """Return why a job did not complete: the whole envelope of its conclusion, which is its first."""
    title = f"Job {concluded.job_id} is {concluded.phase}."
    code = {"code": "job_cancelled", "category": "CANCELLED"} if concluded.phase is Phase.CANCELLED else {}
    conclusion = next((one.event for one in history if one.event_type in CONCLUSIONS), {})
    return ControlPlaneError({"title": title, **code, **(conclusion.get("error") or concluded.error or {})})


def not_concluded(job: JobView, timeout: float) -> str:
    """Return what is said when waiting took too long."""
    waits = f": {job.waiting_for}" if job.waiting_for else ""
    return f"Expected job {job.job_id} to conclude within {timeout:g} s, but it is {job.phase}{waits}."


def acknowledgement_of(job_id: str, submission: EventView) -> Acknowledgement:
    """Return what the acknowledgement of a submission was."""
    return Acknowledgement(
        job_id=job_id,
        event_id=submission.event_id,
        position=submission.position,
        correlation_id=submission.correlation_id,
    )


# How much at once.


def portions(lines: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Yield the lines in portions of one request each."""
    for first in range(0, len(lines), BULK_LINES):
        yield lines[first : first + BULK_LINES]


def page_size(limit: int | None, found: int) -> int:
    """Return how many rows to ask for, when so many of `limit` are there."""
    return PAGE_ROWS if limit is None else max(1, min(PAGE_ROWS, limit - found))
