"""The asynchronous client: the same calls as the synchronous one, awaited."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
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
from controlplane.client.http import REQUEST_SECONDS
from controlplane.client.identity import address, verification
from controlplane.client.sending import Sending
from controlplane.client.tables import Rows, Truths
from controlplane.client.traces import asking
from controlplane.settings import TlsFiles
from controlplane.telemetry.tracing import trace_client

T = TypeVar("T")


class AsyncJobHandle:
    """A submitted job."""

    def __init__(self, client: "AsyncClient", acknowledgement: Acknowledgement) -> None:
        """Take the acknowledgement of a submission."""
        self._client = client
        self.job_id: Final = acknowledgement.job_id or ""
        self.position: Final = acknowledgement.position
        """Where the submission stands on the log; what this handle reads reflects it."""
        self.acknowledgement: Final = acknowledgement

    async def status(self) -> JobView:
        """Return the job as it stands."""
        return await self._client.job(self.job_id, min_position=self.position)

    async def wait(self, timeout: float = 60.0) -> JobView:  # noqa: ASYNC109 -- as in the synchronous client
        """Return the job once it is concluded, however it ended.

        Raises:
            TimeoutError: it is not within `timeout` seconds.
        """
        give_up_at, pause = time.monotonic() + timeout, FIRST_LOOK_SECONDS
        while (job := await self.status()).phase not in calls.CONCLUDED:
            if time.monotonic() + pause > give_up_at:
                raise TimeoutError(calls.not_concluded(job, timeout))
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LOOK_SECONDS)
        return job

    @overload
    async def result(self, timeout: float = 60.0) -> Any: ...  # noqa: ASYNC109 -- as in the synchronous client
    @overload
    async def result(self, timeout: float = 60.0, *, as_type: type[T]) -> T: ...  # noqa: ASYNC109 -- as in the synchronous client
    async def result(self, timeout: float = 60.0, *, as_type: Any = None) -> Any:  # noqa: ASYNC109 -- as in the synchronous client
        """Return the result of the job once it is completed: as JSON says it, or as a Pydantic model or other type.

        Raises:
            ControlPlaneError: it failed, was rejected or cancelled; the fields say why.
            TimeoutError: it is not concluded within `timeout` seconds.
            pydantic.ValidationError: the result is not of that type.
        """
        job = await self.wait(timeout)
        if job.phase is not Phase.COMPLETED:
            history = await self._client.job_events(self.job_id, min_position=self.position)
            raise calls.failure_of(job, history)
        elsewhere = calls.kept_result(job)
        kept: bytes | None = None
        if elsewhere is not None:
            kept = await self._client.ask(elsewhere)
        return calls.result_of(job, as_type, kept)

    async def events(self, *, follow: bool = True) -> AsyncIterator[EventView]:
        """Yield the job's events in order: as they come until it is concluded, or only those that are there."""
        told = Told(follow=follow)
        while not told.over:
            await asyncio.sleep(told.pause_seconds)
            asked = calls.job_events(self.job_id, {"min_position": self.position}, told.cursor)
            for one in told.fresh(await self._client.ask(asked)):
                yield one

    async def cancel(self, reason: str = "", *, kill: bool = False, tree: bool = False) -> Acknowledgement:
        """Ask for the job to be cancelled; what becomes of that is an event."""
        return await self._client.cancel(self.job_id, reason, kill=kill, tree=tree)

    def __repr__(self) -> str:
        return f"AsyncJobHandle({self.job_id!r})"


