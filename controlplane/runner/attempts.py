"""The attempts of a runner process: takes leases, runs handlers within the slots, stops them, and gives the slots back."""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from controlplane.contents.keys import KeyForgotten, KeyMissing
from controlplane.contents.store import ContentCorrupt, ContentMissing, ContentStore, ContentTooLarge
from controlplane.events.types import AttemptRevoked, Claim, Content, JobRouted, LogPosition
from controlplane.runner import observations
from controlplane.runner.attempt import Attempt, Stop, now_micros
from controlplane.runner.contract import arguments_of, result_json
from controlplane.runner.definition import Runner
from controlplane.runner.errors import Refused, failure, refusal
from controlplane.runner.joblogs import HANDLER_LOG
from controlplane.runner.metrics import Metrics
from controlplane.runner.observations import Lease, lease_of
from controlplane.runner.outbox import Sink
from controlplane.runner.processes import WorkerProcesses
from controlplane.runner.threads import HandlerThreads
from controlplane.runner.traces import attempt_trace

JSON_TYPE: Final = "application/json"
REMEMBERED_LEASES: Final = 20_000
STUCK_SECONDS: Final = 5.0
"""When leases wait behind handlers that have ignored for so long that their time is over, the process has to be replaced."""

logger = logging.getLogger(__name__)


