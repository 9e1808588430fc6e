"""What may be routed now, whatever the policy: pauses, breakers, limits, who offers what. Pure, so that a replay keeps the same rules."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from controlplane.events.controls import Controls, Limit
from controlplane.events.job_contracts import version_of
from controlplane.events.types import RunnerRegistered
from controlplane.jobforge_agent.breakers import HALF_OPEN, OPEN, THRESHOLDS, of_runner, of_type
from controlplane.jobforge_agent.policy import Assignment, Candidate
from controlplane.jobforge_agent.state import CRITICAL, QUEUE_SEPARATOR, Job, Lane

LOOK_AT_ONCE: Final = 256
"""Of each lane so many jobs are looked at in one round, and no more than runners have free slots."""

Limits = tuple[tuple[str, Limit], ...]
"""What limits a job: subject and limit."""
Offers = frozenset[tuple[str, int]]
"""What a runner can do: (job type, contract major) pairs."""


@lru_cache(maxsize=4096)
def lane_named(name: str) -> Lane:
    """Return the lane of that name."""
    return msgspec.json.decode(name, type=Lane)


def lane_of(queue: str) -> Lane:
    """Return the lane of a queue."""
    return lane_named(queue.partition(QUEUE_SEPARATOR)[0])


def offers(runner: RunnerRegistered) -> Offers:
    """Return what a runner can do."""
    return frozenset((capability.job_type, version_of(capability)[0]) for capability in runner.capabilities)


def may_route(
    lane: Lane, controls: Controls, runners: Mapping[str, RunnerRegistered], offered: Mapping[str, Offers]
) -> bool:
    """Say whether a lane has somebody who could take its jobs, and nothing that stops it."""
    if controls.paused(lane.pool, lane.job_type):
        return False
    breaker = controls.breakers.get(of_type(lane.job_type))
    if breaker is not None and breaker.state == OPEN:
        return False
    kind = (lane.job_type, lane.contract_major)
    return any(
        kind in offered[runner_id]
        and runner.pool == lane.pool
        and lane.slots <= runner.slots
        and all(runner.labels.get(label) == value for label, value in lane.labels)
        for runner_id, runner in runners.items()
    )


def candidate(
    runner: RunnerRegistered, offered: Offers, controls: Controls, *, busy: int, pace: float
) -> Candidate:  # fmt: skip
    """Return a runner as a policy sees it: closed behind an open breaker, on trial behind a half-open one."""
    breaker = controls.breakers.get(of_runner(runner.runner_id))
    opened = breaker is not None and breaker.state == OPEN
    return Candidate(
        runner_id=runner.runner_id, pool=runner.pool, slots=runner.slots, busy=busy, labels=runner.labels, offers=offered,
        pace=pace, on_trial=on_trial(runner.runner_id, controls),
        closed_to=f"its circuit breaker is open: {breaker.reason}" if breaker is not None and opened else None,
    )  # fmt: skip


def on_trial(runner_id: str, controls: Controls) -> bool:
    """Say whether a runner gets one attempt at a time, however many slots that takes: its breaker is half open."""
    breaker = controls.breakers.get(of_runner(runner_id))
    return breaker is not None and breaker.state == HALF_OPEN


def limits_of(job: Job, controls: Controls) -> Limits:
    """Return what limits a job now; a half-open breaker lets a few trials through."""
    found = tuple(controls.limits_of(job.job_type, job.tenant, job.concurrency_key, job.rate_key))
    breaker = controls.breakers.get(of_type(job.job_type))
    if breaker is not None and breaker.state == HALF_OPEN:
        found += ((breaker.subject, Limit(max_running=THRESHOLDS.probes)),)
    return found


def allowance(limit: Limit, running: int, recent: int) -> int:
    """Return how many more attempts a limit lets start now, when so many run and so many started within its period."""
    allowed = []
    if limit.max_running is not None:
        allowed.append(limit.max_running - running)
    if limit.starts is not None:
        allowed.append(limit.starts - recent)
    return min(allowed)


def in_sight(
    chosen: Sequence[Assignment],
    jobs: Sequence[Job],
    limits: Mapping[str, Limits],
    allowances: Mapping[str, int],
    most: int,
) -> list[Assignment]:
    """Leave out what may pass older jobs that nobody saw: of each lane `most` jobs were seen, and those that a key's limit stops hide others.

    Whoever is left out is looked at again at once, when the queues of such keys are set aside: the first that is chosen always goes.
    """
    given = Counter(subject for one in chosen for subject, _ in limits.get(one.job.job_id, ()))
    goes = {one.job.job_id for one in chosen}
    lanes: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        lanes[job.lane_name].append(job)
    last_seen: dict[tuple[str, str | None], int] = {}
    for lane in lanes.values():
        hides = any(
            subject.startswith("key:") and allowances[subject] <= given[subject]
            for job in lane if job.job_id not in goes
            for subject, _ in limits.get(job.job_id, ())
        )  # fmt: skip
        if hides and len(lane) >= most:
            last = max(lane, key=lambda job: job.score)
            tenant = None if last.priority >= CRITICAL else last.tenant  # Critical jobs go before those of all tenants.
            place = (last.pool, tenant)
            last_seen[place] = min(last.score, last_seen.get(place, last.score))
    return [
        one for one in chosen
        if all(one.job.score <= last_seen.get((one.job.pool, tenant), one.job.score) for tenant in (one.job.tenant, None))
    ]  # fmt: skip