class AsyncClient:
    """An asynchronous client of one gateway; use it as an async context manager, or `close` it."""

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        timeout: float = REQUEST_SECONDS,
        tls: TlsFiles | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare a client of the gateway at `url`, by default the one that CONTROLPLANE_GATEWAY_URL names; nothing is asked yet.

        `token` is the bearer token that says who asks; `timeout` is in seconds, per request; `transport` carries requests another way. At an
        https URL the client shows the certificate of `tls`, or the one that CONTROLPLANE_TLS_* names.
        """
        trace_client()
        url = address(url)
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=timeout,
            transport=transport,
            headers=calls.bearer(token),
            verify=verification(url, tls),
        )

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def ask(self, asked: Call[T]) -> T:
        """Return the answer of a call, repeated with growing pauses while that can help.

        Raises:
            ControlPlaneError: the request was refused, or nothing answered.
        """
        with asking(asked, str(self._http.base_url)) as headers:
            return await self._ask(asked, headers)

    async def _ask(self, asked: Call[T], headers: Mapping[str, str]) -> T:
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = await self._http.request(
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
            await asyncio.sleep(pause)

    async def request(self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """Return the JSON of any answer; a write has to carry an id of its own, so that repeating it is safe.

        Raises:
            ControlPlaneError: the request was refused, or nothing answered.
        """
        return await self.ask(calls.call(method, path, from_json, query=query, body=body))

    # Jobs

    async def submit(self, job_type: str, payload: Any = None, **options: Unpack[SubmitOptions]) -> AsyncJobHandle:
        """Submit a job; returns once the log has it. `options` are those of `JobRequest`.

        Raises:
            ControlPlaneError: it was refused, for example because the payload breaks its contract.
        """
        return AsyncJobHandle(self, await self.ask(calls.submit(job_type, payload, options)))

    async def submit_many(
        self, jobs: Iterable[JobRequest | Mapping[str, Any]]
    ) -> list[AsyncJobHandle | ControlPlaneError]:
        """Submit many jobs; returns a handle or the refusal of each, in order, once the log has all that were accepted.

        What is refused for now is sent again, as any call is.

        Raises:
            ControlPlaneError: a whole request was refused; jobs with ids of your own can be submitted again.
        """
        outcomes: list[AsyncJobHandle | ControlPlaneError] = []
        for lines in calls.portions(calls.job_lines(jobs)):
            sending = Sending(lines)
            while (pause := sending.take(await self.ask(sending.call()))) is not None:  # noqa: ASYNC110 -- as in the synchronous client
                await asyncio.sleep(pause)
            outcomes += [
                one if isinstance(one, ControlPlaneError) else AsyncJobHandle(self, one) for one in sending.outcomes
            ]
        return outcomes

    async def post_lines(self, path: str, lines: Sequence[str]) -> str:
        """Post lines (NDJSON) and return the lines of the answer; each line has to carry an id, so that repeating it is safe.

        Raises:
            ControlPlaneError: the whole request was refused.
        """
        body = "\n".join(lines).encode()
        return await self.ask(Call(method="POST", path=path, read=bytes.decode, body=body, content_type=calls.NDJSON))

    async def job(self, job_id: str, **reading: Unpack[Reading]) -> JobView:
        """Return a job with its attempts, payload and result."""
        return await self.ask(calls.job(job_id, reading))

    async def handle(self, job_id: str) -> AsyncJobHandle:
        """Return the handle of a job that was submitted before, by whomever.

        Raises:
            ControlPlaneError: the log does not know it.
        """
        first = (await self.ask(calls.job_events(job_id, {}, limit=1))).events[0]
        return AsyncJobHandle(self, calls.acknowledgement_of(job_id, first))

    async def jobs(self, **filters: Any) -> AsyncIterator[JobView]:
        """Yield jobs, newest first, page by page; filters are those of `GET /v1/jobs`."""
        cursor: str | None = None
        while True:
            page = await self.ask(calls.jobs(filters, cursor))
            for one in page.jobs:
                yield one
            cursor = page.next_cursor
            if cursor is None:
                return

    async def job_events(self, job_id: str, **reading: Unpack[Reading]) -> list[EventView]:
        """Return all events of a job so far."""
        told, found = Told(), list[EventView]()
        while not told.over:
            found += told.fresh(await self.ask(calls.job_events(job_id, reading, told.cursor)))
        return found

    async def logs(self, job_id: str, *, follow: bool = False, **reading: Unpack[Reading]) -> AsyncIterator[JobLogLine]:
        """Yield what the handlers of a job logged: what is there, or with `follow` as it comes until the job is over."""
        cursor: str | None = None
        over = not follow
        while True:
            page = await self.ask(calls.job_logs(job_id, cursor, reading))
            for line in page.lines:
                yield line
            cursor = page.next_cursor
            if page.lines:
                continue
            if over:
                return
            over = page.concluded  # One look more: its last lines may come a moment after its conclusion.
            await asyncio.sleep(LOOK_SECONDS)

    async def content(self, sha256: str, job_id: str | None = None) -> bytes:
        """Return a payload or result that is kept outside of the log, by its digest; whoever sees one tenant alone names a job that has it."""
        return await self.ask(calls.content(sha256, job_id))

    async def limits(self, subject: str | None = None, **reading: Unpack[Reading]) -> LimitsAnswer:
        """Return the limits in force, and how many jobs run, wait and retry under each."""
        return await self.ask(calls.limits(subject, reading))

    async def cancel(self, job_id: str, reason: str = "", *, kill: bool = False, tree: bool = False) -> Acknowledgement:
        """Ask for a job to be cancelled, with `tree` its child jobs as well; `kill` does not wait for its handler."""
        return await self.ask(calls.cancel(job_id, reason, kill=kill, tree=tree))

    async def reprioritise(self, job_id: str, priority: int, reason: str = "") -> Acknowledgement:
        """Ask for a waiting job to move in its queue."""
        return await self.ask(calls.reprioritise(job_id, priority, reason))

    # Truths

    async def truths(
        self, subject: str = "*", predicate: str = "*", *, limit: int | None = None, **query: Unpack[TruthQuery]
    ) -> Truths:
        """Return what is true of the subjects that match, all or the first `limit`; `*` stands for anything."""
        found: list[Any] = []
        cursor: str | None = None
        while True:
            page = await self.ask(calls.truths(subject, predicate, query, calls.page_size(limit, len(found)), cursor))
            found += page.truths
            cursor = page.next_cursor
            if cursor is None or (limit is not None and len(found) >= limit):
                return Truths(found, page.reflects)

    def truth_changes(
        self, subject: str = "*", predicate: str = "*", *, min_confidence: float | None = None, since: datetime | str | None = None,
        after: str | None = None, min_position: str | None = None, idle: Callable[[str], bool] | None = None,
    ) -> AsyncGenerator[TruthChangeTold, None]:  # fmt: skip
        """Yield each change of what is true, as it comes, for ever: what a record changed, before and after.

        It begins with what comes from now on, behind `since` (as `as_of`), or behind `after`, the `place` of an earlier change: nothing is missed, and nothing
        told twice, whatever breaks off. With `min_position` it begins once that record is reflected. `idle` is called with the place whenever all is told that there is; when it returns true, the iterator ends.

        Raises:
            ControlPlaneError: the request was refused.
        """
        query = {
            "subject": subject, "predicate": predicate, "min_confidence": min_confidence, "since": since, "min_position": min_position,
        }  # fmt: skip
        return feeds.follow_awaited(self._http, query, after, idle)

    async def assert_truth(
        self, subject: str, predicate: str, value: Any, confidence: float = 1.0, **options: Any
    ) -> Acknowledgement:
        """Assert something of a subject; the answer's `event_id` is the assertion id."""
        said = {"subject": subject, "predicate": predicate, "value": value, "confidence": confidence}
        return await self.ask(calls.assert_truth({**said, **options}))

    async def retract(self, assertion_id: str, subject: str, reason: str = "", **options: Any) -> Acknowledgement:
        """Take an assertion about a subject back; it stays in the history."""
        return await self.ask(calls.retract(assertion_id, {"subject": subject, "reason": reason, **options}))

    async def declare_predicate(self, predicate: str, **contract: Any) -> Acknowledgement:
        """Declare how a predicate's competing assertions are fused."""
        return await self.ask(calls.declare_predicate({"predicate": predicate, **contract}))

    async def declare_source(self, source: str, reliability: float, reason: str = "") -> Acknowledgement:
        """Declare how reliable a source is, in [0, 1]: the weight of its votes."""
        return await self.ask(calls.declare_source({"source": source, "reliability": reliability, "reason": reason}))

    # The log

    async def why(self, *, event: str | None = None, job: str | None = None, assertion: str | None = None, **reading: Unpack[Reading]) -> CausationAnswer:  # fmt: skip
        """Return what caused a record and what followed from it; give one of `event`, `job`, `assertion`."""
        return await self.ask(calls.why({"event": event, "job": job, "assertion": assertion}, reading))

    async def events(self, **filters: Any) -> AsyncIterator[EventView]:
        """Yield events in log order, page by page; filters are those of `GET /v1/events`."""
        cursor: str | None = None
        while True:
            page = await self.ask(calls.events(filters, cursor))
            for one in page.events:
                yield one
            cursor = page.next_cursor
            if cursor is None:
                return

    async def dead_letters(self) -> AsyncIterator[EventView]:
        """Yield what no consumer could use, page by page."""
        cursor: str | None = None
        while True:
            page = await self.ask(calls.dead_letters(cursor))
            for one in page.events:
                yield one
            cursor = page.next_cursor
            if cursor is None:
                return

    async def runners(self, **reading: Unpack[Reading]) -> RunnersAnswer:
        """Return the runners that the log knows."""
        return await self.ask(calls.runners(reading))

    async def digest(self, **reading: Unpack[Reading]) -> DigestAnswer:
        """Return the digest of every projected table."""
        return await self.ask(calls.digest(reading))

    async def sql_table(self, text: str, limit_rows: int = 1_000_000, **reading: Unpack[Reading]) -> Any:
        """Run one read-only SELECT; return its rows as a pyarrow Table with the database's own types."""
        return await self.ask(calls.sql_table(text, limit_rows, reading))

    async def sql(self, text: str, limit_rows: int = 1000, **reading: Unpack[Reading]) -> Rows:
        """Run one read-only SELECT over the documented tables."""
        return await self.ask(calls.sql(text, limit_rows, reading))
