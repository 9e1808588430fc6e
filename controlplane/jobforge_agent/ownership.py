"""Taking partitions over: from where to read on, and what has to be folded from the log because the store does not know it."""

import logging
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from controlplane.events import types
from controlplane.events.catalog import CONTROLS, PROGRESS, ROUTING, RUNNERS, SUBMISSIONS
from controlplane.events.identity import Instant
from controlplane.events.types import LogPosition
from controlplane.jobforge_agent import recovery
from controlplane.jobforge_agent.batch import cause_of, consume
from controlplane.jobforge_agent.changes import Changes
from controlplane.jobforge_agent.control_store import NONE
from controlplane.jobforge_agent.decide import Context, new_job
from controlplane.jobforge_agent.moments import Now
from controlplane.jobforge_agent.notes import Notes
from controlplane.jobforge_agent.state import Job
from controlplane.jobforge_agent.store import Store
from controlplane.log.connection import LogConnection
from controlplane.log.group import OffsetBook
from controlplane.log.positions import Partition
from controlplane.log.producer import LogProducer
from controlplane.log.reader import LogReader

REGISTRATIONS_SINCE_MILLISECONDS: Final = 120_000
"""Runners register again and again; so far back all that live are found."""

logger = logging.getLogger(__name__)


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

    async def take_over(self, assigned: set[Partition]) -> tuple[dict[int, str], dict[Partition, int]]:
        """Return the epoch of each job partition, and where to read on in each assigned partition."""
        reader = LogReader(self._connection, client_id="controlplane-jobforge-recovery")
        await reader.start()
        try:
            owned = sorted({number for topic, number in assigned if topic not in {RUNNERS.name, CONTROLS.name}})
            epochs = {number: await self._store.own(number) for number in owned}
            places = {(topic, number) for number in owned for topic in (SUBMISSIONS.name, PROGRESS.name)} | assigned
            stored = await self._store.positions(places)
            await self._take_over_controls(reader, [one for one in assigned if one[0] == CONTROLS.name], stored)
            await self._take_over_runners(reader, [one for one in assigned if one[0] == RUNNERS.name], stored)
            async with OffsetBook(self._connection, f"{self._group}-watermark") as book:
                lows = await book.read([(SUBMISSIONS.name, number) for number in owned])
            for number in owned:
                await self._take_over_jobs(reader, number, stored, lows[(SUBMISSIONS.name, number)] or 0)
        finally:
            await reader.stop()
        return epochs, {one: position or 0 for one, position in stored.items() if one in assigned}

    async def _take_over_controls(
        self, reader: LogReader, places: Sequence[Partition], stored: dict[Partition, int | None]
    ) -> None:
        """Fold everything that was ever declared, if the store knows of nothing: it is little, and all of it counts."""
        if await self._store.controls.version() == NONE:
            count = self._producer.partitions(CONTROLS.name)
            batch = [
                consume(record, count)
                async for record in recovery.records(reader, {(CONTROLS.name, number): 0 for number in range(count)})
            ]
            await self._notes.take(batch)
        starts = {one: 0 for one in places if stored[one] is None}
        stored.update(starts)
        await self._store.set_positions(starts)

    async def _take_over_runners(
        self, reader: LogReader, places: Sequence[Partition], stored: dict[Partition, int | None]
    ) -> None:
        since = self._now() // 1000 - REGISTRATIONS_SINCE_MILLISECONDS
        fresh = not await self._store.runners()
        if fresh:
            everywhere = [(RUNNERS.name, number) for number in range(self._producer.partitions(RUNNERS.name))]
            starts = await reader.offsets_at(dict.fromkeys(everywhere, since))
            async for record in recovery.records(reader, starts):
                event = recovery.decoded(record)
                if event is not None:
                    await self._notes.take_runner(event, record.timestamp * 1000)
        missing = [one for one in places if stored[one] is None]
        starts = await reader.offsets_at(dict.fromkeys(missing, since)) if missing else {}
        stored.update(starts)
        await self._store.set_positions(starts)
        await self._notes.refresh()

    async def _take_over_jobs(
        self, reader: LogReader, number: int, stored: dict[Partition, int | None], low: int
    ) -> None:
        """Read on where the store is, or fold from the low watermark when it is empty or in the past."""
        submissions, progress = (SUBMISSIONS.name, number), (PROGRESS.name, number)
        routing = self._producer.partitions(ROUTING.name)
        if stored[submissions] is not None and stored[progress] is not None:
            lately = self._now() // 1000 - REGISTRATIONS_SINCE_MILLISECONDS
            decided = await recovery.recorded_decisions(reader, number, lately, 0)
            if not recovery.behind(decided.values(), stored):
                return
        moment = await recovery.moment_of(reader, submissions, low)
        if moment is None:
            ends = await reader.end_offsets([submissions, progress])
            starts = {submissions: min(low, ends[submissions]), progress: ends[progress]}
        else:
            decided = await recovery.recorded_decisions(reader, number, moment, routing)
            since = moment - recovery.CLOCK_MARGIN_MILLISECONDS
            starts = {submissions: low, progress: (await reader.offsets_at({progress: since}))[progress]}
            restored = await self._restore(reader, submissions, low, decided)
            logger.warning("Partition %d was folded from offset %d: %d jobs restored.", number, low, restored)
        stored.update(starts)
        await self._store.set_positions(starts)

    async def _restore(
        self, reader: LogReader, submissions: Partition, low: int, decided: dict[str, recovery.Recorded]
    ) -> int:
        """Store every job that the log has a decision on as the log says it became; returns how many those are."""
        pairs: list[tuple[Job | None, Job]] = []
        async for record in recovery.records(reader, {submissions: low}):
            event = recovery.decoded(record)
            if not isinstance(event, types.JobSubmitted) or event.job_id not in decided:
                continue
            recorded = decided.pop(event.job_id)  # Later submissions of the same job are repeats.
            pairs.append((None, self._held(recorded.restore(self._accepted(event, record)))))
        for start in range(0, len(pairs), 500):
            part = pairs[start : start + 500]
            known = await self._store.jobs([job.job_id for _, job in part])
            merged = [(known.get(job.job_id), job) for _, job in part]
            await self._store.commit(Changes.between(merged))
            for before, job in merged:
                if job.leased and (before is None or before.attempt_id != job.attempt_id):
                    await self._store.lease(job)
        return len(pairs)

    def _held(self, job: Job) -> Job:
        """Return a job that counts against the limits in force, if it is leased."""
        if not job.leased:
            return job
        limits = self._notes.controls.now.limits_of(job.job_type, job.tenant, job.concurrency_key, job.rate_key)
        return msgspec.structs.replace(job, holds=tuple(subject for subject, _ in limits))

    def _accepted(self, event: types.JobSubmitted, record: Any) -> Job:
        position = LogPosition(topic=record.topic, partition=record.partition, offset=record.offset)
        context = Context(
            cause=cause_of(event, position), now=Instant(record.timestamp * 1000), registry=self._notes.registry,
            producer=self._producer.identity, partition=record.partition,
        )  # fmt: skip
        return new_job(event, context)
