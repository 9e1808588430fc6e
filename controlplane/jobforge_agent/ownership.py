"""Taking partitions over: from where to read on, and what has to be folded from the log because the store does not know it."""

import logging
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Final

import msgspec

from controlplane.events import types
from controlplane.events.catalog import CONTROLS, JOBS, PROGRESS, ROUTING, RUNNERS, SUBMISSIONS, TERMINAL
from controlplane.events.identity import Instant
from controlplane.events.types import LogPosition
from controlplane.jobforge_agent import recovery
from controlplane.jobforge_agent.batch import cause_of, consume
from controlplane.jobforge_agent.changes import TOMBSTONE_SECONDS, Changes
from controlplane.jobforge_agent.control_store import NONE
from controlplane.jobforge_agent.decide import Context, new_job
from controlplane.jobforge_agent.moments import Now
from controlplane.jobforge_agent.notes import Notes
from controlplane.jobforge_agent.outbox import Entries
from controlplane.jobforge_agent.state import SECOND, Job
from controlplane.jobforge_agent.store import Store
from controlplane.jobforge_agent.stored import Owned, StoreLost
from controlplane.log.connection import LogConnection
from controlplane.log.group import OffsetBook
from controlplane.log.positions import Partition
from controlplane.log.producer import LogProducer
from controlplane.log.reader import BRIEF_WAIT_MILLISECONDS, LogReader

RESTORED_AT_ONCE: Final = 500
REPEATS_SINCE_MILLISECONDS: Final = 60_000
"""A client that got no answer submits again within this time."""
_ABOUT_JOBS: Final = frozenset({SUBMISSIONS.name, PROGRESS.name})
REGISTRATIONS_SINCE_MILLISECONDS: Final = 120_000
"""Runners register again and again; so far back all that live are found."""

logger = logging.getLogger(__name__)


class _TakenAway(Exception):
    """Expected to own a partition until it is taken over, but another instance took it over."""


