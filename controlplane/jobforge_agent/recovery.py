"""Redis is a projection and may lie: empty, or in the past. The log knows what was decided; fold it before deciding again.

The low watermark of a partition is the offset of its oldest submission whose job is not concluded, or whose conclusion may not be
published yet. Everything about such a job was appended after its submission, so the time of that record bounds what must be
read of every topic: recovery is proportional to unfinished work, not to history.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

import msgspec

from controlplane.events import types
from controlplane.events.catalog import JOBS, ROUTING, TERMINAL
from controlplane.events.codec import UndecodableRecord, decode
from controlplane.events.header import Cause
from controlplane.events.identity import name_based_id
from controlplane.events.types import LogPosition
from controlplane.jobforge_agent.state import Job, earliest
from controlplane.jobforge_agent.transitions import Phase
from controlplane.log.positions import Partition
from controlplane.log.producer import OutgoingRecord
from controlplane.log.reader import LogReader

TAIL_RECORDS: Final = 512
"""Whatever the store forgot is what was decided last: so many of the last decisions tell whether it forgot anything."""
CLOCK_MARGIN_MILLISECONDS: Final = 10_000
"""Append times of two brokers may differ by so much."""

_PHASES: Final[dict[Any, Phase]] = {
    types.JobCompleted: Phase.COMPLETED,
    types.JobFailed: Phase.FAILED,
    types.JobCancelled: Phase.CANCELLED,
    types.JobRejected: Phase.REJECTED,
}


class Recorded(msgspec.Struct, kw_only=True):
    """What the log says JobForge decided about one job."""

    accepted: bool = False
    conclusion: Any = None
    routed: types.JobRouted | None = None
    retry: types.JobRetryScheduled | None = None
    reprioritised: types.JobReprioritised | None = None
    losses: int = 0

    def take(self, event: Any) -> None:
        """Add one of JobForge's own events; the first conclusion and the latest attempt count."""
        match event:
            case types.JobAccepted():
                self.accepted = True
            case types.JobRouted() if self.routed is None or _later(event, self.routed):
                self.routed = event
            case types.JobRetryScheduled() if self.retry is None or event.attempt_number > self.retry.attempt_number:
                self.retry = event
            case types.JobReprioritised():
                self.reprioritised = event
            case types.AttemptLost():
                self.losses += 1
            case _ if type(event) in TERMINAL and self.conclusion is None:
                self.conclusion = event

    def restore(self, job: Job) -> Job:
        """Return a freshly accepted job as the log says it became."""
        if self.reprioritised is not None:
            job = msgspec.structs.replace(job, priority=self.reprioritised.priority)
        if self.conclusion is not None:
            ended = msgspec.structs.replace(
                job, attempt_id=getattr(self.conclusion, "attempt_id", None), losses=self.losses,
                attempt_number=getattr(self.conclusion, "attempt_number", 0),
                runner_id=getattr(self.conclusion, "runner_id", None),
            )  # fmt: skip
            return ended.tombstone(_PHASES[type(self.conclusion)], _record_behind(self.conclusion))
        routed_number = self.routed.attempt_number if self.routed else 0
        if self.retry is not None and self.retry.attempt_number >= routed_number:
            return msgspec.structs.replace(
                job, phase=Phase.RETRYING, due_at=earliest(self.retry.due_at, job.deadline), losses=self.losses,
                attempt_number=self.retry.attempt_number, failures=max(0, self.retry.attempt_number - self.losses),
                last=self.retry.header.causation or job.submission,
            )  # fmt: skip
        if self.routed is None:
            return job
        limit = self.routed.header.occurred_at + job.attempt_timeout_micros if job.attempt_timeout_micros else None
        return msgspec.structs.replace(
            job, phase=Phase.ROUTED, attempt_id=self.routed.attempt_id, attempt_number=routed_number,
            runner_id=self.routed.runner_id, routed_at=self.routed.header.occurred_at, losses=self.losses,
            failures=max(0, routed_number - 1 - self.losses), due_at=earliest(limit, job.deadline),
            last=self.routed.header.causation or job.submission,
        )  # fmt: skip


