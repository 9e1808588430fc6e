"""JobForge instances: the shipped Agent, Router, Clock, Outbox and Store, each in a process that can crash, freeze and be forgotten."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, Self
from unittest.mock import patch

import redis

from controlplane.events.catalog import SUBMISSIONS, Service
from controlplane.jobforge_agent import leases, ownership, relations
from controlplane.jobforge_agent.agent import Agent, PartitionLost
from controlplane.jobforge_agent.leases import Clock
from controlplane.jobforge_agent.outbox import Outbox
from controlplane.jobforge_agent.policy import least_loaded
from controlplane.jobforge_agent.router import Router
from controlplane.jobforge_agent.stored import StoreLost
from controlplane.jobforge_agent.upkeep import Upkeep
from controlplane.log.connection import LogUnavailable
from controlplane.log.positions import Partition
from tests.simulation.logs import Link, Record, SimulatedLog, SimulatedOffsetBook, SimulatedProducer, SimulatedReader
from tests.simulation.stores import Server, SimulatedStore
from tests.simulation.world import Process, World

GROUP: Final = "controlplane.jobforge"
LEASE_SECONDS: Final = 6.0
SESSION_SECONDS: Final = 6.0
BATCHES_AHEAD: Final = 4
RECORDS_AT_ONCE: Final = 20
MOST_IN_FLIGHT: Final = 10_000
ENDS_AN_INSTANCE: Final = (LogUnavailable, StoreLost, PartitionLost, redis.RedisError)
"""What the shipped service ends by, to be started again."""


PERIODS: Final[Mapping[str, float]] = {
    "leases.DUE_EVERY_SECONDS": 0.5,
    "outbox.CLEAR_EVERY_SECONDS": 0.1,
    "leases.WATERMARK_EVERY_SECONDS": 3.0,
    "router.IDLE_SECONDS": 1.0,
    "upkeep.LOOK_EVERY_SECONDS": 1.0,
}
"""What instances do again and again, and how often at leisure: looking without finding anything is most of what a history costs."""


@contextmanager
def at_leisure() -> Iterator[None]:
    """Have instances look less often than the shipped ones, so that more histories can be played in the same time."""
    with ExitStack() as stack:
        for name, seconds in PERIODS.items():
            stack.enter_context(patch(f"controlplane.jobforge_agent.{name}", seconds))
        yield


@contextmanager
def simulated_surroundings(world: World) -> Iterator[None]:
    """Have the agent read and keep offsets in the log in memory, and draw its random ids from the seed."""
    chance = random.Random(world.seed)
    with (
        patch.object(ownership, "LogReader", SimulatedReader),
        patch.object(relations, "LogReader", SimulatedReader),
        patch.object(ownership, "OffsetBook", SimulatedOffsetBook),
        patch.object(leases, "OffsetBook", SimulatedOffsetBook),
        patch.object(uuid, "uuid4", lambda: uuid.UUID(int=chance.getrandbits(128))),
    ):
        yield


class Delivered:
    """One partition batch, as the stream of a Faust agent gives it."""

    def __init__(self, records: Sequence[Record]) -> None:
        """Hold the records."""
        self.value = list(records)
        self.acked = False

    def ack(self) -> None:
        """Take note that its effects are stored."""
        self.acked = True


class SimulatedApp:
    """What `Agent.subscribe` asks of a Faust application: topics, and a place for its agent."""

    def __init__(self) -> None:
        """Begin with an empty stream."""
        self.topics: tuple[str, ...] = ()
        self.queue: asyncio.Queue[Delivered] = asyncio.Queue(BATCHES_AHEAD)
        self.gather: Callable[[Any], Any] | None = None

    def topic(self, *names: str, **_: Any) -> tuple[str, ...]:
        """Note the input topics."""
        self.topics = names
        return names

    def agent(self, _: Any, **__: Any) -> Callable[[Callable[[Any], Any]], None]:
        """Note the agent's function."""

        def keep(function: Callable[[Any], Any]) -> None:
            self.gather = function

        return keep

    def noack(self) -> Self:
        """Return the stream."""
        return self

    async def events(self) -> AsyncIterator[Delivered]:
        """Yield what is delivered."""
        while True:
            yield await self.queue.get()


