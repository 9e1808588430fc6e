"""Recorded work played again in simulated time: the shipped policy, queue rules, limits and fairness; no store, no log, no clock.

What a replay knows better than a live router: nothing. It sees jobs when they were submitted, runners while they were there, limits and
breakers as they were declared. What it assumes: an attempt ends as it did, after as long as it took, scaled by how fast the other
runner was.
"""

import heapq
from bisect import insort
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import msgspec

from controlplane.events.controls import Controls, Limit
from controlplane.events.header import Cause
from controlplane.events.identity import Instant
from controlplane.events.job_contracts import Registry
from controlplane.events.types import Producer
from controlplane.jobforge_agent import rules
from controlplane.jobforge_agent.decide import Context, new_job, queued
from controlplane.jobforge_agent.paces import Paces
from controlplane.jobforge_agent.policy import Assignment, Policy, Shares, Situation, cost
from controlplane.jobforge_agent.state import SECOND, Job
from controlplane.jobforge_agent.transitions import WAITING, Phase
from controlplane.jobforge_agent.whatif.scenario import Decided, Presence, RecordedJob, Scenario

PRODUCER: Final = Producer(service="jobforge", version="what-if")
ROUNDS_LIMIT: Final = 10_000


class PolicyEndless(RuntimeError):
    """Expected a policy that comes to an end, but it goes on assigning jobs at one moment."""


class Run(msgspec.Struct, kw_only=True):
    """What came of a replay."""

    decided: list[Decided] = []
    jobs: dict[str, Job] = {}
    """Every job as it was submitted."""
    first_waits: dict[str, int] = {}
    """Microseconds from when a job was ready until its first attempt."""
    concluded: dict[str, int] = {}
    busy: dict[str, int] = {}
    """Slot-microseconds that were used, by runner name."""
    offered: dict[str, int] = {}
    """Slot-microseconds that were there."""
    depth: list[tuple[int, int]] = []
    """How many jobs waited, from each moment on."""
    refused: int = 0
    """Assignments of the policy that the rules did not allow."""
    ends: int = 0


