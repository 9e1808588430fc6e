"""Leasing waiting jobs to runners: one task per instance that wakes on change and asks the store for (job, runner) pairs."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

import msgspec
import redis
from prometheus_client import CollectorRegistry

from controlplane.events.catalog import ROUTING
from controlplane.events.identity import Instant, partition_of, random_id
from controlplane.events.types import JobRouted, RunnerRegistered
from controlplane.jobforge_agent import lanes, rules
from controlplane.jobforge_agent.control_store import LiveControls
from controlplane.jobforge_agent.lanes import LANES_AT_ONCE
from controlplane.jobforge_agent.leasing import leased
from controlplane.jobforge_agent.metrics import Metrics
from controlplane.jobforge_agent.moments import NewId, Now, wall_clock
from controlplane.jobforge_agent.outbox import Outbox
from controlplane.jobforge_agent.paces import Paces
from controlplane.jobforge_agent.policy import Assignment, Candidate, Policy, Situation, cost, cut
from controlplane.jobforge_agent.rules import Limits
from controlplane.jobforge_agent.runner_store import Beat
from controlplane.jobforge_agent.state import SECOND, Job
from controlplane.jobforge_agent.store import Store
from controlplane.jobforge_agent.stored import Claim, Heads, Usage
from controlplane.log.producer import LogProducer, OutgoingRecord, RecordTooLarge
from controlplane.log.traces import headers_of

IDLE_SECONDS: Final = 0.25
"""Other instances' changes are found within this time; one's own wake the router at once."""

logger = logging.getLogger(__name__)


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """The runners that live and take work, and what they offer, as they were at one moment."""

    runners: dict[str, RunnerRegistered]
    offers: dict[str, rules.Offers]


class Router:
    """Routes for as long as `run` runs."""

    def __init__(
        self, store: Store, outbox: Outbox, producer: LogProducer, *, policy: Policy, lease_seconds: float,
        now: Now = wall_clock, new_id: NewId = random_id, metrics: Metrics | None = None,
    ) -> None:  # fmt: skip
        """Prepare a router; nobody is known yet."""
        self.metrics = metrics or Metrics(CollectorRegistry())
        self.wake = asyncio.Event()
        self.paces = Paces()
        self.unroutable: dict[str, int] = {}
        """Jobs that no record can give to a runner, and their partitions: whose owner it is concludes them."""
        self._store = store
        self._outbox = outbox
        self._producer = producer
        self._policy = policy
        self._lease_seconds = lease_seconds
        self._now = now
        self._new_id = new_id
        self._fleet = Fleet(runners={}, offers={})
        self.controls = LiveControls(store.controls)

    def update(self, runners: dict[str, RunnerRegistered], beats: dict[str, Beat], draining: set[str]) -> None:
        """Take the runners that live and take work."""
        live = {name: runner for name, runner in runners.items() if name in beats and name not in draining}
        if live != self._fleet.runners:
            self._fleet = Fleet(runners=live, offers={name: rules.offers(runner) for name, runner in live.items()})
            self.wake.set()

    # What may be routed

    def _may_route(self, name: str, fleet: Fleet) -> bool:
        """Say whether a lane has somebody who could take its jobs, and nothing that stops it."""
        return rules.may_route(rules.lane_named(name), self.controls.now, fleet.runners, fleet.offers)

    def _look(self, heads: Heads, fleet: Fleet, now: int) -> lanes.Look:
        """Return the lanes to look into when there are too many."""
        may = {name: score for name, score in heads.lanes.items() if self._may_route(name, fleet)}
        return lanes.look(lanes.in_turn(may, heads.shares, now), self._candidates(fleet, heads.busy))

    def _candidates(self, fleet: Fleet, busy: dict[str, int]) -> dict[str, Candidate]:
        return {
            name: rules.candidate(
                runner, fleet.offers[name], self.controls.now, busy=busy.get(name, 0), pace=self.paces.of(name)
            )
            for name, runner in fleet.runners.items()
        }

    # One round

    async def route_once(self) -> int:
        """Lease what can be leased now; returns how many jobs that were, or were set aside because of a limit, or have to be looked at again.

        A runner that comes while a round is under way has to wait for the next: what waits was looked at for the room that there was.
        """
        fleet = self._fleet
        if not fleet.runners:
            return 0
        capacities = {name: runner.slots for name, runner in fleet.runners.items()}
        now = self._now()
        heads = await self._store.heads(now, rules.LOOK_AT_ONCE, capacities, lanes_at_once=LANES_AT_ONCE)
        await self.controls.follow(heads.version)
        if heads.jobs or not heads.lanes:
            return await self._route(heads, fleet, now) or 0
        wanted = self._look(heads, fleet, now)
        for names in wanted.portions():
            seen = await self._store.heads(now, rules.LOOK_AT_ONCE, capacities, lanes=names)
            # Room that came since the first look is for the next round: who was passed over may want it.
            busy = {name: max(heads.busy.get(name, 0), seen.busy.get(name, 0)) for name in capacities}
            left_out = {name: heads.lanes[name] for name in set(wanted.crowded).difference(names)}
            count = await self._route(msgspec.structs.replace(heads, jobs=seen.jobs, busy=busy), fleet, now, left_out)
            if count is not None:
                return count
        return 0

    async def _route(
        self, heads: Heads, fleet: Fleet, now: Instant, left_out: Mapping[str, float] | None = None
    ) -> int | None:
        """Lease what can be leased of these jobs; None where none of them can go, nor stands in the way.

        `left_out` are lanes that were not looked into although their first jobs might find room, and the scores of those.
        """
        jobs = [job for job in heads.jobs if self._may_route(job.lane_name, fleet)]
        if not jobs:
            return None
        limits = {job.job_id: found for job in jobs if (found := rules.limits_of(job, self.controls.now))}
        every = {subject: limit for found in limits.values() for subject, limit in found}
        usage = await self._store.usage(every, now) if every else {}
        allowances = {
            subject: rules.allowance(limit, usage[subject].running, usage[subject].recent)
            for subject, limit in every.items()
        }
        situation = Situation(
            jobs=jobs, runners=self._candidates(fleet, heads.busy), shares=heads.shares, weights=self.controls.now.weights,
            limited_by={name: tuple(subject for subject, _ in found) for name, found in limits.items()},
            allowances=dict(allowances),
        )  # fmt: skip
        chosen = self._policy(situation)
        if left_out:
            chosen = lanes.in_order(chosen, left_out, situation.runners, now)
        if limits:
            free = sum(max(0, runner.slots - heads.busy.get(name, 0)) for name, runner in fleet.runners.items())
            chosen = rules.in_sight(chosen, jobs, limits, allowances, min(rules.LOOK_AT_ONCE, free))
        wishes = [(one.job, self._claim(one, now, fleet, limits.get(one.job.job_id, ()))) for one in chosen]
        claims = [(job, claim) for job, claim in wishes if claim is not None]
        accepted = await self._store.claim([one for _, one in claims], version=heads.version) if claims else []
        for (job, claim), yes in zip(claims, accepted, strict=True):
            if yes:
                self._outbox.publish(str(claim.job.attempt_id), [claim.record])
                self.metrics.moved([(job, claim.job)])
        aside = await self._set_aside(jobs, limits, usage, now, heads.version) if limits else 0
        if not claims and not aside:
            return None
        return sum(one is not False for one in accepted) + aside

    async def _set_aside(
        self, jobs: list[Job], limits: dict[str, Limits], usage: dict[str, Usage], now: int, version: str
    ) -> int:
        """Set queues aside whose next job a limit stopped before this round; others are seen again in the next one."""
        parked: dict[str, tuple[str, int]] = {}
        resting: dict[str, int] = {}
        for job in jobs:
            for subject, limit in limits.get(job.job_id, ()):
                used = usage[subject]
                if limit.max_running is not None and used.running >= limit.max_running:
                    parked[job.queue] = (subject, limit.max_running)
                elif limit.starts is not None and used.recent >= limit.starts:
                    period = int(limit.period_seconds * SECOND)
                    resting[job.queue] = (used.oldest or now) + period
        await self._store.park(
            [(queue, *stopped) for queue, stopped in parked.items()],
            [(queue, moment) for queue, moment in resting.items() if queue not in parked],
            version=version,
        )
        return len(parked.keys() | resting.keys())

    def _claim(self, assignment: Assignment, now: Instant, fleet: Fleet, limits: Limits) -> Claim | None:
        """Return the lease that an assignment is; None where no record can hold it."""
        job, runner_id = assignment.job, assignment.runner_id
        attempt_id = self._new_id()
        held, routed = leased(
            assignment, attempt_id, now, producer=self._producer.identity, lease_seconds=self._lease_seconds,
            holds=[subject for subject, _ in limits],
        )  # fmt: skip
        try:
            record = self._record(routed, job)
        except RecordTooLarge as error:
            logger.warning("Job %s cannot be given to a runner: %s", job.job_id, error)
            self.unroutable[job.job_id] = job.partition
            return None
        # On trial it must be idle: other instances' routers claim at the same time.
        capacity = job.slots if rules.on_trial(runner_id, self.controls.now) else fleet.runners[runner_id].slots
        return Claim(
            job=held, queue=job.queue, capacity=capacity, record=record, limits=limits,
            cost=cost(job, self.controls.now.weights),
        )  # fmt: skip

    def _record(self, routed: JobRouted, job: Job) -> OutgoingRecord:
        """Return the record that gives a job to its runner; where there is no room for it, without who was not chosen.

        Raises:
            RecordTooLarge: there is no room without them either.
        """
        inbox = partition_of(routed.runner_id.encode(), self._producer.partitions(ROUTING.name))
        headers = headers_of(job.trace)
        try:
            return self._producer.record(routed, partition=inbox, headers=headers)
        except RecordTooLarge:
            short = msgspec.structs.replace(routed, refused=(), reason=cut(routed.reason))
            return self._producer.record(short, partition=inbox, headers=headers)

    async def run(self) -> None:
        """Route until cancelled: at once when woken, and now and then for what other instances changed."""
        while True:
            self.wake.clear()  # Before looking: what becomes ready meanwhile wakes the next round.
            try:
                count = await self.route_once()
            except redis.RedisError as error:
                logger.debug("Routing waits for the store: %s", error)
                await asyncio.sleep(IDLE_SECONDS)
                continue
            if count == 0:
                try:
                    await asyncio.wait_for(self.wake.wait(), IDLE_SECONDS)
                except TimeoutError:
                    continue