class Instance(Process):
    """One JobForge process, put together as the shipped service does it."""

    def __init__(self, world: World, name: str, log: SimulatedLog, server: Server, group: "Group") -> None:
        """Start it; it joins the group when it is ready."""
        super().__init__(world, name)
        self._log = log
        self._group = group
        link = Link(bootstrap="simulated", log=log, process=self)
        self.store = SimulatedStore(server, self)
        self.producer = SimulatedProducer(link, Service.JOBFORGE)
        self.outbox = Outbox(self.producer, self.store, name)
        self.router = Router(
            self.store, self.outbox, self.producer, policy=least_loaded, lease_seconds=LEASE_SECONDS, now=self.now,
            new_id=lambda: world.new_id("attempt-"),
        )  # fmt: skip
        self.agent = Agent(link, self.store, self.producer, self.outbox, self.router, GROUP, now=self.now)
        self.clock = Clock(
            self.agent, self.store, self.outbox, link, group=GROUP, lease_seconds=LEASE_SECONDS, counts=log.counts,
            reached=self._reached, unroutable=self.router.unroutable, now=self.now,
        )  # fmt: skip
        self.upkeep = Upkeep(
            self.agent, self.store, self.producer, partitions=log.counts[SUBMISSIONS.name], most_in_flight=MOST_IN_FLIGHT,
            now=self.now,
        )  # fmt: skip
        self.app = SimulatedApp()
        self.agent.subscribe(self.app)  # type: ignore[arg-type] # It has what is asked of a Faust application.
        self._news = asyncio.Event()
        self._assignment: tuple[int, set[Partition]] = (0, set())
        self.start(self._live())

    async def _live(self) -> None:
        assert self.app.gather is not None
        await self.store.touch(self.now(), {})
        for work in (
            self.app.gather(self.app), self.agent.run(), self.router.run(), self.outbox.clear(), self.clock.run_due(),
            self.clock.run_leases(), self.clock.run_watermarks(), self.upkeep.run(), self._read(),
        ):  # fmt: skip
            self.start(work)
        self._group.join(self)

    def failed(self, error: BaseException) -> None:
        """End by an error as the shipped service does: without clean-up, to be started again."""
        if not isinstance(error, ENDS_AN_INSTANCE):
            self.world.fail(f"{self.name} ended by {type(error).__name__}: {error}")
        if self.alive:
            self.crash(f"{type(error).__name__}: {error}")

    def crash(self, reason: str) -> None:
        """End it where it stands."""
        self.world.note(f"{self.name} ends: {reason}")
        self.producer.crash()
        self.die()
        self._group.left(self)

    # Delivery

    def assign(self, generation: int, partitions: set[Partition]) -> None:
        """Have it take partitions over and read them."""
        self._assignment = (generation, partitions)
        self._news.set()
        self._log.grew.ring()  # Whoever waits for records has to see that they are no longer its own.

    def _reached(self, positions: Mapping[Partition, int]) -> dict[Partition, int]:
        if self.world.log_away:
            return {}
        return {place: self.now() for place, offset in positions.items() if offset >= len(self._log.partitions[place])}

    async def _read(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            generation, partitions = self._assignment
            await self.step()
            positions = dict(await self.agent.take_over(partitions))
            self.world.note(f"{self.name} owns job partitions {self.agent.partitions}")
            await self._deliver(generation, positions)

    async def _deliver(self, generation: int, positions: dict[Partition, int]) -> None:
        world, log = self.world, self._log
        while self._assignment[0] == generation:
            await self.step()
            ready = [one for one, offset in positions.items() if offset < len(log.partitions[one])]
            if world.log_away or self.app.queue.full():
                await asyncio.sleep(world.random.uniform(0.002, 0.02))
                continue
            if not ready:
                await log.grew.wait()
                continue
            place = world.random.choice(ready)
            start = positions[place]
            positions[place] = min(len(log.partitions[place]), start + world.random.randint(1, RECORDS_AT_ONCE))
            if world.happens(world.faults.redelivered):
                start = max(0, start - world.random.randint(1, 5))
            self.app.queue.put_nowait(Delivered(log.partitions[place][start : positions[place]]))


class Group:
    """The consumer group: shares the partitions among its members, and forgets who is silent for a session."""

    def __init__(self, world: World, log: SimulatedLog) -> None:
        """Begin without members."""
        self._world = world
        self._log = log
        self._generation = 0
        self._members: list[Instance] = []
        self.deaf: set[str] = set()
        """Members whose heartbeats do not arrive: they are forgotten, and do not know it."""

    def join(self, instance: Instance) -> None:
        """Take a member in."""
        if instance.alive and instance not in self._members:
            self._members.append(instance)
        self._world.loop.call_later(self._world.random.uniform(0.01, 0.3), self._rebalance)

    def left(self, instance: Instance) -> None:
        """Find a member missing after its session."""
        self._world.loop.call_later(SESSION_SECONDS, self._forget, instance)

    def check(self, instance: Instance) -> None:
        """Forget a member that is frozen or deaf; it comes back when it notices."""
        if not instance.alive or not (instance.frozen or instance.name in self.deaf):
            return
        self._world.note(f"the group forgets {instance.name}, which goes on as a zombie")
        self._forget(instance)

    def _forget(self, instance: Instance) -> None:
        if instance in self._members:
            self._members.remove(instance)
            self._rebalance()

    def _rebalance(self) -> None:
        """Share every topic's partitions in ranges, so that what is co-partitioned goes to one member."""
        members = sorted((one for one in self._members if one.alive), key=lambda one: one.name)
        if not members:
            return
        self._generation += 1
        shares: dict[str, set[Partition]] = {one.name: set() for one in members}
        for topic in members[0].app.topics:
            count = self._log.counts[topic]
            for number in range(count):
                shares[members[number * len(members) // count].name].add((topic, number))
        for member in members:
            member.assign(self._generation, shares[member.name])