def _record_behind(conclusion: Any) -> LogPosition | None:
    """Return the record that led to a conclusion, or None where time or silence did; its id tells."""
    position = conclusion.header.causation
    if position is None:
        return None
    cause = Cause(position=position, correlation_id="")
    same = name_based_id(f"{cause.name}/{type(conclusion).__name__}/0") == conclusion.header.event_id
    return position if same else None


def _later(event: types.JobRouted, other: types.JobRouted) -> bool:
    """Say whether a lease is the later one; a store that forgot a lease gave the next one the same number."""
    return (event.attempt_number, event.header.occurred_at) > (other.attempt_number, other.header.occurred_at)


async def records(
    reader: LogReader,
    starts: Mapping[Partition, int],
    *,
    most: int | None = None,
    ends: Mapping[Partition, int] | None = None,
) -> AsyncIterator[Any]:
    """Yield the records of partitions from their starts to `ends`, by default those that they have now, or `most` of each."""
    ends = ends or await reader.end_offsets(starts)
    if most is not None:
        ends = {one: min(end, starts[one] + most) for one, end in ends.items()}
    left = {one for one in starts if starts[one] < ends[one]}
    if not left:
        return
    await reader.assign({one: starts[one] for one in left})
    while left:
        for one, batch in (await reader.batch(timeout_seconds=0.5)).items():
            for record in batch:
                if record.offset < ends[one]:
                    yield record
        for one in list(left):
            if await reader.position(one) >= ends[one]:
                left.discard(one)


async def moment_of(reader: LogReader, partition: Partition, offset: int) -> int | None:
    """Return the append time of a record in milliseconds; None at the end of its partition."""
    ends = await reader.end_offsets([partition])
    if offset >= ends[partition]:
        return None
    await reader.assign({partition: offset})
    while True:
        for batch in (await reader.batch(timeout_seconds=0.5, max_records=1)).values():
            return int(batch[0].timestamp)


async def recorded_decisions(
    reader: LogReader, partition: int, since_milliseconds: int, routing_partitions: int
) -> tuple[dict[str, Recorded], int]:
    """Return what the log says JobForge decided since a moment about the jobs of one partition, by job id, and how many records told it."""
    places = [(JOBS.name, partition), *((ROUTING.name, number) for number in range(routing_partitions))]
    starts = await reader.offsets_at(dict.fromkeys(places, max(0, since_milliseconds - CLOCK_MARGIN_MILLISECONDS)))
    decided: dict[str, Recorded] = {}
    read = 0
    async for record in records(reader, starts):
        read += 1
        event = decoded(record)
        if getattr(event, "job_partition", partition) != partition or not hasattr(event, "job_id"):
            continue
        decided.setdefault(event.job_id, Recorded()).take(event)
    return decided, read


def decoded(record: Any) -> Any:
    """Return the event of a record, or None: what cannot be read was refused when it was consumed."""
    try:
        return decode(record.value)
    except UndecodableRecord:
        return None


def conclusions(records: Iterable[OutgoingRecord]) -> dict[str, tuple[int, Any]]:
    """Return the conclusions among records: by job, in which partition and the event."""
    events = [(one.partition, decoded(one)) for one in records if one.topic == JOBS.name]
    return {event.job_id: (partition, event) for partition, event in events if type(event) in TERMINAL}


def concluded_by(event: Any, job: Job) -> bool:
    """Say whether it was by this conclusion that a job came to be what it is."""
    return job.phase is _PHASES[type(event)] and job.last == event.header.causation


def unknown_to(event: Any, job: Job | None, positions: Mapping[Partition, int | None], *, recent: bool) -> bool:
    """Say whether a decision on the log is one that the store does not have: then the store is in the past.

    It does not have it if it has not consumed its cause, or if its job is not where the decision left it: what time or silence brought
    moved no position. `recent`: the store would still remember the job.
    """
    cause: LogPosition | None = event.header.causation if event is not None else None
    if cause is not None and (cause.topic, cause.partition) in positions:
        stored = positions[(cause.topic, cause.partition)]
        if stored is None or cause.offset >= stored:
            return True
    if type(event) in TERMINAL:
        return recent if job is None else not job.concluded
    if isinstance(event, types.AttemptLost | types.JobRetryScheduled):
        if job is None:
            return recent
        return job.attempt_number < event.attempt_number or (job.leased and job.attempt_id == event.attempt_id)
    return False
