"""The events that a runner writes about an attempt: functions of the routing record, what happened, and the time.

Each is caused by the record that leased the job to this runner, so its id follows from it: telling twice is telling once.
"""

import msgspec

from controlplane.api.models import JobRequest
from controlplane.api.submissions import job_submitted
from controlplane.events.header import Cause, caused_header, outside_header
from controlplane.events.identity import Instant
from controlplane.events.types import (
    AttemptCancelled,
    AttemptFailed,
    AttemptProgressed,
    AttemptStarted,
    AttemptSucceeded,
    Claim,
    Content,
    ErrorEnvelope,
    JobLogged,
    JobRouted,
    JobSubmitted,
    LogLine,
    LogPosition,
    ParentJob,
    Producer,
)
from controlplane.runner.reports import JobFacts, Progressed, Submitted


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """What the observations of one attempt have in common."""

    facts: JobFacts
    cause: Cause
    runner_id: str
    runner_name: str
    producer: Producer


def lease_of(routed: JobRouted, position: LogPosition, runner_name: str, producer: Producer) -> Lease:
    """Return the lease that a routing record gives."""
    header = routed.header
    facts = JobFacts(
        job_id=routed.job_id, job_type=routed.job_type, attempt_id=routed.attempt_id, attempt_number=routed.attempt_number,
        correlation_id=header.correlation_id, tenant=header.tenant, pool=routed.pool, priority=routed.priority,
    )  # fmt: skip
    cause = Cause(position=position, correlation_id=header.correlation_id, tenant=header.tenant, actor=header.actor)
    return Lease(facts=facts, cause=cause, runner_id=routed.runner_id, runner_name=runner_name, producer=producer)


def started(lease: Lease, now: Instant) -> AttemptStarted:
    """Return: the handler begins."""
    facts = lease.facts
    return AttemptStarted(
        header=caused_header(lease.cause, "AttemptStarted", 0, lease.producer, now),
        job_id=facts.job_id, attempt_id=facts.attempt_id, attempt_number=facts.attempt_number, runner_id=lease.runner_id,
    )  # fmt: skip


def progressed(lease: Lease, report: Progressed, ordinal: int, now: Instant) -> AttemptProgressed:
    """Return: so much is done."""
    facts = lease.facts
    return AttemptProgressed(
        header=caused_header(lease.cause, "AttemptProgressed", ordinal, lease.producer, now),
        job_id=facts.job_id, attempt_id=facts.attempt_id, attempt_number=facts.attempt_number, runner_id=lease.runner_id,
        fraction=report.fraction, message=report.message,
    )  # fmt: skip


def succeeded(
    lease: Lease, result: Content, claims: tuple[Claim, ...], capability: str, duration_micros: int, now: Instant
) -> AttemptSucceeded:
    """Return: the handler returned."""
    facts = lease.facts
    return AttemptSucceeded(
        header=caused_header(lease.cause, "AttemptSucceeded", 0, lease.producer, now),
        job_id=facts.job_id, attempt_id=facts.attempt_id, attempt_number=facts.attempt_number, runner_id=lease.runner_id,
        result=result, claims=claims, capability=capability, runner_name=lease.runner_name, duration_micros=duration_micros,
    )  # fmt: skip


def failed(lease: Lease, error: ErrorEnvelope, duration_micros: int, now: Instant) -> AttemptFailed:
    """Return: the handler failed, or could not begin."""
    facts = lease.facts
    return AttemptFailed(
        header=caused_header(lease.cause, "AttemptFailed", 0, lease.producer, now),
        job_id=facts.job_id, attempt_id=facts.attempt_id, attempt_number=facts.attempt_number, runner_id=lease.runner_id,
        error=error, duration_micros=duration_micros,
    )  # fmt: skip


def cancelled(lease: Lease, reason: str, duration_micros: int, now: Instant) -> AttemptCancelled:
    """Return: the handler stopped because it was asked to."""
    facts = lease.facts
    return AttemptCancelled(
        header=caused_header(lease.cause, "AttemptCancelled", 0, lease.producer, now),
        job_id=facts.job_id, attempt_id=facts.attempt_id, attempt_number=facts.attempt_number, runner_id=lease.runner_id,
        reason=reason, duration_micros=duration_micros,
    )  # fmt: skip


def logged(lease: Lease, lines: tuple[LogLine, ...], dropped: int, ordinal: int, now: Instant) -> JobLogged:
    """Return: the handler logged these lines."""
    return JobLogged(
        header=caused_header(lease.cause, "JobLogged", ordinal, lease.producer, now),
        job_id=lease.facts.job_id, attempt_id=lease.facts.attempt_id, lines=lines, dropped=dropped,
    )  # fmt: skip


def child_submitted(lease: Lease, report: Submitted, payload: Content, now: Instant) -> JobSubmitted:
    """Return: the handler submits a child job; its event id follows from the child's id, whichever attempt submits it."""
    header = outside_header(
        "JobSubmitted", report.job_id, lease.producer, now, correlation_id=lease.cause.correlation_id,
        tenant=lease.cause.tenant, actor=lease.cause.actor, causation=lease.cause.position,
    )  # fmt: skip
    parent = ParentJob(job_id=lease.facts.job_id, attempt_id=lease.facts.attempt_id)
    request = JobRequest.model_validate_json(report.request)
    return job_submitted(request, job_id=report.job_id, payload=payload, header=header, parent=parent)
