"""Which runner gets which job, and whose turn it is: one pure function, replaceable by configuration."""

import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from controlplane.events.types import RefusedCandidate
from controlplane.jobforge_agent.state import CRITICAL, Job, Lane

REFUSALS_KEPT: Final = 8
LONGEST_REFUSAL_CHARACTERS: Final = 200
"""A longer reason is cut there, and ends in three dots: labels are whatever somebody wrote."""


class Candidate(msgspec.Struct, kw_only=True):
    """A healthy runner as the policy sees it."""

    runner_id: str
    pool: str
    slots: int
    busy: int
    labels: dict[str, str]
    offers: frozenset[tuple[str, int]]
    """(job type, contract major) pairs."""
    pace: float = 1.0
    """How long its attempts take compared with others' of the same job types: 2 is half as fast."""
    on_trial: bool = False
    """Whether it gets one attempt at a time: its circuit breaker is half open."""
    closed_to: str | None = None
    """Why it gets nothing now: its circuit breaker."""

    @property
    def load(self) -> float:
        """Return the busy part of its slots."""
        return self.busy / self.slots if self.slots else 1.0


class Shares(msgspec.Struct, frozen=True, kw_only=True):
    """What tenants had of a pool, in weighted slots; whoever had least is next.

    Source: Goyal, Vin, Cheng, "Start-time Fair Queueing" (SIGCOMM 1996): a tenant that was idle begins at the present turn (`floor`),
    so that it can neither save up its part nor is made to wait for what it did not use.
    """

    floor: float = 0.0
    used: dict[str, float] = {}


class Situation(msgspec.Struct, kw_only=True):
    """Everything that a policy may look at. It owns the values and may change them."""

    jobs: Sequence[Job]
    """Jobs that wait and may be routed; at least the first ones of each queue."""
    runners: dict[str, Candidate]
    shares: Mapping[str, Shares] = {}
    """By pool."""
    weights: Mapping[str, float] = {}
    """By tenant; 1 where there is none."""
    limited_by: Mapping[str, tuple[str, ...]] = {}
    """The subjects whose limits a job counts against, by job id."""
    allowances: dict[str, int] = {}
    """How many more attempts may start now, by subject of a limit."""


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """A job, the runner that it goes to, why, and who was looked at and not chosen."""

    job: Job
    runner_id: str
    reason: str
    refused: tuple[RefusedCandidate, ...]


Policy = Callable[[Situation], list[Assignment]]


def refusal(job: Job, runner: Candidate) -> str | None:
    """Return why a runner cannot take a job now, or None."""
    return unable(job, runner) or runner.closed_to or full(job, runner)


def unable(job: Job, runner: Candidate) -> str | None:
    """Return why a runner can never take a job, or None."""
    if runner.pool != job.pool:
        return f"serves pool {runner.pool}"
    if (job.job_type, job.contract_major) not in runner.offers:
        return f"does not offer {job.job_type} v{job.contract_major}"
    for name, value in job.required_labels.items():
        if runner.labels.get(name) != value:
            return f"has no label {name}={value}"
    if job.slots > runner.slots:
        return f"has {runner.slots} slots, the job takes {job.slots}"
    return None


def full(job: Job | Lane, runner: Candidate) -> str | None:
    """Return why a runner has no room for a job, or those of a lane, now, or None."""
    if runner.on_trial and runner.busy:
        return "is on trial with one attempt: its circuit breaker is half open"
    if runner.busy + job.slots > runner.slots:
        return f"full: {runner.busy} of {runner.slots} slots"
    return None


def least_loaded(situation: Situation) -> list[Assignment]:
    """Give each job, when it is its turn, to the least loaded runner that can take it; preferred labels decide first.

    A job that finds room nowhere keeps its place: the runner that it will fit on first is held for it, so that smaller jobs behind it
    cannot starve it.
    """
    hands = _Hands(situation)
    pools: dict[str, list[Job]] = defaultdict(list)
    for job in situation.jobs:
        pools[job.pool].append(job)
    for pool, jobs in pools.items():
        _take_turns(jobs, situation.shares.get(pool, Shares()), situation.weights, hands)
    return hands.assignments


