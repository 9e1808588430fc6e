"""A history of jobs written straight to the log, with real causes: what a bench or a test of the projection folds.

The services would write the same events; writing them without running the jobs makes millions in minutes.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from controlplane.events import types
from controlplane.events.catalog import Service
from controlplane.events.errors import envelope
from controlplane.events.header import Cause, caused_header, outside_header
from controlplane.events.identity import Instant, name_based_id
from controlplane.events.types import LogPosition
from controlplane.log.connection import LogConnection
from controlplane.log.producer import LogProducer

JOBS_AT_ONCE: Final = 2_000
FAILED_EVERY: Final = 20
EVENTS_PER_JOB: Final = 11
BEGUN: Final = 1_767_225_600_000_000
"""The first event's time: the start of 2026, in microseconds."""
MICROS_PER_JOB: Final = 250


class Target(Protocol):
    """What a history is written to: a producer, or something that takes its records without a log."""

    @property
    def identity(self) -> types.Producer:
        """Return who says that it wrote the records."""

    def record(self, event: Any, /) -> Any:
        """Return the record of an event."""

    def send(self, records: Sequence[Any], /) -> Awaitable[list[LogPosition]]:
        """Take records; their positions are known once they are on the log."""


class _Writer:
    """Writes one kind of step for many jobs at once, each caused by the record of the step before."""

    def __init__(self, producer: Target, first: int, size: int, name: str) -> None:
        self._producer = producer
        self._numbers = range(first, first + size)
        self._name = name

    def job(self, number: int) -> str:
        return f"{self._name}-{number}"

    def now(self, number: int) -> Instant:
        return Instant(BEGUN + number * MICROS_PER_JOB)

    def header(self, number: int, cause: LogPosition, name: str, ordinal: int = 0) -> types.EventHeader:
        return caused_header(
            Cause(position=cause, correlation_id=self.job(number)),
            name,
            ordinal,
            self._producer.identity,
            self.now(number),
        )

    def lease(self, number: int) -> dict[str, Any]:
        job = self.job(number)
        return {
            "job_id": job, "attempt_id": name_based_id(f"{job}/1"), "attempt_number": 1, "runner_id": f"runner-{number % 8}"
        }  # fmt: skip

    async def write(
        self, causes: Sequence[LogPosition], story: Callable[[int, LogPosition], Sequence[Any]]
    ) -> list[LogPosition]:
        """Send the step of every job; return the position of each job's first record of it."""
        records: list[Any] = []
        firsts: list[int] = []
        for number, cause in zip(self._numbers, causes, strict=True):
            firsts.append(len(records))
            records += [self._producer.record(event) for event in story(number, cause)]
        positions = await self._producer.send(records)
        return [positions[first] for first in firsts]

    # The steps, in the order in which they cause each other.

    def submitted(self, number: int, _: LogPosition) -> Sequence[Any]:
        job = self.job(number)
        header = outside_header("JobSubmitted", job, self._producer.identity, self.now(number))
        payload = types.Content(data=b'{"id":%d,"tenant":"acme","kind":"noop","note":"%s"}' % (number, b"x" * 100))
        return [types.JobSubmitted(header=header, job_id=job, job_type="noop", payload=payload)]

    def accepted(self, number: int, cause: LogPosition) -> Sequence[Any]:
        header = self.header(number, cause, "JobAccepted")
        return [types.JobAccepted(header=header, job_id=self.job(number), job_type="noop", pool="default", priority=5)]

    def routed(self, number: int, cause: LogPosition) -> Sequence[Any]:
        payload = types.Content(data=b'{"id":%d}' % number)
        return [
            types.JobRouted(
                header=self.header(number, cause, "JobRouted"), **self.lease(number), job_type="noop", contract_major=1,
                payload=payload, pool="default", priority=5, job_partition=0, lease_seconds=6.0, queued_at=self.now(number),
                reason="least loaded of 8",
            )
        ]  # fmt: skip

    def ran(self, number: int, cause: LogPosition) -> Sequence[Any]:
        lease = self.lease(number)
        steps = [
            types.AttemptProgressed(
                header=self.header(number, cause, "AttemptProgressed", step), **lease, fraction=step / 3, message=f"step {step} of 3"
            )
            for step in (1, 2)
        ]  # fmt: skip
        line = types.LogLine(at=self.now(number), level="INFO", logger="noop", message=f"looked at {number}")
        log = types.JobLogged(
            header=self.header(number, cause, "JobLogged"), job_id=lease["job_id"], attempt_id=lease["attempt_id"], lines=(line,) * 3
        )  # fmt: skip
        return [
            self._ended(number, cause),
            types.AttemptStarted(header=self.header(number, cause, "AttemptStarted"), **lease),
            *steps,
            log,
        ]

    def _ended(self, number: int, cause: LogPosition) -> Any:
        lease = self.lease(number)
        if number % FAILED_EVERY == 0:
            return types.AttemptFailed(
                header=self.header(number, cause, "AttemptFailed"), **lease, error=envelope("handler_failed", "It failed.", error_id=lease["attempt_id"])
            )  # fmt: skip
        return types.AttemptSucceeded(
            header=self.header(number, cause, "AttemptSucceeded"), **lease, result=types.Content(data=b'{"ok":true}'),
            capability="noop", runner_name="runner",
        )  # fmt: skip

    def concluded(self, number: int, cause: LogPosition) -> Sequence[Any]:
        lease = self.lease(number)
        if number % FAILED_EVERY == 0:
            error = envelope("handler_failed", "It failed.", error_id=lease["attempt_id"])
            return [types.JobFailed(header=self.header(number, cause, "JobFailed"), **lease, error=error)]
        header = self.header(number, cause, "JobCompleted")
        return [types.JobCompleted(header=header, **lease, result=types.Content(data=b'{"ok":true}'))]

    def asserted(self, number: int, cause: LogPosition) -> Sequence[Any]:
        lease = self.lease(number)
        evidence = types.Evidence(job_id=lease["job_id"], attempt_id=lease["attempt_id"])
        said = (("outcome", "failed" if number % FAILED_EVERY == 0 else "completed"), ("width", str(number % 1000)))
        return [
            types.TruthAsserted(
                header=self.header(number, cause, "TruthAsserted", ordinal), subject=f"job:{lease['job_id']}", predicate=predicate,
                object=types.TypedValue(kind=types.ValueKind.STRING, text=text), confidence=0.9, evidence=evidence,
                source=types.Source(kind=types.SourceKind.SYSTEM, name="jobforge"),
            )
            for ordinal, (predicate, text) in enumerate(said)
        ]  # fmt: skip


async def write_history(
    connection: LogConnection, events: int, *, name: str = "history", progress: Callable[[int], None] | None = None
) -> int:
    """Write the events of so many jobs that there are at least `events`; the same name and number give the same history.

    Raises:
        LogUnavailable: the log did not take the records.
    """
    producer = LogProducer(connection, service=Service.GATEWAY, instance="history")
    await producer.start()
    jobs = -(-events // EVENTS_PER_JOB)
    try:
        for first in range(0, jobs, JOBS_AT_ONCE):
            size = min(JOBS_AT_ONCE, jobs - first)
            await write_jobs(producer, first, size, name)
            if progress is not None:
                progress((first + size) * EVENTS_PER_JOB)
    finally:
        await producer.stop()
    return jobs * EVENTS_PER_JOB


async def write_jobs(target: Target, first: int, size: int, name: str) -> None:
    """Write every step of so many jobs, beginning with a number; all jobs take a step before any takes the next."""
    writer = _Writer(target, first, size, name)
    places = [LogPosition(topic="", partition=0, offset=0)] * size
    for step in (writer.submitted, writer.accepted, writer.routed, writer.ran, writer.concluded, writer.asserted):
        places = await writer.write(places, step)
