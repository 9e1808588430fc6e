"""One attempt: its payload checked, its handler run, what came of it as one event."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final

import msgspec
from pydantic import ValidationError

from controlplane.api.models import JobRequest
from controlplane.api.submissions import job_submitted
from controlplane.contents import ContentCorrupt, ContentMissing, ContentStore
from controlplane.events import types
from controlplane.events.header import Cause, caused_header, outside_header
from controlplane.events.identity import Instant
from controlplane.events.types import ErrorEnvelope, LogPosition
from controlplane.log.producer import LogProducer, OutgoingRecord
from controlplane.runner.capability import Handler
from controlplane.runner.context import JobContext, JobFacts
from controlplane.runner.definition import Runner
from controlplane.runner.errors import contract_failure, failure, refusal
from controlplane.runner.reports import Logged, Progressed, Report, Submitted

PROGRESS_EVERY_SECONDS: Final = 0.25

logger = logging.getLogger(__name__)

Publish = Callable[[OutgoingRecord], "asyncio.Future[Any]"]


def _now() -> Instant:
    return Instant(time.time_ns() // 1000)


class Attempt:
    """One lease in the hands of this process."""

    def __init__(
        self, routed: types.JobRouted, position: LogPosition, runner: Runner, producer: LogProducer, publish: Publish,
        contents: ContentStore,
    ) -> None:  # fmt: skip
        """Take a lease; nothing runs yet."""
        self.routed = routed
        self.revoked = ""
        self._position = position
        self._runner = runner
        self._producer = producer
        self._publish = publish
        self._contents = contents
        self._loop = asyncio.get_running_loop()
        self._children: list[asyncio.Future[Any]] = []
        self._ordinal = 0
        self._told_at = 0.0
        self.context = JobContext(
            JobFacts(
                job_id=routed.job_id, job_type=routed.job_type, attempt_id=routed.attempt_id,
                attempt_number=routed.attempt_number, correlation_id=routed.header.correlation_id,
                tenant=routed.header.tenant, pool=routed.pool, priority=routed.priority,
            ),
            self._receive,
        )  # fmt: skip

    # What is told

    def header(self, name: str, ordinal: int = 0) -> types.EventHeader:
        """Return the header of an observation: its cause is the record that routed the job here."""
        header = self.routed.header
        cause = Cause(
            position=self._position, correlation_id=header.correlation_id, tenant=header.tenant, actor=header.actor
        )
        return caused_header(cause, name, ordinal, self._producer.identity, _now())

    def _names(self) -> dict[str, Any]:
        routed = self.routed
        return {
            "job_id": routed.job_id, "attempt_id": routed.attempt_id, "attempt_number": routed.attempt_number,
            "runner_id": routed.runner_id,
        }  # fmt: skip

    def record(self, event: msgspec.Struct) -> OutgoingRecord:
        """Return an observation as a record in the partition of its job."""
        return self._producer.record(event, partition=self.routed.job_partition)

    def started(self) -> OutgoingRecord:
        """Return the observation that the attempt begins."""
        return self.record(types.AttemptStarted(header=self.header("AttemptStarted"), **self._names()))

    def failed(self, error: ErrorEnvelope, micros: int = 0) -> OutgoingRecord:
        """Return the observation that the attempt failed."""
        event = types.AttemptFailed(
            header=self.header("AttemptFailed"), **self._names(), error=error, duration_micros=micros
        )
        return self.record(event)

    def _cancelled(self, reason: str, micros: int) -> OutgoingRecord:
        event = types.AttemptCancelled(
            header=self.header("AttemptCancelled"), **self._names(), reason=reason, duration_micros=micros
        )
        return self.record(event)

    def _succeeded(self, result: bytes, handler: Handler, micros: int) -> OutgoingRecord:
        event = types.AttemptSucceeded(
            header=self.header("AttemptSucceeded"), **self._names(),
            result=self._contents.check_in(types.Content(data=result)), claims=self.context.claims,
            capability=handler.label, runner_name=self._runner.name, duration_micros=micros,
        )  # fmt: skip
        return self.record(event)

    def _receive(self, report: Report) -> "asyncio.Future[None] | None":
        """Take what the handler says, from whatever thread it says it."""
        match report:
            case Progressed():
                now = time.monotonic()
                if report.fraction < 1 and now - self._told_at < PROGRESS_EVERY_SECONDS:
                    return None
                self._told_at = now
                self._ordinal += 1
                event = types.AttemptProgressed(
                    header=self.header("AttemptProgressed", self._ordinal), **self._names(), fraction=report.fraction,
                    message=report.message,
                )  # fmt: skip
                self._loop.call_soon_threadsafe(self._publish, self.record(event))
            case Submitted():
                self._loop.call_soon_threadsafe(self._submit, report)
            case Logged():
                self._ordinal += 1
                logged = types.JobLogged(
                    header=self.header("JobLogged", self._ordinal), job_id=self.routed.job_id,
                    attempt_id=self.routed.attempt_id, lines=(report.line,),
                )  # fmt: skip
                self._loop.call_soon_threadsafe(self._publish, self._producer.record(logged))
        return None

    def _submit(self, report: Submitted) -> None:
        header = outside_header(
            "JobSubmitted", report.job_id, self._producer.identity, _now(), correlation_id=self.routed.header.correlation_id,
            tenant=self.routed.header.tenant, causation=self._position,
        )  # fmt: skip
        event = job_submitted(
            JobRequest.model_validate_json(report.request), job_id=report.job_id,
            payload=self._contents.check_in(types.Content(data=report.payload)), header=header,
            parent=types.ParentJob(job_id=self.routed.job_id, attempt_id=self.routed.attempt_id),
        )  # fmt: skip
        self._children.append(self._publish(self._producer.record(event)))

    # What is done

    def revoke(self, reason: str) -> None:
        """Ask the handler to stop."""
        self.revoked = reason or "revoked"
        self.context.stop(self.revoked)

    async def run(self, handler: Handler, threads: Executor) -> OutgoingRecord:
        """Run the handler and return the observation that ends the attempt; a fault of the handler is an observation, too."""
        started = time.perf_counter()

        def micros() -> int:
            return int((time.perf_counter() - started) * 1e6)

        attempt_id = self.routed.attempt_id
        try:
            payload = handler.payload.validate_json(self._contents.check_out(self.routed.payload) or b"null")
        except ValidationError as error:
            return self.failed(contract_failure("payload_invalid", "payload", error, attempt_id))
        except (ContentMissing, ContentCorrupt) as error:
            return self.failed(refusal("payload_invalid", str(error), attempt_id, field="payload"))
        try:
            async with asyncio.timeout(self.routed.timeout_seconds):
                value = await self._call(handler, payload, threads)
            await asyncio.gather(*self._children)
        except TimeoutError as error:
            if self.context.cancelled or (self.routed.timeout_seconds or 0) * 1e6 > micros():
                return self.failed(failure(error, attempt_id), micros())
            self.context.stop("The attempt took longer than its limit.")
            text = f"Expected the handler to end within {self.routed.timeout_seconds:g} s, but it did not."
            return self.failed(refusal("attempt_timed_out", text, attempt_id), micros())
        except asyncio.CancelledError:
            return self._cancelled(self.revoked or "The handler stopped.", micros())
        except Exception as error:
            logger.info("A handler failed.", exc_info=error, extra={"job_id": self.routed.job_id})
            return self.failed(failure(error, attempt_id), micros())
        try:
            data = handler.result.dump_json(handler.result.validate_python(value))
        except ValidationError as error:
            return self.failed(contract_failure("result_invalid", "result", error, attempt_id), micros())
        return self._succeeded(data, handler, micros())

    async def _call(self, handler: Handler, payload: Any, threads: Executor) -> Any:
        arguments = (payload, self.context) if handler.takes_job else (payload,)
        if handler.executor == "loop":
            return await handler.function(*arguments)
        return await self._loop.run_in_executor(threads, handler.function, *arguments)
