"""A store that comes back empty after a long history is refilled from what is unfinished: what is read back does not grow with the history."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from unittest.mock import patch

import msgspec
import pytest

from controlplane.events import types
from controlplane.events.catalog import JOBS, PROGRESS, ROUTING, SUBMISSIONS, Service
from controlplane.events.header import Cause, outside_header
from controlplane.events.types import LogPosition
from controlplane.jobforge_agent import recovery
from controlplane.jobforge_agent.changes import Changes
from controlplane.jobforge_agent.decide import Context, cancelled
from controlplane.jobforge_agent.notes import Notes
from controlplane.jobforge_agent.outbox import Outbox
from controlplane.jobforge_agent.ownership import Ownership
from controlplane.jobforge_agent.policy import least_loaded
from controlplane.jobforge_agent.router import Router
from controlplane.jobforge_agent.state import Job
from controlplane.jobforge_agent.stored import StoreLost
from controlplane.jobforge_agent.transitions import Phase
from tests.simulation.history import History
from tests.simulation.instances import simulated_surroundings
from tests.simulation.logs import Link, Record, SimulatedLog, SimulatedProducer, SimulatedReader
from tests.simulation.run import played
from tests.simulation.stores import Server, SimulatedStore
from tests.simulation.virtual import run_virtually
from tests.simulation.world import Process, World

JOBS_BEFORE = 150
JOBS_AFTER = 10
FOLDED = (JOBS.name, ROUTING.name, SUBMISSIONS.name)
QUIET_SECONDS = 120.0
"""Longer than anything is looked back for: repeated submissions a minute, clocks of brokers ten seconds."""


class LongHistory(History):
    """Many jobs that conclude, a rest, some that wait, and a store that is emptied while they do."""

    def __init__(self, world: World, server: Server) -> None:
        super().__init__(world, server, frozenset({"rush"}))
        self.plan = msgspec.structs.replace(self.plan, instances=2, runners=4, jobs=JOBS_BEFORE, job_partitions=2)
        self.appended_before = 0

    async def _storm(self) -> None:
        while len(self.checks.submitted) < JOBS_BEFORE or not self.checks.quiet(self.instances):  # noqa: ASYNC110 -- virtual
            await asyncio.sleep(1.0)
        await asyncio.sleep(QUIET_SECONDS)
        self.appended_before = len(self.log.appended)
        for number in range(JOBS_AFTER):
            await self._send(self._submission(f"late{number}"))
        await asyncio.sleep(0.05)  # Some wait, some run.
        self._store_empty()


@pytest.mark.timeout(300)
def test_recovery_reads_from_the_low_watermark(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folding: set[SimulatedReader] = set()
    counts: Counter[str] = Counter()
    batch, decisions = SimulatedReader.batch, recovery.recorded_decisions

    async def counted(self: SimulatedReader, **options: Any) -> Mapping[Any, Sequence[Record]]:
        found = await batch(self, **options)
        if self in folding:
            counts["records"] += sum(map(len, found.values()))
        return found

    async def noted(reader: Any, *about: Any) -> Any:
        folding.add(reader)
        counts["folds"] += 1
        return await decisions(reader, *about)

    monkeypatch.setattr(SimulatedReader, "batch", counted)
    monkeypatch.setattr(recovery, "recorded_decisions", noted)
    story, outcome = played(1, redis_url, LongHistory)
    assert outcome.failures == ()
    # What was decided before, and the submissions that led to it: none of it is read by any of the folds.
    before = [one for one in story.log.appended[: story.appended_before] if one.topic in FOLDED]
    assert len(before) > 4 * JOBS_BEFORE
    assert counts["folds"] > 0
    assert counts["records"] < counts["folds"] * len(FOLDED) * 3 * JOBS_AFTER < counts["folds"] * len(before) / 3


SUBMITTED = Job(
    job_id="job1", partition=0, submission=LogPosition(topic=SUBMISSIONS.name, partition=0, offset=0), submitted_at=1,
    correlation_id="c", tenant="t", actor=None, job_type="light", contract_major=1, pool="default", priority=5,
    payload=types.Content(), slots=1, retry=types.RetryPolicy(), attempt_timeout_micros=None, queue_timeout_micros=None,
    deadline=None, required_labels={}, preferred_labels={}, parent=None, phase=Phase.QUEUED,
    last=LogPosition(topic=SUBMISSIONS.name, partition=0, offset=0),
)  # fmt: skip


class Living:
    """What one instance takes partitions over with, and where its log and its store are."""

    def __init__(self, world: World, server: Server) -> None:
        self.server = server
        self.log = SimulatedLog.empty(world, 1, 1, 1)
        link = Link(bootstrap="simulated", log=self.log, process=Process(world, "living"))
        self.store, self.producer = SimulatedStore(server, link.process), SimulatedProducer(link, Service.JOBFORGE)
        outbox = Outbox(self.producer, self.store, "living")
        router = Router(self.store, outbox, self.producer, policy=least_loaded, lease_seconds=6.0)
        self.notes = Notes(self.store, router)
        self.ownership = Ownership(link, self.store, self.producer, self.notes, "group", world.now)


async def conclude_for_the_dead(world: World, url: str, *, lost: bool) -> list[str] | None:
    """Return which events of a dead instance's conclusion may be published: in a store that never lost it, or that went back to where it had not."""
    server = Server(url, f"conclusion-{uuid.uuid4().hex[:8]}")
    try:
        living = Living(world, server)
        log, store, producer, ownership = living.log, living.store, living.producer, living.ownership
        place = LogPosition(topic=PROGRESS.name, partition=0, offset=0)
        cause = Cause(position=place, correlation_id="c")
        context = Context(
            cause=cause, now=world.now(), registry=living.notes.registry, producer=producer.identity, partition=0
        )
        running = msgspec.structs.replace(
            SUBMITTED, phase=Phase.RUNNING, attempt_id="a", attempt_number=1, runner_id="r"
        )
        decided = cancelled(running, "enough", context)
        assert decided.job is not None
        records = [producer.record(event) for event in decided.events]
        await store.commit(Changes.between([(None, decided.job)]), outbox=("1", records))
        await store.set_positions({(SUBMISSIONS.name, 0): 1, (PROGRESS.name, 0): 1})
        if lost:
            later = msgspec.structs.replace(cause, position=msgspec.structs.replace(place, offset=1))
            other = cancelled(running, "another reason", msgspec.structs.replace(context, cause=later))
            for event in other.events:
                log.append(producer.record(event))
            assert await ownership.publishable({"1": records}) is None  # The store does not know what is on the log.
            assert other.job is not None
            await store.commit(
                Changes.between([(decided.job, other.job)]), places={(SUBMISSIONS.name, 0): 1, (PROGRESS.name, 0): 2}
            )
        found = await ownership.publishable({"1": records})
        return None if found is None else [type(recovery.decoded(one)).__name__ for one in found["1"]]
    finally:
        server.close()