class Ownership:
    """Takes partitions over for one instance."""

    def __init__(
        self, connection: LogConnection, store: Store, producer: LogProducer, notes: Notes, group: str, now: Now
    ) -> None:
        """Take partitions over in the name of a consumer group."""
        self._connection = connection
        self._store = store
        self._producer = producer
        self._notes = notes
        self._group = group
        self._now = now
        self.records_folded = 0
        """How many records were read to restore jobs, since this instance began."""
        self.windows: dict[Partition, int] = {}
        """Up to where records are read again after a fold: of a job that is not known there, everything was decided before."""

    async def take_over(self, assigned: set[Partition]) -> tuple[dict[int, Owned], dict[Partition, int]]:
        """Return the job partitions that are owned now, and where to read on in each assigned partition.

        A partition that another instance took over meanwhile is left out: the group has given it away.
        """
        async with LogReader(
            self._connection, client_id="controlplane-jobforge-recovery", wait_milliseconds=BRIEF_WAIT_MILLISECONDS
        ) as reader:
            owned = sorted({number for topic, number in assigned if topic not in {RUNNERS.name, CONTROLS.name}})
            epochs = {number: await self._store.own(number) for number in owned}
            self.windows.clear()
            places = {(topic, number) for number in owned for topic in (SUBMISSIONS.name, PROGRESS.name)} | assigned
            stored = await self._store.positions(places)
            await self._take_over_controls(reader, [one for one in assigned if one[0] == CONTROLS.name], stored)
            await self._take_over_runners(reader, [one for one in assigned if one[0] == RUNNERS.name], stored)
            async with OffsetBook(self._connection, f"{self._group}-watermark") as book:
                lows = await book.read([(SUBMISSIONS.name, number) for number in owned])
            for number in owned:
                low = lows[(SUBMISSIONS.name, number)] or 0
                try:
                    await self._take_over_jobs(reader, number, epochs[number], stored, low)
                except _TakenAway:
                    # Whoever takes it makes the epoch higher; where it is not, nobody did: the store went back meanwhile.
                    if await self._store.epoch(number) <= int(epochs[number].epoch):
                        text = f"Expected to take job partition {number} over, but the store was lost before that was done."
                        raise StoreLost(text) from None
                    logger.warning("Job partition %d was taken over by another instance at the same time.", number)
                    del epochs[number]
        gone = set(owned) - set(epochs)
        return epochs, {
            (topic, number): position or 0
            for (topic, number), position in stored.items()
            if (topic, number) in assigned and not (topic in _ABOUT_JOBS and number in gone)
        }

    async def still_known(self, owned: Mapping[int, Owned]) -> bool:
        """Say whether the store still knows what the log says of partitions; from then on it is trusted again."""
        now = await self._store.now()
        if not await self._knows(owned):
            return False
        for one in owned.values():
            one.seen_at = now
        return True

    async def publishable(self, entries: Entries) -> Entries | None:
        """Return what may be published of what another instance decided; None where the store has to be compared with the log first.

        A store that went back may hold a conclusion that it had lost before it was published: the log may have another one since.
        """
        concluded = recovery.conclusions(one for records in entries.values() for one in records)
        if not concluded:
            return entries
        if not await self._knows({partition for partition, _ in concluded.values()}):
            return None
        known = await self._store.jobs(list(concluded))
        untrue = {name for name, job in known.items() if not recovery.concluded_by(concluded[name][1], job)}
        return {
            name: [one for one in records if not _tells_the_end_of(untrue, recovery.decoded(one))]
            for name, records in entries.items()
        }

    async def _knows(self, partitions: Iterable[int]) -> bool:
        async with LogReader(
            self._connection, client_id="controlplane-jobforge-comparison", wait_milliseconds=BRIEF_WAIT_MILLISECONDS
        ) as reader:
            for number in partitions:
                if await self._behind(reader, number):
                    return False
        return True

    async def _take_over_controls(
        self, reader: LogReader, places: Sequence[Partition], stored: dict[Partition, int | None]
    ) -> None:
        """Fold everything that was ever declared, if the store knows of nothing: it is little, and all of it counts."""
        if await self._store.controls.version() == NONE:
            count = self._producer.partitions(CONTROLS.name)
            ends = {(CONTROLS.name, number): 0 for number in range(count)}
            batch = [consume(record, count) async for record in recovery.records(reader, dict(ends))]
            ends.update({(CONTROLS.name, one.position.partition): one.position.offset + 1 for one in batch})
            await self._notes.fold(batch, ends)
            stored.update(await self._store.positions(places))
        starts = {one: 0 for one in places if stored[one] is None}
        stored.update(starts)
        await self._store.set_positions(starts)

    async def _take_over_runners(
        self, reader: LogReader, places: Sequence[Partition], stored: dict[Partition, int | None]
    ) -> None:
        since = self._now() // 1000 - REGISTRATIONS_SINCE_MILLISECONDS
        missing = [one for one in places if stored[one] is None]
        if missing or not await self._store.runners.registered():
            everywhere = [(RUNNERS.name, number) for number in range(self._producer.partitions(RUNNERS.name))]
            starts = await reader.offsets_at(dict.fromkeys(everywhere, since))
            async for record in recovery.records(reader, starts):
                event = recovery.decoded(record)
                if event is not None:
                    await self._notes.take_runner(event, record.timestamp * 1000)
        starts = await reader.offsets_at(dict.fromkeys(missing, since)) if missing else {}
        stored.update(starts)
        await self._store.set_positions(starts)
        await self._notes.refresh()

    async def _take_over_jobs(
        self, reader: LogReader, number: int, epoch: Owned, stored: dict[Partition, int | None], low: int
    ) -> None:
        """Read on where the store is, or fold from the low watermark when it is empty or in the past.

        A store in the past may hold jobs as open that concluded before the watermark of today, or their conclusions as not published: then
        the fold begins with the oldest of those. It begins early enough, too, to know jobs that concluded lately, so that a repeated submission is no news.
        """
        submissions, progress = (SUBMISSIONS.name, number), (PROGRESS.name, number)
        begun = stored[submissions] is not None and stored[progress] is not None
        if begun and not await self._behind(reader, number, stored):
            return
        oldest = await self._oldest(number)
        lately = {submissions: self._now() // 1000 - REPEATS_SINCE_MILLISECONDS}
        low = min(low, low if oldest is None else oldest, (await reader.offsets_at(lately))[submissions])
        ends = await reader.end_offsets([submissions, progress])
        moment = await recovery.moment_of(reader, submissions, low)
        starts = {submissions: min(low, ends[submissions]), progress: ends[progress]}
        restored: list[Job] = []
        read = 0
        if moment is not None:
            decided, read = await recovery.recorded_decisions(
                reader, number, moment, self._producer.partitions(ROUTING.name)
            )
            since = moment - recovery.CLOCK_MARGIN_MILLISECONDS
            starts[progress] = (await reader.offsets_at({progress: since}))[progress]
            restored = await self._restored(reader, submissions, low, decided)
            read += ends[submissions] - low
        await self._store_restored(number, epoch, restored, starts)
        self.records_folded += read
        logger.warning(
            "Partition %d was folded from offset %d: %d jobs restored from %d records.",
            number,
            low,
            len(restored),
            read,
        )
        stored.update(starts)
        self.windows.update(ends)

    async def _oldest(self, number: int) -> int | None:
        """Return the offset of the oldest submission whose job the store has as open, or whose conclusion as not published."""
        kept = [
            one for instance in await self._store.unpublished()
            for records in (await self._store.outbox(instance)).values() for one in records
        ]  # fmt: skip
        ends = [name for name, (partition, _) in recovery.conclusions(kept).items() if partition == number]
        concluded = [job.submission.offset for job in (await self._store.jobs(ends)).values()] if ends else []
        oldest = await self._store.oldest_open(number)
        return min(concluded if oldest is None else [*concluded, oldest], default=None)

    async def _behind(
        self, reader: LogReader, number: int, stored: Mapping[Partition, int | None] | None = None
    ) -> bool:
        """Say whether the log has a decision that the store does not have; the latest ones tell.

        `stored` are its positions, if nobody can have moved them since they were read.
        """
        jobs = (JOBS.name, number)
        ends = await reader.end_offsets([jobs])
        begins = await reader.beginning_offsets([jobs])
        start = max(begins[jobs], ends[jobs] - recovery.TAIL_RECORDS)
        tail = [
            (record.timestamp * 1000, recovery.decoded(record))
            async for record in recovery.records(reader, {jobs: start})
        ]
        if stored is None:
            stored = await self._store.positions([(SUBMISSIONS.name, number), (PROGRESS.name, number)])
        known = await self._store.jobs([event.job_id for _, event in tail if hasattr(event, "job_id")])
        remembered_since = self._now() - TOMBSTONE_SECONDS * SECOND // 2
        return any(
            recovery.unknown_to(event, known.get(getattr(event, "job_id", "")), stored, recent=at > remembered_since)
            for at, event in tail
        )

    async def _restored(
        self, reader: LogReader, submissions: Partition, low: int, decided: dict[str, recovery.Recorded]
    ) -> list[Job]:
        """Return every job that the log has a decision on as the log says it became."""
        jobs: list[Job] = []
        async for record in recovery.records(reader, {submissions: low}):
            event = recovery.decoded(record)
            if not isinstance(event, types.JobSubmitted) or event.job_id not in decided:
                continue
            recorded = decided.pop(event.job_id)  # Later submissions of the same job are repeats.
            jobs.append(self._held(recorded.restore(self._accepted(event, record))))
        return jobs

    async def _store_restored(
        self, number: int, epoch: Owned, jobs: Sequence[Job], starts: Mapping[Partition, int]
    ) -> None:
        """Store restored jobs, then where to read on; a crash in between leaves a store that is still behind."""
        places: Mapping[Partition, int] = {}
        for start in range(0, max(1, len(jobs)), RESTORED_AT_ONCE):
            part = jobs[start : start + RESTORED_AT_ONCE]
            if start + RESTORED_AT_ONCE >= len(jobs):
                places = starts
            while True:
                known = await self._store.jobs([job.job_id for job in part])
                changes = Changes.between((before := known.get(job.job_id), _reconciled(before, job)) for job in part)
                verdict = await self._store.commit(changes, owned={number: epoch}, places=places, folding=True)
                if verdict == "ok":
                    break
                if verdict != "conflict":  # A router leased one of them since it was read.
                    raise _TakenAway

    def _held(self, job: Job) -> Job:
        """Return a job that counts against the limits in force, if it is leased."""
        if not job.leased:
            return job
        limits = self._notes.controls.now.limits_of(job.job_type, job.tenant, job.concurrency_key, job.rate_key)
        return msgspec.structs.replace(job, holds=tuple(subject for subject, _ in limits))

    def _accepted(self, event: types.JobSubmitted, record: Any) -> Job:
        position = LogPosition(topic=record.topic, partition=record.partition, offset=record.offset)
        context = Context(
            cause=cause_of(event, position, None), now=Instant(record.timestamp * 1000), registry=self._notes.registry,
            producer=self._producer.identity, partition=record.partition,
        )  # fmt: skip
        return new_job(event, context)


def _tells_the_end_of(jobs: Set[str], event: Any) -> bool:
    """Say whether an event concludes one of the jobs, or asserts what became known by that."""
    if isinstance(event, types.TruthAsserted):
        return event.evidence.job_id in jobs
    return type(event) in TERMINAL and event.job_id in jobs


def _reconciled(before: Job | None, job: Job) -> Job:
    """Return what becomes of a restored job that the store knows, too.

    A conclusion that only the store has is on its way to the log, in the outbox of whoever decided it: it stays. A lease counts against
    what the store says that it does, else nobody would ever take that back.
    """
    if before is None:
        return job
    if before.concluded and not job.concluded:
        return before
    same = before.leased and job.leased and before.attempt_id == job.attempt_id
    return msgspec.structs.replace(job, holds=before.holds) if same else job
