"""What silence and time bring: expired leases, due timers, orphaned outboxes, low watermarks."""

import asyncio
import logging
from collections.abc import Callable, Mapping, MutableMapping
from typing import Final

import redis

from controlplane.events.catalog import PROGRESS, RUNNERS, SUBMISSIONS
from controlplane.events.identity import partition_of
from controlplane.events.job_contracts import Registry
from controlplane.jobforge_agent.agent import Agent
from controlplane.jobforge_agent.decide import Context, Decision, on_due, on_lost, on_unroutable
from controlplane.jobforge_agent.hearing import NOTHING, Heard, heard_on
from controlplane.jobforge_agent.moments import Now, elapsed, wall_clock
from controlplane.jobforge_agent.outbox import Outbox
from controlplane.jobforge_agent.state import SECOND, Job
from controlplane.jobforge_agent.store import Store
from controlplane.log.connection import LogConnection
from controlplane.log.group import OffsetBook
from controlplane.log.positions import Partition

DUE_EVERY_SECONDS: Final = 0.1
LEASES_EVERY_SECONDS: Final = 0.5
LISTEN_WITHIN_SECONDS: Final = 1.0
WATERMARK_EVERY_SECONDS: Final = 1.0
SILENT_INSTANCE_SECONDS: Final = 5.0
DUE_AT_ONCE: Final = 500
SETTLED_SECONDS: Final = 1.0
"""What a runner said of an attempt is on the log so long after a heartbeat that no longer lists it."""

Reached = Callable[[Mapping[Partition, int]], Mapping[Partition, int]]
"""Says when the log was last known to end at these positions (microseconds), of those that it does end at."""

logger = logging.getLogger(__name__)