def _take_turns(jobs: Sequence[Job], shares: Shares, weights: Mapping[str, float], hands: "_Hands") -> None:
    """Offer jobs of one pool in turn: critical ones first, by age; then the oldest of whichever tenant had least."""
    used: dict[str, float] = defaultdict(lambda: shares.floor)
    used.update({tenant: max(had, shares.floor) for tenant, had in shares.used.items()})
    waiting: dict[str, deque[Job]] = defaultdict(deque)
    for job in sorted(jobs, key=lambda job: (job.score, job.job_id)):
        if job.priority < CRITICAL:
            waiting[job.tenant].append(job)
        elif hands.give(job):
            used[job.tenant] += cost(job, weights)
    turns = [(used[tenant], line[0].score, tenant) for tenant, line in waiting.items()]
    heapq.heapify(turns)
    while turns:
        had, _, tenant = heapq.heappop(turns)
        line = waiting[tenant]
        job = line.popleft()
        if hands.give(job):
            had += cost(job, weights)
        if line:
            heapq.heappush(turns, (had, line[0].score, tenant))


def cost(job: Job, weights: Mapping[str, float]) -> float:
    """Return what an attempt of a job takes of its tenant's part."""
    return job.slots / weights.get(job.tenant, 1.0)


class _Hands:
    """Hands out jobs, one after another, and remembers what that leaves."""

    def __init__(self, situation: Situation) -> None:
        self.assignments: list[Assignment] = []
        self._situation = situation
        self._held: set[str] = set()
        self._hopeless: set[tuple[str, int]] = set()

    def give(self, job: Job) -> bool:
        """Assign a job if a limit and a runner allow it."""
        situation = self._situation
        subjects = situation.limited_by.get(job.job_id, ())
        if any(situation.allowances.get(subject, 1) <= 0 for subject in subjects):
            return False
        kind = (job.queue, job.slots)
        if kind in self._hopeless:
            return False
        able = list(self._able(job))
        free = [runner for runner in able if full(job, runner) is None and runner.runner_id not in self._held]
        if not free:
            self._hopeless.add(kind)
            if able:
                self._held.add(min(able, key=lambda runner: (runner.load, runner.runner_id)).runner_id)
            return False
        chosen = min(free, key=lambda one: (-_preferred(job, one), one.load * one.pace, one.pace, one.runner_id))
        reason = f"least loaded of {len(free)}: {chosen.busy} of {chosen.slots} slots busy"
        self.assignments.append(
            Assignment(job=job, runner_id=chosen.runner_id, reason=reason, refused=tuple(self._refused(job, free)))
        )
        chosen.busy += job.slots
        for subject in subjects:
            if subject in situation.allowances:
                situation.allowances[subject] -= 1
        return True

    def _able(self, job: Job) -> Iterator[Candidate]:
        for runner in self._situation.runners.values():
            if runner.closed_to is None and unable(job, runner) is None:
                yield runner

    def _refused(self, job: Job, free: Sequence[Candidate]) -> Iterator[RefusedCandidate]:
        chosen_from = {runner.runner_id for runner in free}
        left = REFUSALS_KEPT
        for runner in self._situation.runners.values():
            if left and runner.runner_id not in chosen_from:
                left -= 1
                reason = refusal(job, runner) or "held for an older job that needs more room"
                yield RefusedCandidate(runner_id=runner.runner_id, reason=cut(reason))


def cut(reason: str) -> str:
    """Return a reason of bounded length; three dots say that more was said."""
    return reason if len(reason) <= LONGEST_REFUSAL_CHARACTERS else reason[: LONGEST_REFUSAL_CHARACTERS - 3] + "..."


def _preferred(job: Job, runner: Candidate) -> int:
    return sum(runner.labels.get(name) == value for name, value in job.preferred_labels.items())
