"""The synchronous client: typed, repeating what may be repeated, with the ids minted here that make it so."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack, overload

import httpx
from pydantic_core import from_json

from controlplane.api.models import (
    Acknowledgement,
    CausationAnswer,
    DigestAnswer,
    EventView,
    JobRequest,
    JobView,
    Phase,
    RunnersAnswer,
)
from controlplane.api.scheduling import JobLogLine, LimitsAnswer
from controlplane.api.truths import TruthChangeTold
from controlplane.client import calls, feeds
from controlplane.client.calls import Call, Reading, SubmitOptions, TruthQuery
from controlplane.client.errors import ControlPlaneError
from controlplane.client.histories import FIRST_LOOK_SECONDS, LOOK_SECONDS, Told
from controlplane.client.identity import address, verification
from controlplane.client.sending import Sending
from controlplane.client.tables import Rows, Truths
from controlplane.client.traces import asking
from controlplane.settings import TlsFiles
from controlplane.telemetry.tracing import trace_client

T = TypeVar("T")

REQUEST_SECONDS: Final = 40.0


class JobHandle:
    """A submitted job."""

    def __init__(self, client: "Client", acknowledgement: Acknowledgement) -> None:
        """Take the acknowledgement of a submission."""
        self._client = client
        self.job_id: Final = acknowledgement.job_id or ""
        self.position: Final = acknowledgement.position
        """Where the submission stands on the log; what this handle reads reflects it."""
        self.acknowledgement: Final = acknowledgement

    def status(self) -> JobView:
        """Return the job as it stands."""
        return self._client.job(self.job_id, min_position=self.position)

    def wait(self, timeout: float = 60.0) -> JobView:
        """Return the job once it is concluded, however it ended.

        Raises:
            TimeoutError: it is not within `timeout` seconds.
        """
        give_up_at, pause = time.monotonic() + timeout, FIRST_LOOK_SECONDS
        while (job := self.status()).phase not in calls.CONCLUDED:
            if time.monotonic() + pause > give_up_at:
                raise TimeoutError(calls.not_concluded(job, timeout))
            time.sleep(pause)
            pause = min(pause * 1.5, LOOK_SECONDS)
        return job

    @overload
    def result(self, timeout: float = 60.0) -> Any: ...
    @overload
    def result(self, timeout: float = 60.0, *, as_type: type[T]) -> T: ...
    def result(self, timeout: float = 60.0, *, as_type: Any = None) -> Any:
        """Return the result of the job once it is completed: as JSON says it, or as a Pydantic model or other type.

        Raises:
            ControlPlaneError: it failed, was rejected or cancelled; the fields say why.
            TimeoutError: it is not concluded within `timeout` seconds.
            pydantic.ValidationError: the result is not of that type.
        """
        job = self.wait(timeout)
        if job.phase is not Phase.COMPLETED:
            history = self._client.job_events(self.job_id, min_position=self.position)
            raise calls.failure_of(job, history)
        elsewhere = calls.kept_result(job)
        kept = self._client.ask(elsewhere) if elsewhere is not None else None
        return calls.result_of(job, as_type, kept)

    def events(self, *, follow: bool = True) -> Iterator[EventView]:
        """Yield the job's events in order: as they come until it is concluded, or only those that are there."""
        told = Told(follow=follow)
        while not told.over:
            time.sleep(told.pause_seconds)
            page = self._client.ask(calls.job_events(self.job_id, {"min_position": self.position}, told.cursor))
            yield from told.fresh(page)

    def cancel(self, reason: str = "", *, kill: bool = False, tree: bool = False) -> Acknowledgement:
        """Ask for the job to be cancelled; what becomes of that is an event."""
        return self._client.cancel(self.job_id, reason, kill=kill, tree=tree)

    def __repr__(self) -> str:
        return f"JobHandle({self.job_id!r})"


