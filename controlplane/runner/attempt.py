"""One attempt while it runs: takes what its handler says, and writes one final observation."""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

import msgspec

from controlplane.contents import ContentStore
from controlplane.events.identity import Instant
from controlplane.events.types import AttemptSucceeded, Claim, Content, ErrorEnvelope, JobRouted, LogLine
from controlplane.log.producer import RecordTooLarge
from controlplane.runner import observations
from controlplane.runner.capability import Handler
from controlplane.runner.context import JobContext
from controlplane.runner.errors import NonRetryable, failure, refusal
from controlplane.runner.joblogs import LineBuffer
from controlplane.runner.observations import Lease
from controlplane.runner.outbox import Sink
from controlplane.runner.reports import Logged, Progressed, Report, Submitted
from controlplane.runner.traces import AttemptTrace

PROGRESS_BURST: Final = 20
PROGRESS_SECONDS: Final = 0.2
"""So many reports at once are all told; beyond them the newest one each so often, and each such time without a report makes room for one."""

logger = logging.getLogger(__name__)


class Stop(StrEnum):
    """Why a handler was asked to stop."""

    REVOKED = "REVOKED"
    TIMED_OUT = "TIMED_OUT"
    SHUTDOWN = "SHUTDOWN"


def now_micros() -> Instant:
    """Return the time as events carry it."""
    return Instant(time.time_ns() // 1_000)


class Attempt:
    """One leased job on this runner. Belongs to the event loop; only `receive` and `log_line` are called from elsewhere."""

    __slots__ = (
        "_child_error", "_children", "_contents", "_final", "_inline_limit_bytes", "_lines", "_ordinals", "_progress_due", "_progress_timer", "_sink", "_thread", "_waiting_progress", "began_at",
        "context", "handler", "lease", "loop", "on_acknowledged", "outcome", "over", "over_at", "partition", "routed", "stop", "stop_reason", "stopper", "timer", "trace",
    )  # fmt: skip

    def __init__(
        self, routed: JobRouted, lease: Lease, handler: Handler, *, sink: Sink, loop: asyncio.AbstractEventLoop,
        contents: ContentStore, inline_limit_bytes: int, trace: AttemptTrace | None = None,
    ) -> None:  # fmt: skip
        """Prepare an attempt; nothing is written yet."""
        self.trace = trace
        self.routed = routed
        self.lease = lease
        self.handler = handler
        self.loop = loop
        self.partition = routed.job_partition
        self.context = JobContext(lease.facts, self.receive)
        self.began_at = 0
        self.over = False
        """Whether the final observation is decided: what is said after it does not count."""
        self.over_at = math.inf
        """When that was, by the monotonic clock."""
        self.outcome = ""
        """How it ended: succeeded, failed, timed_out or cancelled."""
        self.stop: Stop | None = None
        self.stop_reason = ""
        self.stopper: Callable[[], object] | None = None
        """Stops the handler as far as that can be done from outside."""
        self.timer: asyncio.TimerHandle | None = None
        self.on_acknowledged: Callable[[], None] | None = None
        self._sink = sink if trace is None else trace.sink(sink)
        self._thread = threading.get_ident()
        self._ordinals = {"progress": 0, "log": 0}
        self._progress_due = 0.0
        """When the next report would be told if all came evenly; it runs ahead by a burst at most."""
        self._waiting_progress: Progressed | None = None
        self._progress_timer: asyncio.TimerHandle | None = None
        self._lines: LineBuffer | None = None
        self._contents = contents
        self._inline_limit_bytes = inline_limit_bytes
        self._children = 0
        self._child_error: BaseException | None = None
        self._final: msgspec.Struct | None = None

    @property
    def attempt_id(self) -> str:
        """Return the lease."""
        return self.lease.facts.attempt_id

    @property
    def sealed(self) -> bool:
        """Whether the log has its payload encrypted, so that it must not be told of it by us either."""
        return self.routed.payload.encryption_key_id is not None

    @property
    def duration_micros(self) -> int:
        """Return how long the handler has run."""
        return (time.monotonic_ns() - self.began_at) // 1_000 if self.began_at else 0

    def begin(self) -> None:
        """Say that the handler begins."""
        self.began_at = time.monotonic_ns()
        self._sink.emit(observations.started(self.lease, now_micros()), partition=self.partition)

    def ask_to_stop(self, stop: Stop, reason: str) -> None:
        """Ask the handler to stop; the first reason stays."""
        if self.stop is not None:
            return
        self.stop, self.stop_reason = stop, reason
        self.context.stop(reason)
        if self.stopper is not None:
            self.stopper()

    # What the handler says.

    def receive(self, report: Report) -> "asyncio.Future[None] | None":
        """Take a report, from any thread."""
        if threading.get_ident() == self._thread:
            return self._take(report)
        self.loop.call_soon_threadsafe(self._take, report)
        return None

    def log_line(self, line: LogLine) -> None:
        """Take a line of the handler's log, from any thread."""
        self.receive(Logged(line=line))

    def _take(self, report: Report) -> "asyncio.Future[None] | None":
        if self.over:
            return None
        match report:
            case Progressed():
                self._progressed(report)
            case Submitted():
                return self._submitted(report)
            case Logged(line=line):
                if self._lines is None:
                    self._lines = LineBuffer(self._logged)
                self._lines.take(line)
        return None

    def _progressed(self, report: Progressed) -> None:
        now = time.monotonic()
        wait = self._progress_due - (PROGRESS_BURST - 1) * PROGRESS_SECONDS - now
        if wait > 0:
            self._waiting_progress = report
            if self._progress_timer is None:
                self._progress_timer = self.loop.call_later(wait, self._flush_progress)
            return
        self._progress_due = max(self._progress_due, now) + PROGRESS_SECONDS
        self._tell_progress(report)

    def _tell_progress(self, report: Progressed) -> None:
        self._waiting_progress = None
        ordinal = self._next("progress")
        event = observations.progressed(self.lease, report, ordinal, now_micros())
        self._told(event, partition=self.partition, droppable=True)

    def _flush_progress(self) -> None:
        if self._progress_timer is not None:
            self._progress_timer.cancel()
            self._progress_timer = None
        if self._waiting_progress is not None:
            self._progress_due += PROGRESS_SECONDS
            self._tell_progress(self._waiting_progress)

    def _logged(self, lines: tuple[LogLine, ...], dropped: int) -> None:
        self._told(observations.logged(self.lease, lines, dropped, self._next("log"), now_micros()), droppable=True)

    def _submitted(self, report: Submitted) -> "asyncio.Future[None]":
        """Submit a child; the future is done when the submission stands on the log, or cannot."""
        stands: asyncio.Future[None] = self.loop.create_future()
        stands.add_done_callback(self._child_settled)
        self._children += 1
        content = Content(data=report.payload)
        if len(report.payload) <= self._inline_limit_bytes:
            self._emit_child(report, content, stands)
        else:
            kept = self.loop.run_in_executor(None, self._contents.check_in, content)
            kept.add_done_callback(lambda done: self._child_kept(report, done, stands))
        return stands

    def _child_kept(self, report: Submitted, kept: "asyncio.Future[Content]", stands: "asyncio.Future[None]") -> None:
        error = kept.exception()
        if error is not None:
            stands.set_exception(error)
        else:
            self._emit_child(report, kept.result(), stands)

    def _emit_child(self, report: Submitted, content: Content, stands: "asyncio.Future[None]") -> None:
        try:
            event = observations.child_submitted(self.lease, report, content, now_micros())
            self._sink.emit(event, acknowledged=lambda: None if stands.done() else stands.set_result(None))
        except Exception as error:
            text = f"Expected the child job {report.job_id} as an event, but: {error}"
            logger.warning("%s: %s", self.handler.label, text, exc_info=error)
            stands.set_exception(NonRetryable(text))

    def _child_settled(self, stands: "asyncio.Future[None]") -> None:
        self._children -= 1
        if not stands.cancelled() and (error := stands.exception()) is not None:
            self._child_error = error
        if self._final is not None and not self._children:
            self._emit_final(self._final)

    def _next(self, what: str) -> int:
        ordinal = self._ordinals[what]
        self._ordinals[what] = ordinal + 1
        return ordinal

    # How it ends.

    def succeed(self, result: Content, claims: tuple[Claim, ...]) -> None:
        """End as succeeded."""
        if not self.over:
            self.outcome = "succeeded"
            label = self.handler.label
            self._end(observations.succeeded(self.lease, result, claims, label, self.duration_micros, now_micros()))

    def fail(self, error: ErrorEnvelope) -> None:
        """End as failed."""
        if not self.over:
            self.outcome = "timed_out" if error.code == "attempt_timed_out" else "failed"
            self._end(observations.failed(self.lease, error, self.duration_micros, now_micros()))

    def cancel(self, reason: str) -> None:
        """End as stopped because it was asked to."""
        if not self.over:
            self.outcome = "cancelled"
            self._end(observations.cancelled(self.lease, reason, self.duration_micros, now_micros()))

    def _end(self, event: msgspec.Struct) -> None:
        """Write the final observation, after everything that was said before it and after the children that were submitted."""
        if self._progress_timer is not None:
            self._flush_progress()
        if self._lines is not None:
            self._lines.flush()
        if self.timer is not None:
            self.timer.cancel()
        self.over, self.over_at = True, time.monotonic()
        if self._children:
            self._final = event
        else:
            self._emit_final(event)

    def _emit_final(self, event: msgspec.Struct) -> None:
        if self._child_error is not None and isinstance(event, AttemptSucceeded):
            error = failure(self._child_error, self.attempt_id, sealed=self.sealed)
            event = observations.failed(self.lease, error, self.duration_micros, now_micros())
        untold = self._told(event, partition=self.partition, acknowledged=self.on_acknowledged)
        if untold is None:
            return
        error = failure(untold, self.attempt_id, sealed=self.sealed)
        if isinstance(untold, RecordTooLarge):
            error = refusal("result_invalid", f"Result and claims: {untold}", self.attempt_id, field="result")
        event, self.outcome = observations.failed(self.lease, error, self.duration_micros, now_micros()), "failed"
        untold = self._told(event, partition=self.partition, acknowledged=self.on_acknowledged)
        if untold is not None and self.on_acknowledged is not None:
            self.on_acknowledged()  # Heartbeats renew the lease no longer: it lapses, and the job goes elsewhere.

    def _told(self, event: msgspec.Struct, **how: Any) -> Exception | None:
        """Write an event; return why it cannot be one: nobody has to catch that where the handler's words would keep it from ending."""
        try:
            self._sink.emit(event, **how)
        except Exception as error:
            logger.warning(
                "%s cannot be told of %s: %s", type(event).__name__, self.handler.label, error, exc_info=error
            )
            return error
        return None
