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


BY_TIME: Final = "time"
"""Scope of a cause: what time or silence brings is told apart from what the record brought that last moved the job."""

QUEUE_SEPARATOR: Final = "\n"
"""Stands between the lane and the keys in the name of a queue; JSON never has it inside."""

_json = msgspec.json.encode


class Lane(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What decides which runners can take a job, and whose turn it is."""

    pool: str
    job_type: str
    contract_major: int
    tenant: str
    labels: tuple[tuple[str, str], ...] = ()
    slots: int = 1
    """One that takes more room than there is must not hide the smaller ones behind it."""


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
    """The record that led to the conclusion; none where time or silence did."""
    concurrency_key: str | None = None
    rate_key: str | None = None
    schedule_id: str | None = None
    holds: tuple[str, ...] = ()
    """What it counts against while it is leased: subjects of limits."""
    tree_cancelled: bool = False
    """Cancelled with all its children, also those that come later."""
    retried_as: str | None = None
    """The job that does its work again."""
    trace: str | None = None
    """The span in which it was last moved, as a `traceparent`, while it is traced."""

    @property
    def lane(self) -> Lane:
        """Return the lane: jobs of one tenant that the same runners can take."""
        labels = tuple(sorted(self.required_labels.items()))
        return Lane(
            pool=self.pool,
            job_type=self.job_type,
            contract_major=self.contract_major,
            tenant=self.tenant,
            labels=labels,
            slots=self.slots,
        )

    @property
    def queue(self) -> str:
        """Return the ready queue: jobs of a lane under the same keys, which a limit stops or lets go together."""
        if self.concurrency_key is None and self.rate_key is None:
            return self.lane_name + QUEUE_SEPARATOR
        return self.lane_name + QUEUE_SEPARATOR + _json((self.concurrency_key, self.rate_key)).decode()

    @property
    def lane_name(self) -> str:
        """Return the name of its lane."""
        return _json(self.lane).decode()

    @property
    def score(self) -> int:
        """Return the place in the queue, fixed at submission: the lowest goes first."""
        boost = CRITICAL_BOOST_MICROS if self.priority >= CRITICAL else self.priority * PRIORITY_BOOST_MICROS
        return self.submitted_at - boost

    @property
    def cause(self) -> Cause:
        """Return the record that last moved the job, as the cause of what time or silence brings."""
        return Cause(
            position=self.last, correlation_id=self.correlation_id, tenant=self.tenant, actor=self.actor, scope=BY_TIME
        )

    @property
    def leased(self) -> bool:
        """Say whether a runner holds a lease on the job."""
        return self.phase in LEASED

    @property
    def concluded(self) -> bool:
        """Say whether the job is over."""
        return self.phase in CONCLUDED

    def tombstone(self, phase: Phase, cause: LogPosition | None) -> "Job":
        """Return what is kept of a concluded job: enough to tell repeats from news. `cause`: the record that led to it, if one did."""
        return msgspec.structs.replace(
            self, phase=phase, payload=Content(), due_at=None, concluded_by=cause, last=cause or self.last, holds=()
        )


def earliest(*moments: int | None) -> int | None:
    """Return the earliest of the moments that are set."""
    return min((moment for moment in moments if moment is not None), default=None)
