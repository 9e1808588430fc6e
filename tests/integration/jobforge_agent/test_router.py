"""The shipped router on a real store: one job that no record can hold, and many lanes of which none can go, stop nobody else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest

from controlplane.events import types
from controlplane.events.catalog import TOPICS, Service
from controlplane.events.codec import decode
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant
from controlplane.events.types import LogPosition
from controlplane.jobforge_agent.changes import Changes
from controlplane.jobforge_agent.control_store import noted
from controlplane.jobforge_agent.outbox import Outbox
from controlplane.jobforge_agent.policy import Assignment, Situation, least_loaded
from controlplane.jobforge_agent.router import Router
from controlplane.jobforge_agent.state import Job
from controlplane.jobforge_agent.store import Store
from controlplane.jobforge_agent.transitions import Phase
from controlplane.log.connection import LogConnection
from controlplane.log.producer import LogProducer, OutgoingRecord
from controlplane.log.topics import LARGEST_RECORD_BYTES

NOW = 1_700_000_000_000_000
ROUNDS = 5
PRODUCER = types.Producer(service="test", version="1", instance="i")


class Kept(Outbox):
    """Keeps what the router publishes instead of sending it."""

    routed: list[types.JobRouted]
    first: asyncio.Event

    def publish(self, name: str, records: Sequence[OutgoingRecord]) -> None:
        """Keep the decisions."""
        self.first.set()
        self.routed += [decode(one.value) for one in records]


class Rig:
    """A store, a router and runners; the log is left out."""

    def __init__(self, url: str, namespace: str, policy: Any = least_loaded) -> None:
        self.store = Store(url, namespace, "test")
        producer = LogProducer(
            LogConnection(bootstrap="none"),
            service=Service.JOBFORGE,
            partitions=dict.fromkeys(TOPICS, 4),
            instance="test",
        )
        self.outbox = Kept(producer, self.store, "test")
        self.outbox.routed, self.outbox.first = [], asyncio.Event()
        self.router = Router(self.store, self.outbox, producer, policy=policy, lease_seconds=6.0)

    def offer(self, **slots: int) -> None:
        """Let runners live: each offers the job type that its name begins with."""
        runners = {
            name: types.RunnerRegistered(
                header=outside_header("RunnerRegistered", name, PRODUCER, Instant(NOW)), runner_id=name, name=name,
                slots=count, capabilities=(types.Capability(job_type=name.partition("_")[0], version="1.0.0"),),
                inbox_partition=0, heartbeat_seconds=2.0,
            )
            for name, count in slots.items()
        }  # fmt: skip
        self.router.update(runners, dict.fromkeys(runners, (0, ())), set())

    async def submit(self, *jobs: Job) -> None:
        """Put jobs into the queue."""
        assert await self.store.commit(Changes.between((None, one) for one in jobs)) == "ok"

    async def rounds(self) -> list[str]:
        """Route for some rounds, and return which jobs went."""
        before = len(self.outbox.routed)
        for _ in range(ROUNDS):
            await self.router.route_once()
        return [one.job_id for one in self.outbox.routed[before:]]


@contextlib.asynccontextmanager
async def rig(redis_url: str, namespace: str, **more: Any) -> AsyncIterator[Rig]:
    found = Rig(redis_url, namespace, **more)
    await found.store.controls.note([], fold={"controlplane.controls/0": 0})
    try:
        yield found
    finally:
        await found.store.close()


def waiting(name: str, job_type: str = "light", at: int = 0, **changes: Any) -> Job:
    position = LogPosition(topic="controlplane.submissions", partition=0, offset=at)
    fields: dict[str, Any] = {
        "job_id": name, "partition": 0, "submission": position, "submitted_at": NOW + at, "correlation_id": "c",
        "tenant": "acme", "actor": None, "job_type": job_type, "contract_major": 1, "pool": "default", "priority": 5,
        "payload": types.Content(), "slots": 1, "retry": types.RetryPolicy(), "attempt_timeout_micros": None,
        "queue_timeout_micros": None, "deadline": None, "required_labels": {}, "preferred_labels": {}, "parent": None,
        "phase": Phase.QUEUED, "last": position,
    }  # fmt: skip
    return Job(**(fields | changes))


def payload(size: int) -> types.Content:
    return types.Content(data=b'"' + b"x" * (size - 2) + b'"')


async def test_a_job_that_no_record_can_hold_stops_nobody(redis_url: str, namespace: str) -> None:
    async with rig(redis_url, namespace) as found:
        found.offer(light=2)
        await found.submit(waiting("poison", payload=payload(LARGEST_RECORD_BYTES)), waiting("behind", at=1))
        work = asyncio.create_task(found.router.run())
        await asyncio.wait(
            {work, asyncio.ensure_future(found.outbox.first.wait())}, return_when=asyncio.FIRST_COMPLETED
        )
        assert not work.done()
        while not work.done():  # As the service does: the client of the store may take a cancellation for a time-out.
            work.cancel()
            await asyncio.wait({work}, timeout=1.0)
        assert [one.job_id for one in found.outbox.routed] == ["behind"]
        assert found.router.unroutable == {"poison": 0}


async def test_where_there_is_no_room_the_others_are_left_out(redis_url: str, namespace: str) -> None:
    async with rig(redis_url, namespace) as found:
        found.offer(light=1, **{f"other_{number}": 1 for number in range(8)})
        await found.submit(waiting("j", payload=payload(LARGEST_RECORD_BYTES - 400)))
        await found.rounds()
        assert [(one.job_id, one.refused) for one in found.outbox.routed] == [("j", ())]


@pytest.mark.parametrize("slots", [1000, 1], ids=["that no runner is large enough for", "whose runner is full"])
async def test_more_lanes_than_are_looked_at_hide_nobody(redis_url: str, namespace: str, slots: int) -> None:
    async with rig(redis_url, namespace) as found:
        found.offer(light=4, heavy=1)
        await found.submit(waiting("served"), waiting("filled", "heavy"))
        assert sorted(await found.rounds()) == ["filled", "served"]
        step = 1 if slots > 1 else 0
        await found.submit(
            *(waiting(f"h{n}", "heavy", 10 + n, tenant=f"t{n}", slots=slots + step * n) for n in range(70))
        )
        await found.submit(*(waiting(f"light{number}", at=100 + number) for number in range(3)))
        assert await found.rounds() == ["light0", "light1", "light2"]


async def test_a_large_job_does_not_starve_behind_many_small_ones(redis_url: str, namespace: str) -> None:
    async with rig(redis_url, namespace) as found:
        found.offer(light=4)
        await found.submit(waiting("runs", slots=2))
        await found.rounds()
        await found.submit(waiting("large", at=1, slots=4, tenant="large"))
        await found.submit(*(waiting(f"small{n}", at=2 + n, tenant=f"t{n}") for n in range(70)))
        assert await found.rounds() == []  # Two slots are free, and held.


async def test_who_waits_for_room_and_is_stopped_by_a_limit_holds_nothing(redis_url: str, namespace: str) -> None:
    async with rig(redis_url, namespace) as found:
        limit = types.LimitDeclared(
            header=outside_header("LimitDeclared", "l", PRODUCER, Instant(NOW)), subject="tenant:large", max_running=1
        )
        await found.store.controls.note(
            [noted(limit, LogPosition(topic="controlplane.controls", partition=0, offset=0), NOW)]
        )
        found.offer(light=4)
        await found.submit(waiting("runs", slots=2, tenant="large"))
        await found.rounds()
        await found.submit(
            *(waiting(f"large{n}", at=1 + n, slots=3, tenant="large", required_labels={}) for n in range(2))
        )
        await found.submit(*(waiting(f"small{n}", at=9 + n, tenant=f"t{n}") for n in range(70)))
        assert await found.rounds() == ["small0", "small1"]


async def test_a_policy_that_leaves_jobs_waiting_sees_the_others(redis_url: str, namespace: str) -> None:
    def no_heavy(situation: Situation) -> list[Assignment]:
        jobs = [one for one in situation.jobs if one.job_type != "heavy"]
        return least_loaded(msgspec.structs.replace(situation, jobs=jobs))

    async with rig(redis_url, namespace, policy=no_heavy) as found:
        found.offer(light=4, heavy=100)
        await found.submit(*(waiting(f"h{n}", "heavy", n, tenant=f"t{n}") for n in range(70)))
        await found.submit(waiting("light", at=100))
        assert await found.rounds() == ["light"]