class Attempts:
    """All attempts of this process. Belongs to the event loop."""

    def __init__(
        self, runner: Runner, *, slots: int, sink: Sink, contents: ContentStore, inline_limit_bytes: int,
        threads: HandlerThreads, processes: WorkerProcesses | None, metrics: Metrics,
    ) -> None:  # fmt: skip
        """Prepare; no lease is held."""
        self.held: dict[str, Attempt] = {}
        """By attempt id, until the final observation is acknowledged: what heartbeats list. Other threads may copy it."""
        self.stuck = asyncio.Event()
        self._runner = runner
        self._slots = slots
        self._sink = sink
        self._contents = contents
        self._inline_limit_bytes = inline_limit_bytes
        self._threads = threads
        self._processes = processes
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._free = slots
        self._waiting: deque[Attempt] = deque()
        self._look: asyncio.TimerHandle | None = None
        self._running: dict[str, Attempt] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._seen: dict[str, None] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def busy_slots(self) -> int:
        """Return how many slots are taken."""
        return self._slots - self._free

    def take(self, routed: JobRouted, position: LogPosition, traceparent: str | None = None) -> None:
        """Take a lease: run its handler now, or as soon as there is room. A lease that was taken before is not taken again."""
        attempt_id = routed.attempt_id
        if attempt_id in self._seen:
            return
        self._remember(attempt_id)
        lease = lease_of(routed, position, self._runner.name, self._sink.identity)
        handler = self._runner.handler(routed.job_type, routed.contract_major)
        if handler is None:
            self._refuse_unknown(lease, routed)
            return
        attempt = Attempt(
            routed, lease, handler, sink=self._sink, loop=self._loop, contents=self._contents,
            inline_limit_bytes=self._inline_limit_bytes, trace=attempt_trace(routed, position, traceparent),
        )  # fmt: skip
        attempt.on_acknowledged = lambda: self._forget(attempt_id)
        self.held[attempt_id] = attempt
        self._idle.clear()
        if not self._waiting and self._fits(attempt):
            self._start(attempt)
        else:
            self._waiting.append(attempt)
            if self._look is None:
                self._look_in(STUCK_SECONDS)

    def revoke(self, revoked: AttemptRevoked) -> None:
        """Ask the handler of a lease to stop; what waits is given back at once."""
        attempt = self.held.get(revoked.attempt_id)
        if attempt is None:
            self._remember(revoked.attempt_id)  # Should its routing be repeated, it is not begun.
            return
        reason = revoked.reason or "The lease was taken back."
        attempt.ask_to_stop(Stop.REVOKED, reason)
        if attempt in self._waiting:
            self._waiting.remove(attempt)
            attempt.cancel(reason)

    async def idle(self) -> None:
        """Wait until no lease is held and no handler runs."""
        await self._idle.wait()

    async def finish(self, seconds: float) -> None:
        """Wait for what runs; after so many seconds ask it to stop, and soon after give the leases back."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
                return
        except TimeoutError:
            logger.warning(
                "Expected the handlers to end within %g s, but %d run: stopping them.", seconds, len(self.held)
            )
        reason = "The runner is shutting down."
        while self._waiting:
            self._waiting.popleft().cancel(reason)
        for attempt in list(self._running.values()):
            attempt.ask_to_stop(Stop.SHUTDOWN, reason)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=min(seconds, 1.0))
        for attempt in list(self._running.values()):
            attempt.cancel(reason)

    # From the lease to the handler.

    def _remember(self, attempt_id: str) -> None:
        self._seen[attempt_id] = None
        if len(self._seen) > REMEMBERED_LEASES:
            del self._seen[next(iter(self._seen))]

    def _fits(self, attempt: Attempt) -> bool:
        return attempt.routed.slots <= self._free or self._free == self._slots  # Alone, anything fits.

    def _refuse_unknown(self, lease: Lease, routed: JobRouted) -> None:
        offered = ", ".join(handler.label for handler in self._runner.handlers.values()) or "nothing"
        known = any(job_type == routed.job_type for job_type, _ in self._runner.handlers)
        error = refusal(
            "contract_version_unknown" if known else "job_type_unknown",
            f"Expected one of {offered}, but found {routed.job_type} in major version {routed.contract_major}.",
            routed.attempt_id, field="contract_major" if known else "job_type",
        )  # fmt: skip
        self._sink.emit(observations.failed(lease, error, 0, now_micros()), partition=routed.job_partition)

    def _start(self, attempt: Attempt) -> None:
        self._free -= attempt.routed.slots
        self._metrics.busy_slots.set(self.busy_slots)
        self._running[attempt.attempt_id] = attempt
        attempt.begin()
        limit = attempt.routed.timeout_seconds or attempt.handler.timeout_seconds
        if limit is not None:
            attempt.timer = self._loop.call_later(limit, self._time_out, attempt, limit)
        context = None if attempt.trace is None else attempt.trace.context.copy()
        task = self._loop.create_task(self._run(attempt), context=context)
        if attempt.handler.executor == "loop":
            attempt.stopper = task.cancel
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._release(attempt, ended))

    async def _run(self, attempt: Attempt) -> None:
        """Run one attempt to its final observation; whatever a handler raises ends its attempt and nothing else.

        Save Ctrl-C, which Python raises in whatever runs on the loop where no signal handler takes it: it goes on to end the process.
        """
        HANDLER_LOG.set(attempt.log_line)
        try:
            result, claims = await self._outcome(attempt)
        except asyncio.CancelledError as error:
            if attempt.stop is None:
                attempt.fail(failure(error, attempt.attempt_id, sealed=attempt.sealed))
            else:
                attempt.cancel(attempt.stop_reason)
        except Refused as refused:
            if refused.details:
                logger.warning(
                    "%s failed: %s\n%s", attempt.handler.label, refused, refused.details, extra=_about(attempt)
                )
            attempt.fail(refused.error)
        except BaseException as error:
            if not self._loop.is_running():
                raise  # The loop ended before the handler, whose coroutine is closed now: nobody is there to be told.
            told = failure(error, attempt.attempt_id, sealed=attempt.sealed)
            attempt.fail(told)
            logger.warning("%s failed: %s", attempt.handler.label, told.message, exc_info=error, extra=_about(attempt))
            if isinstance(error, KeyboardInterrupt) and attempt.handler.executor == "loop":
                raise
        else:
            attempt.succeed(result, claims)

    async def _outcome(self, attempt: Attempt) -> tuple[Content, tuple[Claim, ...]]:
        handler = attempt.handler
        payload = attempt.routed.payload
        data = payload.data if _is_plain(payload) else await self._fetched(payload, attempt.attempt_id)
        if handler.executor == "process" and self._processes is not None:
            returned = await self._threads.call(self._processes.run, attempt, data)
            return await self._content(returned.result, attempt), returned.claims
        arguments = arguments_of(handler, data, attempt.context, sealed=attempt.sealed)
        if handler.executor == "loop":
            result = await handler.function(*arguments)
        else:
            call: tuple[Any, ...] = (_in_thread, handler.function, arguments, attempt)
            if attempt.trace is not None:
                call = (attempt.trace.context.copy().run, *call)
            result = await self._threads.call(*call)
        kept = result_json(handler, result, attempt.attempt_id, sealed=attempt.sealed)
        return await self._content(kept, attempt), attempt.context.claims

    async def _fetched(self, payload: Content, attempt_id: str) -> bytes:
        """Return the bytes of a payload that is kept elsewhere.

        Raises:
            Refused: they cannot be had, or this runner cannot read them.
        """
        if payload.content_type != JSON_TYPE:
            text = f"Expected a payload of {JSON_TYPE}, but found {payload.content_type}."
            raise Refused(refusal("payload_invalid", text, attempt_id, field="payload"))
        try:
            return await asyncio.to_thread(self._contents.check_out, payload)
        except ContentMissing as error:
            raise Refused(refusal("not_found", str(error), attempt_id, field="payload")) from error
        except ContentCorrupt as error:
            raise Refused(refusal("payload_invalid", str(error), attempt_id, field="payload")) from error
        except KeyForgotten as error:
            raise Refused(refusal("content_forgotten", str(error), attempt_id, field="payload")) from error
        except KeyMissing as error:
            raise Refused(refusal("key_missing", str(error), attempt_id, field="payload")) from error

    async def _content(self, data: bytes, attempt: Attempt) -> Content:
        content, key_id = Content(data=data), attempt.routed.payload.encryption_key_id
        if len(data) <= self._inline_limit_bytes and key_id is None:
            return content
        try:
            return await asyncio.to_thread(self._contents.check_in, content, key_id=key_id)
        except ContentTooLarge as error:
            raise Refused(refusal("result_invalid", str(error), attempt.attempt_id, field="result")) from error
        except KeyForgotten as error:
            raise Refused(refusal("content_forgotten", str(error), attempt.attempt_id, field="result")) from error
        except KeyMissing as error:
            raise Refused(refusal("key_missing", str(error), attempt.attempt_id, field="result")) from error

    # How it ends.

    def _time_out(self, attempt: Attempt, limit: float) -> None:
        """End an attempt whose time is over, whether its handler listens or not."""
        text = f"Expected the attempt to end within {limit:g} s, but it did not."
        attempt.fail(refusal("attempt_timed_out", text, attempt.attempt_id))
        attempt.ask_to_stop(Stop.TIMED_OUT, text)
        if self._waiting:
            self._look_in(STUCK_SECONDS)

    def _release(self, attempt: Attempt, task: "asyncio.Task[None]") -> None:
        """Give the slots back and begin what waits, whatever its task came to."""
        self._tasks.discard(task)
        self._running.pop(attempt.attempt_id, None)
        self._free += attempt.routed.slots
        while self._waiting and self._fits(self._waiting[0]):
            self._start(self._waiting.popleft())
        self._metrics.ended(attempt)
        self._metrics.busy_slots.set(self.busy_slots)
        if not self.held and not self._running:
            self._idle.set()

    def _forget(self, attempt_id: str) -> None:
        attempt = self.held.pop(attempt_id, None)
        if attempt is not None and attempt.trace is not None:
            attempt.trace.end(attempt.outcome)
        if not self.held and not self._running:
            self._idle.set()

    def _look_in(self, seconds: float) -> None:
        if self._look is not None:
            self._look.cancel()
        self._look = self._loop.call_later(seconds, self._look_whether_stuck)

    def _look_whether_stuck(self) -> None:
        """Look as long as a lease waits: a handler that is in time now may ignore its end later, and each has some seconds to stop."""
        self._look = None
        if not self._waiting:
            return
        last = max((one.over_at for one in self._running.values()), default=math.inf)
        left = last + STUCK_SECONDS - time.monotonic()
        if left > 0:
            self._look_in(min(left, STUCK_SECONDS))
            return
        logger.error(
            "Expected handlers to stop when their time is over, but all %d slots are taken by such that go on: %s.",
            self._slots, ", ".join({one.handler.label for one in self._running.values()}),
        )  # fmt: skip
        self.stuck.set()


def _about(attempt: Attempt) -> dict[str, str]:
    facts = attempt.lease.facts
    return {"correlation_id": facts.correlation_id, "job_id": facts.job_id, "attempt_id": attempt.attempt_id}


def _is_plain(payload: Content) -> bool:
    return payload.reference is None and payload.encryption_key_id is None and payload.content_type == JSON_TYPE


def _in_thread(function: Callable[..., Any], arguments: tuple[Any, ...], attempt: Attempt) -> Any:
    token = HANDLER_LOG.set(attempt.log_line)
    try:
        return function(*arguments)
    finally:
        HANDLER_LOG.reset(token)