class Client:
    """A synchronous client of one gateway; use it as a context manager, or `close` it. Threads may share it."""

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        timeout: float = REQUEST_SECONDS,
        tls: TlsFiles | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Prepare a client of the gateway at `url`, by default the one that CONTROLPLANE_GATEWAY_URL names; nothing is asked yet.

        `token` is the bearer token that says who asks; `timeout` is in seconds, per request; `transport` carries requests another way. At an
        https URL the client shows the certificate of `tls`, or the one that CONTROLPLANE_TLS_* names.
        """
        trace_client()
        url = address(url)
        self._http = httpx.Client(
            base_url=url,
            timeout=timeout,
            transport=transport,
            headers=calls.bearer(token),
            verify=verification(url, tls),
        )

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ask(self, asked: Call[T]) -> T:
        """Return the answer of a call, repeated with growing pauses while that can help.

        Raises:
            ControlPlaneError: the request was refused, or nothing answered.
        """
        with asking(asked, str(self._http.base_url)) as headers:
            return self._ask(asked, headers)

    def _ask(self, asked: Call[T], headers: Mapping[str, str]) -> T:
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = self._http.request(
                    asked.method, asked.path, params=asked.parameters(), content=asked.body, headers=headers
                )
            except httpx.TransportError as error:
                refused = calls.no_answer(self._http.base_url, error)
            else:
                if answer.is_success:
                    return calls.read_answer(asked, answer.content)
                refused = calls.refusal_of(
                    answer.status_code, answer.reason_phrase, answer.content, answer.headers.get("retry-after")
                )
            pause = calls.pause_before(attempt, refused)
            if pause is None:
                raise refused
            time.sleep(pause)

    def request(self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """Return the JSON of any answer; a write has to carry an id of its own, so that repeating it is safe.

        Raises:
            ControlPlaneError: the request was refused, or nothing answered.
        """
        return self.ask(calls.call(method, path, from_json, query=query, body=body))

    # Jobs

    def submit(self, job_type: str, payload: Any = None, **options: Unpack[SubmitOptions]) -> JobHandle:
        """Submit a job; returns once the log has it. `options` are those of `JobRequest`.

        Raises:
            ControlPlaneError: it was refused, for example because the payload breaks its contract.
        """
        return JobHandle(self, self.ask(calls.submit(job_type, payload, options)))

    def submit_many(self, jobs: Iterable[JobRequest | Mapping[str, Any]]) -> list[JobHandle | ControlPlaneError]:
        """Submit many jobs; returns a handle or the refusal of each, in order, once the log has all that were accepted.

        What is refused for now is sent again, as any call is.

        Raises:
            ControlPlaneError: a whole request was refused; jobs with ids of your own can be submitted again.
        """
        outcomes: list[JobHandle | ControlPlaneError] = []
        for lines in calls.portions(calls.job_lines(jobs)):
            sending = Sending(lines)
            while (pause := sending.take(self.ask(sending.call()))) is not None:
                time.sleep(pause)
            outcomes += [
                one if isinstance(one, ControlPlaneError) else JobHandle(self, one) for one in sending.outcomes
            ]
        return outcomes

    def post_lines(self, path: str, lines: Sequence[str]) -> str:
        """Post lines (NDJSON) and return the lines of the answer; each line has to carry an id, so that repeating it is safe.

        Raises:
            ControlPlaneError: the whole request was refused.
        """
        body = "\n".join(lines).encode()
        return self.ask(Call(method="POST", path=path, read=bytes.decode, body=body, content_type=calls.NDJSON))

    def job(self, job_id: str, **reading: Unpack[Reading]) -> JobView:
        """Return a job with its attempts, payload and result."""
        return self.ask(calls.job(job_id, reading))

    def handle(self, job_id: str) -> JobHandle:
        """Return the handle of a job that was submitted before, by whomever.

        Raises:
            ControlPlaneError: the log does not know it.
        """
        first = self.ask(calls.job_events(job_id, {}, limit=1)).events[0]
        return JobHandle(self, calls.acknowledgement_of(job_id, first))

    def jobs(self, **filters: Any) -> Iterator[JobView]:
        """Yield jobs, newest first, page by page; filters are those of `GET /v1/jobs`."""
        cursor: str | None = None
        while True:
            page = self.ask(calls.jobs(filters, cursor))
            yield from page.jobs
            cursor = page.next_cursor
            if cursor is None:
                return

    def job_events(self, job_id: str, **reading: Unpack[Reading]) -> list[EventView]:
        """Return all events of a job so far."""
        told, found = Told(), list[EventView]()
        while not told.over:
            found += told.fresh(self.ask(calls.job_events(job_id, reading, told.cursor)))
        return found

    def logs(self, job_id: str, *, follow: bool = False, **reading: Unpack[Reading]) -> Iterator[JobLogLine]:
        """Yield what the handlers of a job logged: what is there, or with `follow` as it comes until the job is over."""
        cursor: str | None = None
        over = not follow
        while True:
            page = self.ask(calls.job_logs(job_id, cursor, reading))
            yield from page.lines
            cursor = page.next_cursor
            if page.lines:
                continue
            if over:
                return
            over = page.concluded  # One look more: its last lines may come a moment after its conclusion.
            time.sleep(LOOK_SECONDS)

    def content(self, sha256: str, job_id: str | None = None) -> bytes:
        """Return a payload or result that is kept outside of the log, by its digest; whoever sees one tenant alone names a job that has it."""
        return self.ask(calls.content(sha256, job_id))

    def limits(self, subject: str | None = None, **reading: Unpack[Reading]) -> LimitsAnswer:
        """Return the limits in force, and how many jobs run, wait and retry under each."""
        return self.ask(calls.limits(subject, reading))

    def cancel(self, job_id: str, reason: str = "", *, kill: bool = False, tree: bool = False) -> Acknowledgement:
        """Ask for a job to be cancelled, with `tree` its child jobs as well; `kill` does not wait for its handler."""
        return self.ask(calls.cancel(job_id, reason, kill=kill, tree=tree))

    def reprioritise(self, job_id: str, priority: int, reason: str = "") -> Acknowledgement:
        """Ask for a waiting job to move in its queue."""
        return self.ask(calls.reprioritise(job_id, priority, reason))

    # Truths

    def truths(
        self, subject: str = "*", predicate: str = "*", *, limit: int | None = None, **query: Unpack[TruthQuery]
    ) -> Truths:
        """Return what is true of the subjects that match, all or the first `limit`; `*` stands for anything."""
        found: list[Any] = []
        cursor: str | None = None
        while True:
            page = self.ask(calls.truths(subject, predicate, query, calls.page_size(limit, len(found)), cursor))
            found += page.truths
            cursor = page.next_cursor
            if cursor is None or (limit is not None and len(found) >= limit):
                return Truths(found, page.reflects)

    def truth_changes(
        self, subject: str = "*", predicate: str = "*", *, min_confidence: float | None = None, since: datetime | str | None = None,
        after: str | None = None, min_position: str | None = None, idle: Callable[[str], bool] | None = None,
    ) -> Generator[TruthChangeTold, None, None]:  # fmt: skip
        """Yield each change of what is true, as it comes, for ever: what a record changed, before and after.

        It begins with what comes from now on, behind `since` (as `as_of`), or behind `after`, the `place` of an earlier change: nothing is missed, and nothing
        told twice, whatever breaks off. With `min_position` it begins once that record is reflected. `idle` is called with the place whenever all is told that there is; when it returns true, the iterator ends.

        Raises:
            ControlPlaneError: the request was refused.
        """
        query = {
            "subject": subject, "predicate": predicate, "min_confidence": min_confidence, "since": since, "min_position": min_position,
        }  # fmt: skip
        return feeds.follow(self._http, query, after, idle)

    def assert_truth(
        self, subject: str, predicate: str, value: Any, confidence: float = 1.0, **options: Any
    ) -> Acknowledgement:
        """Assert something of a subject; the answer's `event_id` is the assertion id."""
        said = {"subject": subject, "predicate": predicate, "value": value, "confidence": confidence}
        return self.ask(calls.assert_truth({**said, **options}))

    def retract(self, assertion_id: str, subject: str, reason: str = "", **options: Any) -> Acknowledgement:
        """Take an assertion about a subject back; it stays in the history."""
        return self.ask(calls.retract(assertion_id, {"subject": subject, "reason": reason, **options}))

    def declare_predicate(self, predicate: str, **contract: Any) -> Acknowledgement:
        """Declare how a predicate's competing assertions are fused."""
        return self.ask(calls.declare_predicate({"predicate": predicate, **contract}))

    def declare_source(self, source: str, reliability: float, reason: str = "") -> Acknowledgement:
        """Declare how reliable a source is, in [0, 1]: the weight of its votes."""
        return self.ask(calls.declare_source({"source": source, "reliability": reliability, "reason": reason}))

    # The log

    def why(self, *, event: str | None = None, job: str | None = None, assertion: str | None = None, **reading: Unpack[Reading]) -> CausationAnswer:  # fmt: skip
        """Return what caused a record and what followed from it; give one of `event`, `job`, `assertion`."""
        return self.ask(calls.why({"event": event, "job": job, "assertion": assertion}, reading))

    def events(self, **filters: Any) -> Iterator[EventView]:
        """Yield events in log order, page by page; filters are those of `GET /v1/events`."""
        cursor: str | None = None
        while True:
            page = self.ask(calls.events(filters, cursor))
            yield from page.events
            cursor = page.next_cursor
            if cursor is None:
                return

    def dead_letters(self) -> Iterator[EventView]:
        """Yield what no consumer could use, page by page."""
        cursor: str | None = None
        while True:
            page = self.ask(calls.dead_letters(cursor))
            yield from page.events
            cursor = page.next_cursor
            if cursor is None:
                return

    def runners(self, **reading: Unpack[Reading]) -> RunnersAnswer:
        """Return the runners that the log knows."""
        return self.ask(calls.runners(reading))

    def digest(self, **reading: Unpack[Reading]) -> DigestAnswer:
        """Return the digest of every projected table."""
        return self.ask(calls.digest(reading))

    def sql_table(self, text: str, limit_rows: int = 1_000_000, **reading: Unpack[Reading]) -> Any:
        """Run one read-only SELECT; return its rows as a pyarrow Table with the database's own types (`to_pandas()` for a data frame).

        The schema's metadata says what it reflects (`controlplane.reflects`), and whether there were more rows (`controlplane.truncated`).
        """
        return self.ask(calls.sql_table(text, limit_rows, reading))

    def sql(self, text: str, limit_rows: int = 1000, **reading: Unpack[Reading]) -> Rows:
        """Run one read-only SELECT over the documented tables."""
        return self.ask(calls.sql(text, limit_rows, reading))
