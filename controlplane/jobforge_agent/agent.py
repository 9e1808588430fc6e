"""The agent: a Faust application that decides the partitions that it owns."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import faust
import msgspec
import redis

from controlplane.events import types
from controlplane.events.catalog import PROGRESS, ROUTING, RUNNERS, SUBMISSIONS
from controlplane.events.identity import Instant, partition_of
from controlplane.events.job_contracts import Registry
from controlplane.events.types import LogPosition
from controlplane.jobforge_agent import recovery
from controlplane.jobforge_agent.batch import Consumed, cause_of, consume, dead_letter, decide_batch, job_ids
from controlplane.jobforge_agent.changes import Changes
from controlplane.jobforge_agent.decide import Context, Decision, new_job
from controlplane.jobforge_agent.moments import Now, elapsed, wall_clock
from controlplane.jobforge_agent.outbox import Outbox
from controlplane.jobforge_agent.router import Router
from controlplane.jobforge_agent.state import Job
from controlplane.jobforge_agent.store import Store
from controlplane.log.connection import LogConnection
from controlplane.log.group import OffsetBook
from controlplane.log.positions import Partition
from controlplane.log.producer import LogProducer, OutgoingRecord
from controlplane.log.reader import LogReader

STORE_AGAIN_SECONDS: Final = 0.2
WAITING_BATCHES: Final = 64
"""So many partition batches may gather while the store is at work."""
REGISTRATIONS_SINCE_MILLISECONDS: Final = 120_000
"""Runners register again and again; so far back all that live are found."""

logger = logging.getLogger(__name__)


class StoreLost(RuntimeError):
    """Expected the store where this instance left it, but it is elsewhere: everything owned is folded from the log again."""


class PartitionLost(RuntimeError):
    """Expected to own the partition, but another instance took it over."""


class Agent:
    """What one JobForge instance does with its partitions."""

    def __init__(
        self, connection: LogConnection, store: Store, producer: LogProducer, outbox: Outbox, router: Router, group: str,
        *, now: Now = wall_clock,
    ) -> None:  # fmt: skip
        """Prepare an agent that owns nothing yet."""
        self._connection = connection
        self._store = store
        self._producer = producer
        self._outbox = outbox
        self._router = router
        self._group = group
        self._now = now
        self._registry = Registry({})
        self._registry_version = -1
        self._positions: dict[Partition, int] = {}
        self._waiting: list[Any] = []
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._epochs: dict[int, str] = {}
        self._deciding = asyncio.Lock()
        self.store_answers = True
        self.assigned = False
        """Whether the group gave this instance its partitions, if only none, and it took them over."""
        self.owned_since = 0.0
        self.last_progress = 0.0

    @property
    def partitions(self) -> list[int]:
        """Return the job partitions that this instance owns."""
        return list(self._epochs)

    def subscribe(self, app: faust.App) -> None:
        """Attach the agent to its input topics."""
        topic = app.topic(
            SUBMISSIONS.name, PROGRESS.name, RUNNERS.name,
            key_type=None, value_type=None, key_serializer="raw", value_serializer="raw",
        )  # fmt: skip

        async def gather(stream: Any) -> None:
            async for event in stream.noack().events():
                while len(self._waiting) >= WAITING_BATCHES:
                    self._room.clear()
                    await self._room.wait()
                self._waiting.append(event)
                self._arrived.set()

        app.agent(topic, name="jobforge")(gather)

    async def run(self) -> None:
        """Decide whatever has arrived, of all partitions at once, until cancelled.

        A batch of one partition costs as many round trips to the store as one of all: what gathers while the store is at
        work goes together in the next commit.
        """
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            events, self._waiting = self._waiting, []
            self._room.set()
            for event in events:
                if event.value[0].topic == RUNNERS.name:
                    await self.take_runners(event.value)
            await self.take_jobs([event.value for event in events if event.value[0].topic != RUNNERS.name])
            for event in events:
                event.ack()

    def _fresh(self, records: Sequence[Any]) -> list[Any]:
        """Return the records that were not decided yet; none of a partition that is not owned: its owner decides."""
        position = self._positions.get((records[0].topic, records[0].partition))
        return [] if position is None else [record for record in records if record.offset >= position]

    def _consumed(self, records: Sequence[Any]) -> list[Consumed]:
        count = self._producer.partitions(records[0].topic)
        return [consume(record, count) for record in records]

    async def take_jobs(self, batches: Sequence[Sequence[Any]]) -> None:
        """Decide batches of job partitions; returns when what follows is stored."""
        async with self._deciding:
            expect: dict[Partition, tuple[int, int]] = {}
            taken: list[tuple[int, list[Consumed]]] = []
            for records in batches:
                if fresh := self._fresh(records):
                    place, after = (fresh[0].topic, fresh[0].partition), fresh[-1].offset + 1
                    # Two batches of one partition are one step: from before the first to after the last.
                    expect[place] = (expect.get(place, (self._positions[place],))[0], after)
                    self._positions[place] = after
                    taken.append((place[1], self._consumed(fresh)))
            if taken:
                await self._patiently(lambda: self._decide(taken, expect))
        self.last_progress = elapsed()

    async def take_runners(self, records: Sequence[Any]) -> None:
        """Note what runners say of themselves; returns when it is stored."""
        async with self._deciding:
            if fresh := self._fresh(records):
                place, after = (fresh[0].topic, fresh[0].partition), fresh[-1].offset + 1
                batch, expect = self._consumed(fresh), {place: (self._positions[place], after)}
                await self._patiently(lambda: self._note(batch, expect))
                self._positions[place] = after

    async def _patiently(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do store work again until Redis answers: nothing is decided meanwhile, and nothing is skipped."""
        while True:
            try:
                await work()
            except redis.RedisError as error:
                if self.store_answers:
                    logger.error("The schedule store does not answer, deciding stops until it does: %s", error)
                self.store_answers = False
                await asyncio.sleep(STORE_AGAIN_SECONDS)
            else:
                if not self.store_answers:
                    logger.warning("The schedule store answers again.")
                    self.owned_since = elapsed()
                self.store_answers = True
                return

    # Jobs

    async def _decide(
        self, taken: Sequence[tuple[int, list[Consumed]]], expect: Mapping[Partition, tuple[int, int]]
    ) -> None:
        ids = list(dict.fromkeys(name for _, batch in taken for name in job_ids(batch)))
        while True:
            version, known = await self._store.read(ids)
            await self._refresh_registry(version)
            jobs = dict(known)
            events: list[tuple[int, msgspec.Struct]] = []
            for partition, batch in taken:
                decided = decide_batch(
                    batch, jobs, partition=partition, registry=self._registry, producer=self._producer.identity
                )
                jobs = decided.jobs
                events += [(partition, event) for event in decided.events]
            pairs = [(known.get(name), job) for name, job in jobs.items()]
            if await self._commit(pairs, events, {partition for partition, _ in taken}, expect):
                return

    async def decide_jobs(
        self, partition: int, ids: Sequence[str], decider: Callable[[Job, Context], Decision]
    ) -> None:
        """Decide jobs of an owned partition on time or silence instead of a record."""
        async with self._deciding:
            while partition in self._epochs:
                known = await self._store.jobs(ids)
                decisions = [(job, decider(job, self._timer_context(job))) for job in known.values()]
                pairs = [(job, decision.job) for job, decision in decisions if decision.job is not None]
                events = [(partition, event) for _, decision in decisions for event in decision.events]
                if await self._commit(pairs, events, {partition}, {}):
                    return

    def _timer_context(self, job: Job) -> Context:
        now = self._now()
        return Context(
            cause=job.cause, now=now, registry=self._registry, producer=self._producer.identity, partition=job.partition
        )

    async def _commit(
        self,
        pairs: Sequence[tuple[Job | None, Job]],
        events: Sequence[tuple[int, msgspec.Struct]],
        partitions: set[int],
        expect: Mapping[Partition, tuple[int, int]],
    ) -> bool:
        """Store what was decided, then publish it; False when a router was quicker and it must be decided again."""
        changes = Changes.between(pairs)
        records = [self._record(event, partition) for partition, event in events]
        name = self._outbox.next_name()
        verdict = await self._store.commit(
            changes, owned={one: self._epochs.get(one, "") for one in partitions}, expect=expect, outbox=(name, records)
        )
        if verdict == "conflict":
            return False
        if verdict == "lost":
            raise StoreLost(f"Expected the stored position {dict(expect)}, but the store is elsewhere.")
        if verdict == "fenced":
            raise PartitionLost(
                f"Expected to own job partitions {sorted(partitions)}, but another instance took one over."
            )
        self._outbox.publish(name, records)
        if changes.moves_work:
            self._router.wake.set()
        return True

    def _record(self, event: msgspec.Struct, partition: int) -> OutgoingRecord:
        match event:
            case types.AttemptRevoked():
                inbox = partition_of(event.runner_id.encode(), self._producer.partitions(ROUTING.name))
                return self._producer.record(event, partition=inbox)
            case types.TruthAsserted() | types.RecordRefused():
                return self._producer.record(event)
            case _:
                return self._producer.record(event, partition=partition)

    # Runners

    async def _note(self, batch: Sequence[Consumed], expect: Mapping[Partition, tuple[int, int]]) -> None:
        letters: list[OutgoingRecord] = []
        for consumed in batch:
            if consumed.error is not None:
                letters.append(self._producer.record(dead_letter(consumed, consumed.error, self._producer.identity)))
            else:
                await self.note_runner(consumed.event, consumed.at)
        name = self._outbox.next_name()
        verdict = await self._store.commit(Changes(), expect=expect, outbox=(name, letters))
        if verdict == "lost":
            raise StoreLost(f"Expected the stored position {dict(expect)}, but the store is elsewhere.")
        self._outbox.publish(name, letters)
        await self.refresh_runners()

    async def note_runner(self, event: Any, at: int) -> None:
        """Note what a runner says of itself."""
        match event:
            case types.RunnerRegistered():
                await self._store.register(event, at)
            case types.RunnerHeartbeat():
                await self._store.beat(event.runner_id, at, event.attempt_ids, draining=event.draining)
            case types.RunnerDraining():
                await self._store.drain(event.runner_id)
            case types.RunnerLeft():
                await self._store.forget_runner(event.runner_id)

    async def refresh_runners(self) -> None:
        """Tell the router who lives, and take new contracts."""
        await self._refresh_registry(await self._store.registry_version())
        self._router.update(self._registry.runners, await self._store.beats(), await self._store.draining())

    async def _refresh_registry(self, version: int) -> None:
        if version != self._registry_version:
            self._registry = Registry(await self._store.runners(), await self._store.known_runners())
            self._registry_version = version

    # Ownership

    async def take_over(self, assigned: set[Partition]) -> Mapping[Partition, int]:
        """Own partitions: fence the former owner, find where to read on, fold from the log what the store does not know."""
        positions: dict[Partition, int] = {}

        async def work() -> None:
            async with self._deciding:
                positions.update(await self._take_over(assigned))

        await self._patiently(work)
        return positions

    async def _take_over(self, assigned: set[Partition]) -> dict[Partition, int]:
        reader = LogReader(self._connection, client_id="controlplane-jobforge-recovery")
        await reader.start()
        try:
            owned = sorted({number for topic, number in assigned if topic != RUNNERS.name})
            self._epochs = {number: await self._store.own(number) for number in owned}
            places = {(topic, number) for number in owned for topic in (SUBMISSIONS.name, PROGRESS.name)} | assigned
            stored = await self._store.positions(places)
            await self._take_over_runners(reader, [one for one in assigned if one[0] == RUNNERS.name], stored)
            async with OffsetBook(self._connection, f"{self._group}-watermark") as book:
                lows = await book.read([(SUBMISSIONS.name, number) for number in owned])
            for number in owned:
                await self._take_over_jobs(reader, number, stored, lows[(SUBMISSIONS.name, number)] or 0)
        finally:
            await reader.stop()
        self._waiting.clear()  # Of the assignment before; its records come again where they are due.
        self._positions = {one: position or 0 for one, position in stored.items() if one in assigned}
        self.owned_since = elapsed()
        self.assigned = True
        logger.info("Owns job partitions %s.", owned)
        return dict(self._positions)

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
                    await self.note_runner(event, record.timestamp * 1000)
        missing = [one for one in places if stored[one] is None]
        starts = await reader.offsets_at(dict.fromkeys(missing, since)) if missing else {}
        stored.update(starts)
        await self._store.set_positions(starts)
        await self.refresh_runners()

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
            pairs.append((None, recorded.restore(self._accepted(event, record))))
        for start in range(0, len(pairs), 500):
            part = pairs[start : start + 500]
            known = await self._store.jobs([job.job_id for _, job in part])
            merged = [(known.get(job.job_id), job) for _, job in part]
            await self._store.commit(Changes.between(merged))
            for before, job in merged:
                if job.leased and (before is None or before.attempt_id != job.attempt_id):
                    await self._store.lease(job)
        return len(pairs)

    def _accepted(self, event: types.JobSubmitted, record: Any) -> Job:
        position = LogPosition(topic=record.topic, partition=record.partition, offset=record.offset)
        context = Context(
            cause=cause_of(event, position), now=Instant(record.timestamp * 1000), registry=self._registry,
            producer=self._producer.identity, partition=record.partition,
        )  # fmt: skip
        return new_job(event, context)
