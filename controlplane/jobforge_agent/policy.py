"""Which runner gets which job: one pure function, replaceable by configuration."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from controlplane.events.types import RefusedCandidate
from controlplane.jobforge_agent.state import Job

REFUSALS_KEPT: Final = 8


class Candidate(msgspec.Struct, kw_only=True):
    """A healthy runner as the policy sees it."""

    runner_id: str
    pool: str
    slots: int
    busy: int
    labels: dict[str, str]
    offers: frozenset[tuple[str, int]]
    """(job type, contract major) pairs."""

    @property
    def load(self) -> float:
        """Return the busy part of its slots."""
        return self.busy / self.slots if self.slots else 1.0


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """A job, the runner that it goes to, why, and who was looked at and not chosen."""

    job: Job
    runner_id: str
    reason: str
    refused: tuple[RefusedCandidate, ...]


Policy = Callable[[Sequence[Job], Mapping[str, Candidate]], list[Assignment]]


def refusal(job: Job, runner: Candidate) -> str | None:
    """Return why a runner cannot take a job now, or None."""
    if runner.pool != job.pool:
        return f"serves pool {runner.pool}"
    if (job.job_type, job.contract_major) not in runner.offers:
        return f"does not offer {job.job_type} v{job.contract_major}"
    for name, value in job.required_labels.items():
        if runner.labels.get(name) != value:
            return f"has no label {name}={value}"
    if runner.busy + job.slots > runner.slots:
        return f"full: {runner.busy} of {runner.slots} slots"
    return None


def least_loaded(jobs: Sequence[Job], runners: Mapping[str, Candidate]) -> list[Assignment]:
    """Give each job, in order of its score, to the least loaded runner that can take it; preferred labels decide first.

    `runners` are changed: an assignment makes its runner busier for the jobs that follow.
    """
    assignments = []
    for job in sorted(jobs, key=lambda job: (job.score, job.job_id)):
        able: list[Candidate] = []
        refused: list[RefusedCandidate] = []
        for runner in runners.values():
            why_not = refusal(job, runner)
            if why_not is None:
                able.append(runner)
            elif len(refused) < REFUSALS_KEPT:
                refused.append(RefusedCandidate(runner_id=runner.runner_id, reason=why_not))
        if not able:
            continue
        chosen = min(able, key=lambda runner: (-_preferred(job, runner), runner.load, runner.runner_id))
        reason = f"least loaded of {len(able)}: {chosen.busy} of {chosen.slots} slots busy"
        chosen.busy += job.slots
        assignments.append(Assignment(job=job, runner_id=chosen.runner_id, reason=reason, refused=tuple(refused)))
    return assignments


def _preferred(job: Job, runner: Candidate) -> int:
    return sum(runner.labels.get(name) == value for name, value in job.preferred_labels.items())
