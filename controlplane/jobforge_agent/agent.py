"""The agent: a Faust application that decides the partitions that it owns."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import faust
import msgspec
import redis

from controlplane.events import types
from controlplane.events.catalog import CONTROLS, EVENT_TYPES, JOBS, PROGRESS, ROUTING, RUNNERS, SUBMISSIONS
from controlplane.events.identity import partition_of
from controlplane.jobforge_agent.alerts import Alerts
from controlplane.jobforge_agent.batch import Consumed, consume, dead_letter, decide_batch, job_ids
from controlplane.jobforge_agent.changes import Changes, encode_job
from controlplane.jobforge_agent.decide import Context, Decision
from controlplane.jobforge_agent.metrics import Metrics
from controlplane.jobforge_agent.moments import Now, elapsed, wall_clock
from controlplane.jobforge_agent.notes import Notes
from controlplane.jobforge_agent.outage import Outage
from controlplane.jobforge_agent.outbox import Entries, Outbox
from controlplane.jobforge_agent.ownership import Ownership
from controlplane.jobforge_agent.proofs import UNWRITABLE, writable
from controlplane.jobforge_agent.relations import Relations
from controlplane.jobforge_agent.router import Router
from controlplane.jobforge_agent.state import Job
from controlplane.jobforge_agent.store import Store
from controlplane.jobforge_agent.stored import Owned, StoreLost
from controlplane.jobforge_agent.traces import Traces
from controlplane.log.connection import LogConnection
from controlplane.log.positions import Partition
from controlplane.log.producer import LogProducer, OutgoingRecord
from controlplane.log.session import Headers

NOTED: Final = frozenset({RUNNERS.name, CONTROLS.name})
"""Topics that are not about jobs."""
STORE_AGAIN_SECONDS: Final = 0.2
NOT_OWNED: Final = Owned(epoch="", revision=0)
WAITING_BATCHES: Final = 64
"""So many partition batches may gather while the store is at work."""

logger = logging.getLogger(__name__)


class PartitionLost(RuntimeError):
    """Expected to own the partition, but another instance took it over."""


class Agent:
    """What one JobForge instance does with its partitions."""

    def __init__(
        self, connection: LogConnection, store: Store, producer: LogProducer, outbox: Outbox, router: Router, group: str,
        *, now: Now = wall_clock,
    ) -> None:  # fmt: skip
        """Prepare an agent that owns nothing yet."""
        self._store = store
        self._producer = producer
        self._outbox = outbox
        self._router = router
        self._now = now
        self.notes = Notes(store, router)
        self.relations = Relations(connection, store)
        self.alerts = Alerts(self.decide_once, store.controls.guards, producer, now)
        self.outage = Outage(self.alerts)
        self._ownership = Ownership(connection, store, producer, self.notes, group, now)
        self._traces = Traces(group)
        self._positions: dict[Partition, int] = {}
        self._said_at: dict[Partition, int] = {}
        self._waiting: list[Any] = []
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._epochs: dict[int, Owned] = {}
        self._deciding = asyncio.Lock()
        self.assigned = False
        """Whether the group gave this instance its partitions, if only none, and it took them over."""
        self.owned_since = 0.0

    @property
    def metrics(self) -> Metrics:
        """Return what this instance counts."""
        return self._router.metrics

    @property
    def owned(self) -> Mapping[int, Owned]:
        """Return the job partitions that this instance owns, as it knows them."""
        return self._epochs

    @property
    def partitions(self) -> list[int]:
        """Return the job partitions that this instance owns."""
        return list(self._epochs)

    async def has_decided(self, place: Partition, offset: int) -> bool:
        """Say whether everything before an offset of an owned partition was decided."""
        async with self._deciding:
            return self._positions.get(place, 0) >= offset

    async def publishable(self, entries: Entries) -> Entries | None:
        """Return what may be published of what another instance decided; None where it has to wait."""
        return await self._ownership.publishable(entries)

    async def decided(self) -> tuple[dict[Partition, int], dict[Partition, int]]:
        """Return up to which offset each owned partition is decided, and when the last record before it was appended (microseconds)."""
        async with self._deciding:
            return dict(self._positions), dict(self._said_at)

    def subscribe(self, app: faust.App) -> None:
        """Attach the agent to its input topics."""
        topic = app.topic(
            SUBMISSIONS.name, PROGRESS.name, RUNNERS.name, CONTROLS.name,
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
                if event.value[0].topic in NOTED:
                    await self.take_notes(event.value)
            await self.take_jobs([event.value for event in events if event.value[0].topic not in NOTED])
            for event in events:
                event.ack()

    def _fresh(self, records: Sequence[Any]) -> list[Any]:
        """Return the records that were not decided yet; none of a partition that is not owned: its owner decides."""
        position = self._positions.get((records[0].topic, records[0].partition))
        return [] if position is None else [record for record in records if record.offset >= position]

    def _known_or_new(
        self, taken: Sequence[tuple[int, list[Consumed]]], known: Mapping[str, Job]
    ) -> list[tuple[int, list[Consumed]]]:
        """Leave out what is read again after a fold and is about jobs that concluded before it began."""
        windows = self._ownership.windows
        if not windows:
            return list(taken)
        submitted = {one.event.job_id for _, batch in taken for one in batch if type(one.event) is types.JobSubmitted}

        def counts(one: Consumed) -> bool:
            again = one.position.offset < windows.get((one.position.topic, one.position.partition), 0)
            return not again or one.event is None or one.event.job_id in submitted or one.event.job_id in known

        return [(partition, [one for one in batch if counts(one)]) for partition, batch in taken]

    def _consumed(self, records: Sequence[Any]) -> list[Consumed]:
        count = self._producer.partitions(records[0].topic)
        return self._traces.received(records, [consume(record, count) for record in records])

    async def take_jobs(self, batches: Sequence[Sequence[Any]]) -> None:
        """Decide batches of job partitions; returns when what follows is stored."""
        async with self._deciding:
            expect: dict[Partition, tuple[int, int]] = {}
            taken: list[tuple[int, list[Consumed]]] = []
            for records in batches:
                fresh = self._fresh(records)
                self.metrics.absorbed(len(records) - len(fresh))
                if fresh:
                    place, after = (fresh[0].topic, fresh[0].partition), fresh[-1].offset + 1
                    # Two batches of one partition are one step: from before the first to after the last.
                    expect[place] = (expect.get(place, (self._positions[place],))[0], after)
                    self._positions[place] = after
                    self._said_at[place] = fresh[-1].timestamp * 1000
                    taken.append((place[1], self._consumed(fresh)))
            if taken:
                await self._patiently(lambda: self._decide(taken, expect))

    async def take_notes(self, records: Sequence[Any]) -> None:
        """Note what runners say of themselves, or operators declare; returns when it is stored."""
        async with self._deciding:
            if fresh := self._fresh(records):
                place, after = (fresh[0].topic, fresh[0].partition), fresh[-1].offset + 1
                batch, expect = self._consumed(fresh), {place: (self._positions[place], after)}
                await self._patiently(lambda: self._note(batch, expect))
                self._positions[place] = after
                self._said_at[place] = fresh[-1].timestamp * 1000

    async def _patiently(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do store work again until Redis answers: nothing is decided meanwhile, and nothing is skipped."""
        while True:
            try:
                await work()
            except redis.RedisError as error:
                self.outage.begins(error)
                await asyncio.sleep(STORE_AGAIN_SECONDS)
            except StoreLost:
                await self.outage.is_over()  # Told before this instance starts over.
                raise
            else:
                await self.outage.is_over()
                return

    # Jobs

    async def _decide(
        self, taken: Sequence[tuple[int, list[Consumed]]], expect: Mapping[Partition, tuple[int, int]]
    ) -> None:
        ids = list(dict.fromkeys(name for _, batch in taken for name in job_ids(batch)))
        proof: Callable[[Decision], None] | None = None
        while True:
            version, known = await self._store.read(ids)
            await self.notes.refresh_registry(version)
            related = await self.relations.of(taken, known)
            jobs = dict(known)
            events: list[tuple[int, msgspec.Struct]] = []
            observed: list[tuple[str, bool]] = []
            absorbed = 0
            for partition, batch in self._known_or_new(taken, known):
                decided = decide_batch(
                    batch, jobs, partition=partition, registry=self.notes.registry, producer=self._producer.identity,
                    related=related, proof=proof,
                )  # fmt: skip
                jobs = decided.jobs
                events += [(partition, event) for event in decided.events]
                observed += decided.observed
                absorbed += decided.absorbed
            pairs = [(known.get(name), job) for name, job in jobs.items()]
            try:
                changes = Changes.between(pairs)
                records = self._records(events, jobs)
            except UNWRITABLE:
                if proof is not None:
                    raise
                proof = self._prove  # One of the records is poison: find it, decide the others.
                continue
            changes.observe(observed)
            changes.standing += related.standing
            if await self._commit(changes, events, {partition for partition, _ in taken}, expect, pairs, records):
                self.metrics.absorbed(absorbed)
                self._traces.decided(taken)
                self._router.paces.learn(taken, known)
                return

    def _prove(self, decision: Decision) -> None:
        """Raise if a decision cannot be written."""
        if decision.job is not None:
            encode_job(decision.job)
        for event in decision.events:
            self._record(event, 0)

    async def decide_jobs(
        self, partition: int, ids: Sequence[str], decider: Callable[[Job, Context], Decision],
        *, guard: tuple[str, str, Callable[[], str]] | None = None, also: Sequence[msgspec.Struct] = (),
    ) -> None:  # fmt: skip
        """Decide jobs of an owned partition on time, silence or a command to many instead of a record.

        `guard` is a value that must be what it is thought to be, and what it becomes once all are decided; where it is not, nothing
        is. `also` are events to publish with the rest.
        """
        async with self._deciding:
            while partition in self._epochs:
                known = await self._store.jobs(ids)
                decisions = writable(
                    ((job, decider(job, self._timer_context(job))) for job in known.values()), self._prove
                )
                pairs = [(job, decision.job) for job, decision in decisions if decision.job is not None]
                changes = Changes.between(pairs)
                changes.observe(one for _, decision in decisions for one in decision.observed)
                events = [(partition, event) for _, decision in decisions for event in decision.events]
                events += [(partition, event) for event in also]
                if guard is not None:
                    changes.guard("guards", guard[0], guard[1], guard[2]())
                if await self._commit(changes, events, {partition}, {}, pairs):
                    self._router.paces.learn_of_slow(decisions, self._now())
                    return

    def _timer_context(self, job: Job) -> Context:
        return Context(
            cause=job.cause, now=self._now(), registry=self.notes.registry, producer=self._producer.identity,
            partition=job.partition,
        )  # fmt: skip

    async def _commit(
        self,
        changes: Changes,
        events: Sequence[tuple[int, msgspec.Struct]],
        partitions: set[int],
        expect: Mapping[Partition, tuple[int, int]],
        pairs: Sequence[tuple[Job | None, Job]],
        records: Sequence[OutgoingRecord] | None = None,
    ) -> bool:
        """Store what was decided, then publish it; False when a router was quicker, or nothing was heard of the store for long: decide again.

        A guard that another instance changed ends it, too: there is nothing left to do.
        """
        records = records or self._records(events, {job.job_id: job for _, job in pairs})
        name = self._outbox.next_name()
        verdict = await self._store.commit(
            changes,
            owned={one: self._epochs.get(one, NOT_OWNED) for one in partitions},
            expect=expect,
            outbox=(name, records),
        )
        if verdict == "conflict":
            return False
        if verdict == "late":
            if not await self._ownership.still_known(self._epochs):
                raise StoreLost("Expected the store to know what the log says, but it is in the past.")
            return False
        if verdict == "stale":
            return True
        if verdict == "lost":
            raise StoreLost(f"Expected the stored position {dict(expect)}, but the store is elsewhere.")
        if verdict == "fenced":
            raise PartitionLost(
                f"Expected to own job partitions {sorted(partitions)}, but another instance took one over."
            )
        self._outbox.publish(name, records)
        self.metrics.moved(pairs)
        self.metrics.decided(event for _, event in events)
        if changes.moves_work:
            self._router.wake.set()
        return True

    def _records(self, events: Sequence[tuple[int, msgspec.Struct]], jobs: Mapping[str, Job]) -> list[OutgoingRecord]:
        return [self._record(event, partition, self._traces.headers(event, jobs)) for partition, event in events]

    def _record(self, event: msgspec.Struct, partition: int, headers: Headers = ()) -> OutgoingRecord:
        match event:
            case types.AttemptRevoked():
                inbox = partition_of(event.runner_id.encode(), self._producer.partitions(ROUTING.name))
                return self._producer.record(event, partition=inbox, headers=headers)
            case _ if EVENT_TYPES[type(event).__name__].topic is JOBS:
                return self._producer.record(event, partition=partition, headers=headers)
            case _:
                return self._producer.record(event, headers=headers)

    # Runners and controls

    async def _note(self, batch: Sequence[Consumed], expect: Mapping[Partition, tuple[int, int]]) -> None:
        refused = [
            dead_letter(consumed, consumed.error, self._producer.identity) for consumed in batch if consumed.error is not None
        ]  # fmt: skip
        letters = [self._producer.record(one) for one in refused]
        name = self._outbox.next_name()
        if not await self.notes.take(batch, expect=expect, outbox=(name, letters)):
            raise StoreLost(f"Expected the stored position {dict(expect)}, but the store is elsewhere.")
        self._outbox.publish(name, letters)
        self.metrics.decided(refused)
        await self.notes.refresh()

    # What neither a record nor a job decides

    async def decide_once(self, events: Sequence[msgspec.Struct], guard: tuple[str, str, str]) -> bool:
        """Publish events if a guarded value is what it is thought to be, and set it; False when another instance was quicker.

        `guard` is (name, value expected, value to set), empty for none.
        """
        changes = Changes()
        changes.guard("guards", *guard)
        records = [self._producer.record(event) for event in events]
        name = self._outbox.next_name()
        if await self._store.commit(changes, outbox=(name, records)) != "ok":
            return False
        self._outbox.publish(name, records)
        return True

    # Ownership

    async def take_over(self, assigned: set[Partition]) -> Mapping[Partition, int]:
        """Own partitions: fence the former owner, find where to read on, fold from the log what the store does not know."""
        positions: dict[Partition, int] = {}

        async def work() -> None:
            async with self._deciding:
                before = self._ownership.records_folded
                self._epochs, found = await self._ownership.take_over(assigned)
                self.metrics.records_folded(self._ownership.records_folded - before)
                self._waiting.clear()  # Of the assignment before; its records come again where they are due.
                self._positions = dict(found)
                self._said_at.clear()
                positions.update(found)

        await self._patiently(work)
        for _ in {number for _, number in self._ownership.windows}:
            self.metrics.folded()
        self.owned_since = elapsed()
        self.assigned = True
        logger.info("Owns job partitions %s.", self.partitions)
        return positions
