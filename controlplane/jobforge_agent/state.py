"""A job as JobForge sees it, and what follows from it for the schedule."""

from typing import Final

import msgspec

from controlplane.events.header import Cause
from controlplane.events.types import Content, LogPosition, ParentJob, RetryPolicy
from controlplane.jobforge_agent.transitions import CONCLUDED, LEASED, Phase

SECOND: Final = 1_000_000
"""Microseconds."""

PRIORITY_BOOST_MICROS: Final = 30 * SECOND
"""A job of one priority higher goes before jobs that were submitted up to so much earlier: priority, and ageing with it."""

CRITICAL: Final = 9
CRITICAL_BOOST_MICROS: Final = 10**15
"""Critical jobs go before all others, whatever their age (about 31 years)."""


class Job(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Everything that JobForge knows of one job; times are microseconds since 1970."""

    job_id: str
    partition: int
    submission: LogPosition
    submitted_at: int
    """Append time of the submission."""
    correlation_id: str
    tenant: str
    actor: str | None
    job_type: str
    contract_major: int
    pool: str
    priority: int
    payload: Content
    slots: int
    retry: RetryPolicy
    attempt_timeout_micros: int | None
    queue_timeout_micros: int | None
    deadline: int | None
    required_labels: dict[str, str]
    preferred_labels: dict[str, str]
    parent: ParentJob | None
    phase: Phase
    last: LogPosition
    """The last record that moved the job: the cause of what follows next."""
    queued_at: int = 0
    due_at: int | None = None
    """When the timer has to look at the job again."""
    attempt_id: str | None = None
    attempt_number: int = 0
    runner_id: str | None = None
    routed_at: int = 0
    failures: int = 0
    losses: int = 0
    cancel_reason: str | None = None
    concluded_by: LogPosition | None = None
    """The record that led to the conclusion."""

    @property
    def queue(self) -> str:
        """Return the ready queue: jobs that the same runners can take wait together."""
        labels = ",".join(f"{name}={value}" for name, value in sorted(self.required_labels.items()))
        return f"{self.pool}|{self.job_type}|{self.contract_major}|{labels}"

    @property
    def score(self) -> int:
        """Return the place in the queue, fixed at submission: the lowest goes first."""
        boost = CRITICAL_BOOST_MICROS if self.priority >= CRITICAL else self.priority * PRIORITY_BOOST_MICROS
        return self.submitted_at - boost

    @property
    def cause(self) -> Cause:
        """Return the record that last moved the job, as the cause of what time or silence brings."""
        return Cause(position=self.last, correlation_id=self.correlation_id, tenant=self.tenant, actor=self.actor)

    @property
    def leased(self) -> bool:
        """Say whether a runner holds a lease on the job."""
        return self.phase in LEASED

    @property
    def concluded(self) -> bool:
        """Say whether the job is over."""
        return self.phase in CONCLUDED

    def tombstone(self, phase: Phase, cause: LogPosition) -> "Job":
        """Return what is kept of a concluded job: enough to tell repeats from news."""
        return msgspec.structs.replace(
            self, phase=phase, payload=Content(), due_at=None, concluded_by=cause, last=cause
        )


def earliest(*moments: int | None) -> int | None:
    """Return the earliest of the moments that are set."""
    return min((moment for moment in moments if moment is not None), default=None)