class _Leased(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt under way."""

    runner_id: str
    subjects: tuple[str, ...]
    since: int
    number: int


def replay(scenario: Scenario, policy: Policy) -> Run:
    """Play a scenario under a policy; the same again gives the same.

    Raises:
        PolicyEndless: the policy never comes to an end.
    """
    return _Replay(scenario, policy).run()


class _Replay:
    """One replay while it runs."""

    def __init__(self, scenario: Scenario, policy: Policy) -> None:
        self._scenario = scenario
        self._policy = policy
        self._recorded = {job.submitted.job_id: job for job in scenario.jobs}
        registered = {one.runner.runner_id: one.runner for one in scenario.presences}
        self._registry = Registry(registered)
        self._names = {runner_id: runner.name for runner_id, runner in registered.items()}
        self._result = Run()
        self._controls = Controls()
        self._paces = Paces()
        self._jobs: dict[str, Job] = {}
        self._leases: dict[str, _Leased] = {}
        self._queues: dict[str, list[tuple[int, str]]] = {}
        self._present: dict[str, Presence] = {}
        self._taking: dict[str, Presence] = {}
        self._offers: dict[str, rules.Offers] = {}
        self._busy: dict[str, int] = defaultdict(int)
        self._running: dict[str, int] = defaultdict(int)
        self._starts: dict[str, deque[int]] = defaultdict(deque)
        self._floors: dict[str, float] = defaultdict(float)
        self._used: dict[str, dict[str, float]] = defaultdict(dict)
        self._tried: dict[str, int] = defaultdict(int)
        self._lost: dict[str, int] = defaultdict(int)
        self._looks: set[int] = set()
        self._waiting = 0
        self._now = scenario.begin
        self._order = 0
        self._due: list[tuple[int, int, int, partial[None]]] = []

    def run(self) -> Run:
        """Let everything happen in its order, and hand jobs out after each moment."""
        for at, event in self._scenario.controls:
            self._at(at, 0, self._controls.take, event)
        for presence in self._scenario.presences:
            self._at(presence.begin, 1, self._joins, presence)
        for one in self._scenario.occupied:
            self._at(max(one.begin, self._scenario.begin), 2, self._occupy, one.runner_id, one.slots)
            self._at(one.end, 3, self._occupy, one.runner_id, -one.slots)
        for job in self._scenario.jobs:
            self._at(job.at, 4, self._submitted, job)
            if job.cancelled_at is not None:
                self._at(job.cancelled_at, 4, self._cancelled, job.submitted.job_id)
        while self._due:
            self._now = max(self._now, self._due[0][0])
            while self._due and self._due[0][0] <= self._now:
                heapq.heappop(self._due)[3]()
            self._route()
            if not self._result.depth or self._result.depth[-1][1] != self._waiting:
                self._result.depth.append((self._now, self._waiting))
        return self._ended()

    def _ended(self) -> Run:
        result = self._result
        result.ends = max([self._scenario.begin, *result.concluded.values()])
        for presence in self._scenario.presences:
            begin, end = max(presence.begin, self._scenario.begin), min(presence.end or result.ends, result.ends)
            name = presence.runner.name
            result.offered[name] = result.offered.get(name, 0) + presence.runner.slots * max(0, end - begin)
        return result

    def _at(self, moment: int, rank: int, happens: Callable[..., None], *arguments: Any) -> None:
        """Let something happen; at one moment, what makes room comes before what wants it."""
        self._order += 1
        heapq.heappush(self._due, (moment, rank, self._order, partial(happens, *arguments)))

    # Runners

    def _joins(self, presence: Presence) -> None:
        runner_id = presence.runner.runner_id
        self._present[runner_id] = self._taking[runner_id] = presence
        self._offers[runner_id] = rules.offers(presence.runner)
        if presence.drained_at is not None:
            self._at(presence.drained_at, 1, self._drains, runner_id)
        if presence.end is not None:
            self._at(presence.end, 1, self._leaves, runner_id)

    def _drains(self, runner_id: str) -> None:
        self._taking.pop(runner_id, None)

    def _leaves(self, runner_id: str) -> None:
        self._taking.pop(runner_id, None)
        self._present.pop(runner_id, None)
        for job_id in [name for name, lease in self._leases.items() if lease.runner_id == runner_id]:
            job = self._release(job_id)
            self._lost[job_id] += 1
            if self._lost[job_id] > job.retry.max_lost_attempts:
                self._conclude(job_id)
            else:
                self._queue(job)

    def _occupy(self, runner_id: str, slots: int) -> None:
        self._busy[runner_id] += slots

    # Jobs

    def _submitted(self, recorded: RecordedJob) -> None:
        event = recorded.submitted
        cause = Cause(
            position=recorded.position, correlation_id=event.header.correlation_id, tenant=event.header.tenant
        )
        context = Context(
            cause=cause, now=Instant(recorded.at), registry=self._registry, producer=PRODUCER,
            partition=recorded.position.partition,
        )  # fmt: skip
        job = self._result.jobs[event.job_id] = new_job(event, context)
        if job.phase is Phase.DELAYED:
            self._jobs[job.job_id] = job
            self._at(job.due_at or self._now, 4, self._ready, job.job_id)
        else:
            self._queue(job)

    def _queue(self, job: Job) -> None:
        """Put a job into its queue, and look at it when its time to wait is over."""
        job = self._jobs[job.job_id] = queued(job, self._now)
        insort(self._queues.setdefault(job.queue, []), (job.score, job.job_id))
        self._waiting += 1
        if job.due_at is not None:
            self._at(job.due_at, 4, self._waited_too_long, job.job_id, job.queued_at)

    def _ready(self, job_id: str) -> None:
        job = self._jobs.get(job_id)
        if job is not None and job.phase in WAITING and job.phase is not Phase.QUEUED:
            if job.deadline is not None and job.deadline <= self._now:
                self._conclude(job_id)
            else:
                self._queue(job)

    def _waited_too_long(self, job_id: str, queued_at: int) -> None:
        job = self._jobs.get(job_id)
        if job is not None and job.phase is Phase.QUEUED and job.queued_at == queued_at:
            self._unqueue(job)
            self._conclude(job_id)

    def _unqueue(self, job: Job) -> None:
        line = self._queues[job.queue]
        line.remove((job.score, job.job_id))
        if not line:
            del self._queues[job.queue]
        self._waiting -= 1

    def _cancelled(self, job_id: str) -> None:
        job = self._jobs.get(job_id)
        if job is None:
            return
        if job.phase is Phase.QUEUED:
            self._unqueue(job)
        elif job_id in self._leases:
            self._release(job_id)
        self._conclude(job_id)

    def _conclude(self, job_id: str) -> None:
        self._jobs.pop(job_id, None)
        self._result.concluded[job_id] = self._now

    # Attempts

    def _release(self, job_id: str) -> Job:
        lease, job = self._leases.pop(job_id), self._jobs[job_id]
        self._busy[lease.runner_id] -= job.slots
        for subject in lease.subjects:
            self._running[subject] -= 1
        name = self._names[lease.runner_id]
        used = job.slots * (self._now - lease.since)
        self._result.busy[name] = self._result.busy.get(name, 0) + used
        return job

    def _attempt_ends(self, job_id: str, number: int) -> None:
        lease = self._leases.get(job_id)
        if lease is None or lease.number != number:
            return  # It was lost or cancelled meanwhile.
        job, recorded, place = self._release(job_id), self._recorded[job_id], self._tried[job_id]
        self._tried[job_id] += 1
        attempt = recorded.attempts[place] if place < len(recorded.attempts) else None
        if attempt is None or attempt.succeeded:
            self._paces.take(lease.runner_id, job.job_type, self._now - lease.since)
            self._conclude(job_id)
        elif attempt.retry_micros is None:
            self._conclude(job_id)
        else:
            self._jobs[job_id] = msgspec.structs.replace(job, phase=Phase.RETRYING)
            self._at(self._now + attempt.retry_micros, 4, self._ready, job_id)

    # Handing out

    def _route(self) -> None:
        for _ in range(ROUNDS_LIMIT):
            if not (self._queues and self._taking) or not self._round():
                return
        raise PolicyEndless(str(PolicyEndless.__doc__))

    def _round(self) -> int:
        """Ask the policy once, and let happen what the rules allow; returns how much that was."""
        runners = {name: self._taking[name].runner for name in sorted(self._taking)}
        free = sum(max(0, runner.slots - self._busy[name]) for name, runner in runners.items())
        jobs = list(self._first_jobs(runners, min(rules.LOOK_AT_ONCE, free))) if free else []
        if not jobs:
            return 0
        limits = {job.job_id: found for job in jobs if (found := rules.limits_of(job, self._controls))}
        every = {subject: limit for found in limits.values() for subject, limit in found}
        situation = Situation(
            jobs=jobs,
            runners={
                name: rules.candidate(
                    runner, self._offers[name], self._controls, busy=self._busy[name], pace=self._paces.of(name)
                )
                for name, runner in runners.items()
            },
            shares={pool: Shares(floor=self._floors[pool], used=dict(used)) for pool, used in self._used.items()},
            weights=dict(self._controls.weights),
            limited_by={name: tuple(subject for subject, _ in found) for name, found in limits.items()},
            allowances={subject: self._allowance(subject, limit) for subject, limit in every.items()},
        )  # fmt: skip
        return sum(self._claimed(one, limits.get(one.job.job_id, ())) for one in self._policy(situation))

    def _first_jobs(self, runners: dict[str, Any], most: int) -> Iterator[Job]:
        """Yield the first jobs of each queue that may be routed, in the order of the queues' names."""
        for queue in sorted(self._queues):
            if rules.may_route(rules.lane_of(queue), self._controls, runners, self._offers):
                for _, job_id in self._queues[queue][:most]:
                    yield self._jobs[job_id]

    def _allowance(self, subject: str, limit: Limit) -> int:
        starts = self._starts[subject]
        while starts and starts[0] <= self._now - int(limit.period_seconds * SECOND):
            starts.popleft()
        if limit.starts is not None and len(starts) >= limit.starts:
            self._look_again(starts[0] + int(limit.period_seconds * SECOND))
        return rules.allowance(limit, self._running[subject], len(starts))

    def _look_again(self, moment: int) -> None:
        if moment not in self._looks:
            self._looks.add(moment)
            self._at(moment, 4, self._looks.discard, moment)

    def _claimed(self, one: Assignment, limits: rules.Limits) -> bool:
        """Lease a job if it still waits, the runner has the slots, and no limit is reached: as the store does."""
        job, presence = self._jobs.get(one.job.job_id), self._taking.get(one.runner_id)
        fits = (
            presence is not None and job is not None and self._busy[one.runner_id] + job.slots <= presence.runner.slots
        )
        if (
            job is None or presence is None or not fits or job.phase is not Phase.QUEUED
            or any(self._allowance(subject, limit) <= 0 for subject, limit in limits)
        ):  # fmt: skip
            self._result.refused += 1
            return False
        self._unqueue(job)
        number = job.attempt_number + 1
        self._result.first_waits.setdefault(job.job_id, self._now - job.queued_at)
        self._jobs[job.job_id] = msgspec.structs.replace(
            job, phase=Phase.ROUTED, attempt_number=number, runner_id=one.runner_id, routed_at=self._now
        )
        self._busy[one.runner_id] += job.slots
        subjects = tuple(subject for subject, _ in limits)
        for subject, limit in limits:
            self._running[subject] += 1
            if limit.starts is not None:
                self._starts[subject].append(self._now)
        self._charge(job)
        lease = _Leased(runner_id=one.runner_id, subjects=subjects, since=self._now, number=number)
        self._leases[job.job_id] = lease
        name = presence.runner.name
        took = self._scenario.micros_on(self._recorded[job.job_id], self._tried[job.job_id], name)
        self._at(self._now + max(1, took), 3, self._attempt_ends, job.job_id, number)
        self._result.decided.append(
            Decided(
                job_id=job.job_id, attempt_number=number, runner_id=one.runner_id, runner_name=name, at=self._now,
                reason=one.reason,
            )
        )  # fmt: skip
        return True

    def _charge(self, job: Job) -> None:
        """Move a tenant's turn on, as the store does: from where it stood, or from the present turn if that is later."""
        used = self._used[job.pool]
        start = max(self._floors[job.pool], used.get(job.tenant, 0.0))
        self._floors[job.pool] = start
        used[job.tenant] = start + cost(job, self._controls.weights)
        for tenant in [name for name, had in used.items() if had <= start]:
            del used[tenant]
