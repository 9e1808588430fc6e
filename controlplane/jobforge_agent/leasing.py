"""What a lease makes of a job and tells its runner: a function of what the policy assigned and the moment. Pure."""

from collections.abc import Sequence

import msgspec

from controlplane.events.header import leased_header
from controlplane.events.identity import Instant
from controlplane.events.types import JobRouted, Producer
from controlplane.jobforge_agent.policy import Assignment
from controlplane.jobforge_agent.state import SECOND, Job, earliest
from controlplane.jobforge_agent.transitions import Phase


def leased(
    assignment: Assignment, attempt_id: str, now: Instant, *, producer: Producer, lease_seconds: float, holds: Sequence[str] = (),
) -> tuple[Job, JobRouted]:  # fmt: skip
    """Return the job as it is under the lease, and the event that gives it to its runner."""
    job, runner_id = assignment.job, assignment.runner_id
    limit = now + job.attempt_timeout_micros if job.attempt_timeout_micros else None
    held = msgspec.structs.replace(
        job, phase=Phase.ROUTED, attempt_id=attempt_id, attempt_number=job.attempt_number + 1, runner_id=runner_id,
        routed_at=now, due_at=earliest(limit, job.deadline), holds=tuple(holds),
    )  # fmt: skip
    routed = JobRouted(
        header=leased_header(job.cause, "JobRouted", attempt_id, producer, now),
        job_id=job.job_id, attempt_id=attempt_id, attempt_number=held.attempt_number, runner_id=runner_id,
        job_type=job.job_type, contract_major=job.contract_major, payload=job.payload, pool=job.pool,
        priority=job.priority, slots=job.slots, job_partition=job.partition, lease_seconds=lease_seconds,
        timeout_seconds=job.attempt_timeout_micros / SECOND if job.attempt_timeout_micros else None,
        queued_at=job.queued_at, reason=assignment.reason, refused=assignment.refused,
    )  # fmt: skip
    return held, routed