class Clock:
    """The timers of one instance; each looks up what is due and decides nothing by itself."""

    def __init__(
        self, agent: Agent, store: Store, outbox: Outbox, connection: LogConnection, *, group: str, lease_seconds: float,
        counts: Mapping[str, int], reached: Reached, unroutable: MutableMapping[str, int], now: Now = wall_clock,
    ) -> None:  # fmt: skip
        """Prepare the timers; `counts` are the topics' numbers of partitions, `unroutable` what the router finds: see there."""
        self._agent = agent
        self._store = store
        self._outbox = outbox
        self._connection = connection
        self._group = group
        self._lease_micros = int(lease_seconds * SECOND)
        self._lease_seconds = lease_seconds
        self._counts = counts
        self._reached = reached
        self._unroutable = unroutable
        self._heard: dict[Partition, Heard] = {}
        self._now = now
        self._looked_at: Registry | None = None
        self._unasked: set[str] = set()

    async def run_due(self) -> None:
        """Queue delayed and retried jobs when their time comes, and conclude what took too long or cannot be routed."""
        while True:
            await asyncio.sleep(DUE_EVERY_SECONDS)
            try:
                for partition in self._agent.partitions:
                    if ids := await self._store.due(partition, self._now(), DUE_AT_ONCE):
                        await self._agent.decide_jobs(partition, ids, self._on_due)
                    if stuck := [name for name, place in self._unroutable.items() if place == partition]:
                        await self._agent.decide_jobs(partition, stuck, on_unroutable)
                self._unroutable.clear()  # Of others' partitions, too: their owners find them as well.
            except redis.RedisError as error:
                logger.debug("Timers wait for the store: %s", error)

    def _on_due(self, job: Job, context: Context) -> Decision:
        # An attempt whose end may wait to be read has not taken too long yet.
        if job.leased and (job.due_at or 0) > self._heard_until(job.partition):
            return Decision(job=job)
        return on_due(job, context)

    async def run_leases(self) -> None:
        """End the leases of runners that are silent, and of attempts that their runner does not know."""
        while True:
            await asyncio.sleep(LEASES_EVERY_SECONDS)
            try:
                await self._listen()
                of_runners = {place: heard for place, heard in self._heard.items() if place[0] == RUNNERS.name}
                await self._store.touch(self._now(), of_runners, self._agent.owned)
                await self._adopt()
                await self._outbox.catch_up()
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
            count = await self._outbox.adopt(instance, self._agent.publishable)
            if count is None:
                continue  # Once the store was compared with the log by those who own what it is about.
            logger.warning("Instance %s is silent: %d decisions published on its behalf.", instance, count)

    async def _listen(self) -> None:
        """Note up to when what was said is decided, in each partition that this instance reads."""
        try:
            async with asyncio.timeout(LISTEN_WITHIN_SECONDS):
                positions, said_at = await self._agent.decided()
        except TimeoutError:
            return  # Something long is being decided: nothing new is known, but this instance lives.
        known = dict(said_at)
        for place, at in self._reached(positions).items():
            known[place] = max(at, known.get(place, 0))
        heard = {place: self._heard.get(place, NOTHING) for place in positions}
        self._heard = heard | {place: heard_on(heard[place], at) for place, at in known.items()}

    def _heard_until(self, partition: int) -> int:
        return self._heard.get((PROGRESS.name, partition), NOTHING).until

    async def _end_leases(self) -> None:
        beats, listened = await self._store.runners.beats(), await self._store.heard()
        living: set[str] = set()
        for runner_id in set(beats) | set(await self._store.holders()):
            at, attempts = beats.get(runner_id, (0, ()))
            inbox = (RUNNERS.name, partition_of(runner_id.encode(), self._counts[RUNNERS.name]))
            since, until = listened.get(inbox, NOTHING)
            if max(at, since) + self._lease_micros < until:
                if runner_id in beats:  # First, so that nobody hands it what is taken from it.
                    await self._lost(runner_id)
                reason = f"Runner {runner_id} is silent for more than {self._lease_seconds:g} s."
                await self._end(runner_id, await self._store.held(runner_id), reason)
            else:
                living.add(runner_id)
                held = await self._store.held(runner_id)
                unknown = {attempt: job for attempt, job in held.items() if attempt not in attempts}
                reason = f"Runner {runner_id} lives, but does not know the attempt."
                await self._end(runner_id, unknown, reason, seen=Heard(since, at))
        await self._found_again(living)

    async def _lost(self, runner_id: str) -> None:
        if (runner := self._agent.notes.registry.runners.get(runner_id)) is not None:
            # Said first: whoever finds the runner silent after a crash here says it no second time.
            text = f"Runner {runner_id} is silent for more than {self._lease_seconds:g} s; its jobs run elsewhere."
            await self._agent.alerts.set("runner_lost", runner.name, text, raised=True)
        await self._store.runners.forget(runner_id)
        await self._agent.notes.refresh()

    async def _found_again(self, living: set[str]) -> None:
        """Clear the alerts of runners of whose name one lives again, whichever instance raised them; asked once for each that registers."""
        registry = self._agent.notes.registry
        if registry is not self._looked_at:
            self._looked_at, self._unasked = registry, set(registry.runners)
        asked = self._unasked & living
        for name in await self._agent.alerts.raised("runner_lost", {registry.runners[one].name for one in asked}):
            await self._agent.alerts.set("runner_lost", name, f"A runner {name} is there again.", raised=False)
        self._unasked -= asked

    async def _end(self, runner_id: str, held: dict[str, str], reason: str, seen: Heard | None = None) -> None:
        """Lose the held attempts in owned partitions.

        `seen` is a heartbeat that does not list them and since when its runner is heard: then only those are lost that were handed over a
        lease earlier, and of which everything that was said by then is decided.
        """

        def decide(job: Job, context: Context) -> Decision:
            current = job.leased and job.runner_id == runner_id and job.attempt_id in held
            if not current or (seen and max(job.routed_at, seen.since) + self._lease_micros > seen.until):
                return Decision(job=job)
            return on_lost(job, reason, context)

        by_partition: dict[int, list[str]] = {}
        for job_id in held.values():
            by_partition.setdefault(partition_of(job_id.encode(), self._counts[SUBMISSIONS.name]), []).append(job_id)
        for partition, ids in by_partition.items():
            settled = seen is None or self._heard_until(partition) > seen.until + SETTLED_SECONDS * SECOND
            if settled and partition in self._agent.partitions:
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