@pytest.mark.parametrize(("lost", "told"), [(False, ["JobCancelled", "TruthAsserted"]), (True, [])])
def test_a_conclusion_that_came_back_with_the_store_is_not_published_beside_the_logs(
    redis_url: str, *, lost: bool, told: list[str]
) -> None:
    async def play() -> list[str] | None:
        world = World(1)
        with simulated_surroundings(world):
            return await conclude_for_the_dead(world, redis_url, lost=lost)

    assert run_virtually(play()) == told


async def take_over_while_the_store_is_emptied(world: World, url: str) -> None:
    server = Server(url, f"emptied-{uuid.uuid4().hex[:8]}")
    living = Living(world, server)
    restored = living.ownership._restored

    async def meanwhile(*about: Any) -> list[Job]:
        found = await restored(*about)
        server.clear()
        return found

    try:
        header = outside_header("JobSubmitted", "job1", living.producer.identity, world.now())
        event = types.JobSubmitted(header=header, job_id="job1", job_type="light", payload=types.Content())
        living.log.append(living.producer.record(event))
        with patch.object(living.ownership, "_restored", meanwhile):
            await living.ownership.take_over({(SUBMISSIONS.name, 0), (PROGRESS.name, 0)})
    finally:
        server.close()


def test_a_partition_is_not_left_to_nobody_when_the_store_is_lost_while_it_is_folded(redis_url: str) -> None:
    async def play() -> None:
        world = World(1)
        with simulated_surroundings(world):
            await take_over_while_the_store_is_emptied(world, redis_url)

    with pytest.raises(StoreLost):
        run_virtually(play())
