"""A whole control plane in one process: submit, wait, look at events and truths, without a broker, a store or a port."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack

import msgspec
from pydantic import TypeAdapter

from controlplane.api.models import JobRequest, TruthView
from controlplane.api.submissions import JobOptions, job_submitted, json_content
from controlplane.client.errors import ControlPlaneError
from controlplane.contents import ContentStore
from controlplane.events.catalog import TERMINAL
from controlplane.events.codec import decode
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant, random_id
from controlplane.events.types import JobCancelRequested, JobCompleted, Producer
from controlplane.jobforge_agent.policy import Policy, least_loaded
from controlplane.runner import Runner
from controlplane.testing.engine import INLINE_LIMIT_BYTES, Engine
from controlplane.truthcore_projector.decode import Decoder
from controlplane.truthcore_projector.moments import NOW
from controlplane.truthcore_projector.store import Store
from controlplane.truthcore_projector.truths import Wanted, truth_page

T = TypeVar("T")

CLIENT: Final = Producer(service="client", version="test", instance="test")
TRUTHS_LIMIT: Final = 100_000
START_SECONDS: Final = 30.0


class NothingMoves(TimeoutError):
    """Expected the job to be concluded in time, but it was not; the message says where it stands."""


class JobForTests:
    """A job of a `ControlPlaneForTests`."""

    def __init__(self, control_plane: "ControlPlaneForTests", job_id: str) -> None:
        self._control_plane = control_plane
        self.job_id: Final = job_id

    def wait(self, timeout: float = 10.0) -> Any:
        """Return the event that concluded the job: JobCompleted, JobFailed, JobCancelled or JobRejected.

        Raises:
            NothingMoves: it is not concluded within `timeout` seconds of real time.
        """
        return self._control_plane.conclusion_of(self.job_id, timeout)

    def result(self, timeout: float = 10.0, *, as_type: Any = None) -> Any:
        """Return the result as JSON says it, or as a type.

        Raises:
            ControlPlaneError: the job failed, was rejected or cancelled; the fields say why.
            NothingMoves: it is not concluded in time.
        """
        event = self.wait(timeout)
        if not isinstance(event, JobCompleted):
            error = getattr(event, "error", None)
            fields = {"code": "job_cancelled", "category": "CANCELLED", "message": getattr(event, "reason", "")}
            raise ControlPlaneError(fields if error is None else msgspec.to_builtins(error))
        data = self._control_plane.contents.check_out(event.result)
        return TypeAdapter(Any if as_type is None else as_type).validate_json(data)

    def events(self) -> list[Any]:
        """Return what the log says of the job so far, in order."""
        return [event for event in self._control_plane.events() if getattr(event, "job_id", None) == self.job_id]

    def cancel(self, reason: str = "", *, kill: bool = False, tree: bool = False) -> None:
        """Ask for the job to be cancelled."""
        header = outside_header(
            "JobCancelRequested", random_id(), CLIENT, self._control_plane.now, correlation_id=self.job_id
        )
        self._control_plane.append(
            JobCancelRequested(header=header, job_id=self.job_id, reason=reason, kill=kill, tree=tree)
        )


class ControlPlaneForTests:
    """Runs the handlers of runners as shipped: contracts, decisions, retries, the routing policy, truths; only the log is in memory.

    Pauses before retries, `not_before` and queue time-outs are skipped, not waited for. Not there: Kafka, Redis and HTTP; crashes, leases
    that are lost, limits, pauses, schedules and circuit breakers; handlers for worker processes run in threads.
    """

    def __init__(self, *runners: Runner, policy: Policy = least_loaded) -> None:
        """Prepare; handlers run in a thread with an event loop of its own, once this is entered.

        Raises:
            ValueError: two runners have one name, which is what the others know them by here.
        """
        names = [runner.name for runner in runners]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"Expected runners with a name each, but found more than one with the name {', '.join(twice)}."
            )
        self.contents: Final = ContentStore(f"memory://{random_id()}", inline_limit_bytes=INLINE_LIMIT_BYTES)
        self._runners = runners
        self._policy = policy
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="control plane", daemon=True)
        self._engine: Engine
        self._work: concurrent.futures.Future[None]

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()

        async def made() -> Engine:
            return Engine(self._runners, self._policy, self.contents)

        self._engine = asyncio.run_coroutine_threadsafe(made(), self._loop).result(START_SECONDS)
        self._work = asyncio.run_coroutine_threadsafe(self._engine.run(), self._loop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; what still runs is cancelled."""

        async def cancelled() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.wait(others, timeout=1.0) if others else None
            self._engine.close()

        asyncio.run_coroutine_threadsafe(cancelled(), self._loop).result(START_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def now(self) -> Instant:
        """Return the time as it is here: ahead of the clock by what was skipped, in microseconds."""
        return self._engine.now

    def submit(
        self, job_type: str, payload: Any = None, *, job_id: str | None = None, **options: Unpack[JobOptions]
    ) -> JobForTests:
        """Submit a job; the options are those of `JobRequest`. The same id again is the same job."""
        name = job_id or random_id()
        request = JobRequest.model_validate({**options, "job_type": job_type, "job_id": name})
        header = outside_header("JobSubmitted", name, CLIENT, self.now)
        self.append(
            job_submitted(request, job_id=name, payload=self.contents.check_in(json_content(payload)), header=header)
        )
        return JobForTests(self, name)

    def append(self, event: msgspec.Struct) -> None:
        """Append any event of the contract to the log, for example a `TruthAsserted`."""
        self._called(lambda: self._engine.append(event))

    def events(self) -> list[Any]:
        """Return every event of the log, in the order of their appends."""
        return [decode(record.value) for record in self._called(lambda: list(self._engine.log.records))]

    def truths(self, subject: str = "*", predicate: str = "*", **wanted: Any) -> list[TruthView]:
        """Return what is true, by the shipped projection and fusion; filters are those of `GET /v1/truths`."""
        records, ends = self._called(lambda: (list(self._engine.log.records), self._engine.log.ends))
        decoder, store = Decoder(), Store(":memory:")
        try:
            store.write(decoder.decode(records), ends)
            with store.snapshot() as cursor:
                return truth_page(cursor, Wanted(subject=subject, predicate=predicate, **wanted), NOW, TRUTHS_LIMIT)[0]
        finally:
            store.close()
            decoder.close()

    def conclusion_of(self, job_id: str, timeout: float) -> Any:
        """Return the event that concluded a job; see `JobForTests.wait`."""

        async def concluded() -> None:
            async with asyncio.timeout(timeout):
                await self._engine.concluded[job_id].wait()

        waiting = asyncio.run_coroutine_threadsafe(concluded(), self._loop)
        concurrent.futures.wait([waiting, self._work], return_when=concurrent.futures.FIRST_COMPLETED)
        if self._work.done():
            self._work.result()  # It never ends by itself: this raises what ended it.
        try:
            waiting.result()
        except TimeoutError as error:
            job: Any = self._called(lambda: self._engine.jobs.get(job_id))
            where = "it is not known" if job is None else f"it is {job.phase.value}"
            text = f"Expected job {job_id} to be concluded within {timeout:g} s, but {where}."
            raise NothingMoves(text) from error
        said: list[Any] = JobForTests(self, job_id).events()
        return next(event for event in said if type(event) in TERMINAL)

    def _called(self, work: Callable[[], T]) -> T:
        async def done() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(START_SECONDS)
