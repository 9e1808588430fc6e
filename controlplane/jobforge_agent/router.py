"""Leasing waiting jobs to runners: one task per instance that wakes on change and asks the store for (job, runner) pairs."""

import asyncio
import logging
from typing import Final

import msgspec

from controlplane.events.header import leased_header
from controlplane.events.identity import Instant, partition_of, random_id
from controlplane.events.job_contracts import version_of
from controlplane.events.types import JobRouted, RunnerRegistered
from controlplane.jobforge_agent.moments import NewId, Now, wall_clock
from controlplane.jobforge_agent.outbox import Outbox
from controlplane.jobforge_agent.policy import Assignment, Candidate, Policy
from controlplane.jobforge_agent.state import SECOND, Job, earliest
from controlplane.jobforge_agent.store import Beat, Claim, Store
from controlplane.jobforge_agent.transitions import Phase
from controlplane.log.producer import LogProducer

LOOK_AT_ONCE: Final = 256
IDLE_SECONDS: Final = 0.25
"""Other instances' changes are found within this time; one's own wake the router at once."""

logger = logging.getLogger(__name__)


def candidate(runner: RunnerRegistered, busy: int) -> Candidate:
    """Return a runner as the policy sees it."""
    offers = frozenset((capability.job_type, version_of(capability)[0]) for capability in runner.capabilities)
    return Candidate(
        runner_id=runner.runner_id, pool=runner.pool, slots=runner.slots, busy=busy, labels=runner.labels, offers=offers
    )


class Router:
    """Routes for as long as `run` runs."""

    def __init__(
        self, store: Store, outbox: Outbox, producer: LogProducer, *, policy: Policy, lease_seconds: float,
        now: Now = wall_clock, new_id: NewId = random_id,
    ) -> None:  # fmt: skip
        """Prepare a router; nobody is known yet."""
        self.wake = asyncio.Event()
        self._store = store
        self._outbox = outbox
        self._producer = producer
        self._policy = policy
        self._lease_seconds = lease_seconds
        self._now = now
        self._new_id = new_id
        self._runners: dict[str, RunnerRegistered] = {}

    def update(self, runners: dict[str, RunnerRegistered], beats: dict[str, Beat], draining: set[str]) -> None:
        """Take the runners that live and take work."""
        self._runners = {name: runner for name, runner in runners.items() if name in beats and name not in draining}
        self.wake.set()

    async def route_once(self) -> int:
        """Lease what can be leased now; returns how many jobs that were."""
        if not self._runners:
            return 0
        capacities = {name: runner.slots for name, runner in self._runners.items()}
        jobs, busy = await self._store.heads(LOOK_AT_ONCE, capacities)
        if not jobs:
            return 0
        candidates = {name: candidate(runner, busy.get(name, 0)) for name, runner in self._runners.items()}
        now = self._now()
        claims = [self._claim(one, now) for one in self._policy(jobs, candidates)]
        if not claims:
            return 0
        accepted = await self._store.claim(claims)
        for claim, yes in zip(claims, accepted, strict=True):
            if yes:
                self._outbox.publish(str(claim.job.attempt_id), [claim.record])
        return sum(accepted)

    def _claim(self, assignment: Assignment, now: Instant) -> Claim:
        job, runner_id = assignment.job, assignment.runner_id
        attempt_id = self._new_id()
        limit = now + job.attempt_timeout_micros if job.attempt_timeout_micros else None
        leased: Job = msgspec.structs.replace(
            job, phase=Phase.ROUTED, attempt_id=attempt_id, attempt_number=job.attempt_number + 1, runner_id=runner_id,
            routed_at=now, due_at=earliest(limit, job.deadline),
        )  # fmt: skip
        routed = JobRouted(
            header=leased_header(job.cause, "JobRouted", attempt_id, self._producer.identity, now),
            job_id=job.job_id, attempt_id=attempt_id, attempt_number=leased.attempt_number, runner_id=runner_id,
            job_type=job.job_type, contract_major=job.contract_major, payload=job.payload, pool=job.pool,
            priority=job.priority, slots=job.slots, job_partition=job.partition, lease_seconds=self._lease_seconds,
            timeout_seconds=job.attempt_timeout_micros / SECOND if job.attempt_timeout_micros else None,
            queued_at=job.queued_at, reason=assignment.reason, refused=assignment.refused,
        )  # fmt: skip
        inbox = partition_of(runner_id.encode(), self._producer.partitions("controlplane.routing"))
        record = self._producer.record(routed, partition=inbox)
        capacity = self._runners[runner_id].slots
        return Claim(job=leased, queue=job.queue, capacity=capacity, record=record)

    async def run(self) -> None:
        """Route until cancelled: at once when woken, and now and then for what other instances changed."""
        while True:
            self.wake.clear()  # Before looking: what becomes ready meanwhile wakes the next round.
            if await self.route_once() == 0:
                try:
                    await asyncio.wait_for(self.wake.wait(), IDLE_SECONDS)
                except TimeoutError:
                    continue
