"""What silence and time bring: expired leases, due timers, orphaned outboxes, low watermarks."""

import asyncio
import logging
from typing import Final

import redis

from controlplane.events.catalog import SUBMISSIONS
from controlplane.events.identity import partition_of
from controlplane.jobforge_agent.agent import Agent
from controlplane.jobforge_agent.decide import Context, Decision, on_due, on_lost
from controlplane.jobforge_agent.moments import Now, elapsed, wall_clock
from controlplane.jobforge_agent.outbox import Outbox
from controlplane.jobforge_agent.state import SECOND, Job
from controlplane.jobforge_agent.store import Store
from controlplane.log.connection import LogConnection
from controlplane.log.group import OffsetBook

DUE_EVERY_SECONDS: Final = 0.1
LEASES_EVERY_SECONDS: Final = 0.5
WATERMARK_EVERY_SECONDS: Final = 1.0
SILENT_INSTANCE_SECONDS: Final = 5.0
DUE_AT_ONCE: Final = 500
CAUGHT_UP_SECONDS: Final = 1.0
"""When no observation came for so long, none waits to be read: a heartbeat that does not list an attempt means what it says."""

logger = logging.getLogger(__name__)


class Clock:
    """The timers of one instance; each looks up what is due and decides nothing by itself."""

    def __init__(
        self, agent: Agent, store: Store, outbox: Outbox, connection: LogConnection, *, group: str, lease_seconds: float, partitions: int,
        now: Now = wall_clock,
    ) -> None:  # fmt: skip
        """Prepare the timers; `partitions` is the number of job partitions."""
        self._agent = agent
        self._store = store
        self._outbox = outbox
        self._connection = connection
        self._group = group
        self._lease_micros = int(lease_seconds * SECOND)
        self._lease_seconds = lease_seconds
        self._partitions = partitions
        self._now = now
        self._missed: set[str] = set()

    async def run_due(self) -> None:
        """Queue delayed and retried jobs when their time comes, and conclude what took too long."""
        while True:
            await asyncio.sleep(DUE_EVERY_SECONDS)
            try:
                for partition in self._agent.partitions:
                    if ids := await self._store.due(partition, self._now(), DUE_AT_ONCE):
                        await self._agent.decide_jobs(partition, ids, on_due)
            except redis.RedisError as error:
                logger.debug("Timers wait for the store: %s", error)

    async def run_leases(self) -> None:
        """End the leases of runners that are silent, and of attempts that their runner does not know."""
        while True:
            await asyncio.sleep(LEASES_EVERY_SECONDS)
            try:
                await self._store.touch(self._now())
                await self._adopt()
                await self._outbox.catch_up()
                await self._found_again()
                await self._agent.notes.refresh()  # A runner may have registered with another instance.
                # After an outage of ours, every lease counts from its end: never expire them all at once.
                outage = self._agent.outage
                since = max(self._agent.owned_since, outage.ended_at)
                if not outage.going_on and elapsed() - since > self._lease_seconds:
                    await self._end_leases()
            except redis.RedisError as error:
                logger.debug("Leases wait for the store: %s", error)

    async def _adopt(self) -> None:
        for instance in await self._store.silent_instances(self._now() - int(SILENT_INSTANCE_SECONDS * SECOND)):
            count = await self._outbox.adopt(instance)
            logger.warning("Instance %s is silent: %d decisions published on its behalf.", instance, count)

    async def _end_leases(self) -> None:
        beats = await self._store.beats()
        silent_before = self._now() - self._lease_micros
        for runner_id in set(beats) | set(await self._store.holders()):
            at, attempts = beats.get(runner_id, (0, ()))
            held = await self._store.held(runner_id)
            if at < silent_before:
                await self._end(
                    runner_id, held, f"Runner {runner_id} is silent for more than {self._lease_seconds:g} s."
                )
                if not held and runner_id in beats:
                    await self._lost(runner_id)
                    await self._agent.notes.refresh()
            elif elapsed() - self._agent.last_progress > CAUGHT_UP_SECONDS:
                unknown = {attempt: job for attempt, job in held.items() if attempt not in attempts}
                await self._end(
                    runner_id, unknown, f"Runner {runner_id} lives, but does not know the attempt.", before=at
                )

    async def _lost(self, runner_id: str) -> None:
        runner = self._agent.notes.registry.runners.get(runner_id)
        await self._store.forget_runner(runner_id)
        if runner is not None:
            text = f"Runner {runner_id} is silent for more than {self._lease_seconds:g} s; its jobs run elsewhere."
            await self._agent.alerts.set("runner_lost", runner.name, text, raised=True)
            self._missed.add(runner.name)

    async def _found_again(self) -> None:
        """Clear the alerts of runners of whose name one lives again."""
        for name in self._missed & {runner.name for runner in self._agent.notes.registry.runners.values()}:
            await self._agent.alerts.set("runner_lost", name, f"A runner {name} is there again.", raised=False)
            self._missed.discard(name)

    async def _end(self, runner_id: str, held: dict[str, str], reason: str, before: int | None = None) -> None:
        """Lose the held attempts in owned partitions; with `before`, only those handed over a lease earlier than that."""

        def decide(job: Job, context: Context) -> Decision:
            current = job.leased and job.runner_id == runner_id and job.attempt_id in held
            if not current or (before is not None and job.routed_at + self._lease_micros > before):
                return Decision(job=job)
            return on_lost(job, reason, context)

        by_partition: dict[int, list[str]] = {}
        for job_id in held.values():
            by_partition.setdefault(partition_of(job_id.encode(), self._partitions), []).append(job_id)
        for partition, ids in by_partition.items():
            if partition in self._agent.partitions:
                await self._agent.decide_jobs(partition, ids, decide)

    async def run_watermarks(self) -> None:
        """Note how far back a recovery has to read, once everything decided before is published."""
        async with OffsetBook(self._connection, f"{self._group}-watermark") as book:
            noted: dict[tuple[str, int], int] = {}
            while True:
                try:
                    candidate = await self._oldest()
                    await self._published(await self._store.unpublished())
                except redis.RedisError as error:
                    logger.debug("Watermarks wait for the store: %s", error)
                    await asyncio.sleep(WATERMARK_EVERY_SECONDS)
                    continue
                news = {one: low for one, low in candidate.items() if noted.get(one) != low}
                await book.write(news)
                noted |= news

    async def _published(self, barrier: dict[str, set[str]]) -> None:
        """Wait until entries of the outbox are published, whichever instance decided them: one may have died since."""
        while barrier:
            await asyncio.sleep(WATERMARK_EVERY_SECONDS)
            left = await self._store.unpublished()
            barrier = {name: rest for name, entries in barrier.items() if (rest := entries & left.get(name, set()))}

    async def _oldest(self) -> dict[tuple[str, int], int]:
        places = [(SUBMISSIONS.name, partition) for partition in self._agent.partitions]
        stored = await self._store.positions(places)
        lows = {}
        for place, position in stored.items():
            oldest = await self._store.oldest_open(place[1])
            if position is not None:
                lows[place] = position if oldest is None else min(oldest, position)
        return lows
