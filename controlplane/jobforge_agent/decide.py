"""What follows from a record or a moment, for one job: pure functions of the job, the event and the time.

Each returns a `Decision`: the events to publish and the job as it then is. A refusal is an event, too.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from controlplane.events import types
from controlplane.events.errors import envelope
from controlplane.events.header import Cause, caused_header, leased_header
from controlplane.events.identity import Instant, name_based_id
from controlplane.events.job_contracts import Registry
from controlplane.events.sizes import LONGEST_TEXT_CHARACTERS
from controlplane.events.types import ErrorEnvelope, LogPosition, Producer
from controlplane.jobforge_agent.breakers import failed, lost_with, succeeded
from controlplane.jobforge_agent.options import LONGEST_SECONDS, impossible
from controlplane.jobforge_agent.outcome import claimed_truths, outcome_truth
from controlplane.jobforge_agent.retry import backoff_micros, will_retry
from controlplane.jobforge_agent.state import BY_TIME, SECOND, Job, earliest
from controlplane.jobforge_agent.transitions import WAITING, Phase


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What JobForge decided about one job."""

    job: Job | None
    events: tuple[msgspec.Struct, ...] = ()
    observed: tuple[tuple[str, bool], ...] = ()
    """What circuit breakers learn: a destination, and whether it did its part."""


class Related(msgspec.Struct, frozen=True, kw_only=True):
    """What commands about a job need to know besides it; read before they are decided."""

    children: dict[str, tuple[str, ...]] = {}
    """Unfinished child jobs, by job that is to be cancelled with its tree."""
    parents: dict[str, Job] = {}
    """Jobs whose attempts submitted some of the jobs."""
    cancelled_trees: frozenset[str] = frozenset()
    """Of the parents, those that are being cancelled with their children, by whichever instance."""
    standing: tuple[str, ...] = ()
    """The other parents: what is decided holds while they stay so."""
    originals: dict[str, types.JobSubmitted] = {}
    """The submissions of concluded jobs whose work is to be done again."""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision may look at besides its job: the consumed record's place, the time, and what runners offer."""

    cause: Cause
    now: Instant
    """Append time of the record, or the moment that a timer fired."""
    registry: Registry
    producer: Producer
    partition: int
    related: Related = Related()
    batch: Mapping[str, Job] = {}
    """Jobs as the records before this one, of all partitions, made them."""

    def tree_cancelled(self, job_id: str) -> bool:
        """Say whether a job is cancelled with its children."""
        job = self.batch.get(job_id) or self.related.parents.get(job_id)
        return job_id in self.related.cancelled_trees or (job is not None and job.tree_cancelled)


DEFAULT_RETRY: Final = types.RetryPolicy()
_replace = msgspec.structs.replace


def error_id(context: Context, name: str) -> str:
    """Return the id of a refusal: the same whenever it is decided again."""
    return name_based_id(f"{context.cause.name}/{name}/error")


def on_submitted(job: Job | None, event: types.JobSubmitted, context: Context) -> Decision:
    """Accept a new job into the queue, or reject it; a repeated submission is the same job and changes nothing."""
    if job is not None:
        return Decision(job=job)
    identity = error_id(context, "JobRejected")
    refusal = context.registry.refusal(event.job_type, event.contract_major, event.payload, identity)
    if (unfit := impossible(event, identity)) is not None:
        # What it asks for cannot be stored either: it is remembered without.
        event = _replace(event, retry=None, timeouts=None, slots=None, priority=0, deadline=None)
        refusal, event = unfit, _replace(event, required_labels={}, preferred_labels={})
    fresh = new_job(event, context)
    if refusal is not None:
        header = caused_header(context.cause, "JobRejected", 0, context.producer, context.now)
        rejected = types.JobRejected(header=header, job_id=event.job_id, job_type=event.job_type, error=refusal)
        truth = outcome_truth(fresh, "rejected", context.cause, context.producer, context.now)
        return Decision(job=fresh.tombstone(Phase.REJECTED, context.cause.position), events=(rejected, truth))
    accepted = types.JobAccepted(
        header=caused_header(context.cause, "JobAccepted", 0, context.producer, context.now),
        job_id=event.job_id, job_type=event.job_type, pool=event.pool, priority=event.priority, not_before=event.not_before,
    )  # fmt: skip
    # Whoever asks for a cancelled child to be done again knows what became of its parent.
    if event.parent and not event.retry_of and context.tree_cancelled(event.parent.job_id):
        rest = cancelled(fresh, f"Its parent {event.parent.job_id} was cancelled with its children.", context)
        return Decision(job=rest.job and _replace(rest.job, tree_cancelled=True), events=(accepted, *rest.events))
    return Decision(job=fresh, events=(accepted,))


def new_job(event: types.JobSubmitted, context: Context) -> Job:
    """Return the job of a submission: waiting for its time, or in its queue; unset options are the capability's."""
    contract = context.registry.contract(event.job_type, event.contract_major)
    capability = contract.capability if contract else None
    limits = event.timeouts or types.Timeouts()
    attempt_seconds = limits.attempt_seconds or (capability.timeout_seconds if capability else None)
    total = context.now + int(limits.total_seconds * SECOND) if limits.total_seconds else None
    job = Job(
        job_id=event.job_id, partition=context.partition, submission=context.cause.position, submitted_at=context.now,
        correlation_id=event.header.correlation_id, tenant=event.header.tenant, actor=event.header.actor,
        job_type=event.job_type, contract_major=event.contract_major, pool=event.pool, priority=event.priority,
        payload=event.payload, slots=event.slots or (capability.slots if capability else 1),
        retry=_retries(event.retry, capability.retry if capability else None),
        attempt_timeout_micros=int(attempt_seconds * SECOND) if attempt_seconds else None,
        queue_timeout_micros=int(limits.queue_seconds * SECOND) if limits.queue_seconds else None,
        deadline=earliest(event.deadline, total), required_labels=event.required_labels,
        preferred_labels=event.preferred_labels, parent=event.parent, phase=Phase.DELAYED, last=context.cause.position,
        concurrency_key=event.concurrency_key, rate_key=event.rate_key, schedule_id=event.schedule_id,
    )  # fmt: skip
    if event.not_before is not None and event.not_before > context.now:
        return _replace(job, due_at=earliest(event.not_before, job.deadline))
    return queued(job, context.now)


def _retries(asked: types.RetryPolicy | None, usual: types.RetryPolicy | None) -> types.RetryPolicy:
    """Return the policy of a job: what its type's author forbids to repeat, nobody else allows."""
    if asked is None or usual is None:
        return asked or usual or DEFAULT_RETRY
    return _replace(asked, never_retry=tuple(dict.fromkeys((*asked.never_retry, *usual.never_retry))))


def queued(job: Job, now: int) -> Job:
    """Return the job in its ready queue."""
    first = job.attempt_number == 0
    limit = now + job.queue_timeout_micros if job.queue_timeout_micros and first else None
    return _replace(
        job,
        phase=Phase.QUEUED,
        queued_at=now,
        due_at=earliest(limit, job.deadline),
        attempt_id=None,
        runner_id=None,
        holds=(),
    )


def _refused(job: Job, observation: Any, context: Context) -> Decision:
    expected = f"the lease {job.attempt_id}" if job.leased else f"no observation, because it is {job.phase}"
    error = envelope(
        "lease_stale", f"Expected {expected} of job {job.job_id}, but found an observation under {observation.attempt_id}.",
        error_id=error_id(context, "ObservationRefused"), field="attempt_id", expected=job.attempt_id, found=observation.attempt_id,
    )  # fmt: skip
    refused = types.ObservationRefused(
        # What was found is part of the identity: after a fold the same record may find another state.
        header=caused_header(
            context.cause, f"ObservationRefused/{job.phase}/{job.attempt_id}", 0, context.producer, context.now
        ),
        job_id=job.job_id, attempt_id=observation.attempt_id, observation=type(observation).__name__, error=error,
    )  # fmt: skip
    return Decision(job=job, events=(refused,))


def _holds(job: Job, event: Any) -> bool:
    return job.leased and job.attempt_id == event.attempt_id


def is_repeat(job: Job, context: Context) -> bool:
    """Say whether a record was accounted for before: it stands at or before the last one that moved the job."""
    position, last = context.cause.position, job.last
    return position.topic == last.topic and position.offset <= last.offset


def on_started(job: Job, event: types.AttemptStarted, context: Context) -> Decision:
    """Note that the runner has the job in hand."""
    if not _holds(job, event):
        return _refused(job, event, context)
    return Decision(job=_replace(job, phase=Phase.RUNNING, last=context.cause.position))


def on_progressed(job: Job, event: types.AttemptProgressed, context: Context) -> Decision:
    """Leave the job as it is: progress is for those who look."""
    return Decision(job=job) if _holds(job, event) else _refused(job, event, context)


def on_succeeded(job: Job, event: types.AttemptSucceeded, context: Context) -> Decision:
    """Conclude the job as completed, with its outcome and its handler's claims; only the lease's holder can."""
    repeated = job.concluded_by == context.cause.position and job.phase is Phase.COMPLETED
    if not _holds(job, event) and not repeated:
        return _refused(job, event, context)
    completed = types.JobCompleted(
        header=caused_header(context.cause, "JobCompleted", 0, context.producer, context.now),
        job_id=job.job_id, attempt_id=event.attempt_id, attempt_number=event.attempt_number,
        runner_id=event.runner_id, result=event.result,
    )  # fmt: skip
    truths = (
        outcome_truth(job, "completed", context.cause, context.producer, context.now),
        *claimed_truths(job, event, context.cause, context.producer, context.now),
    )
    return Decision(
        job=job.tombstone(Phase.COMPLETED, context.cause.position), events=(completed, *truths),
        observed=succeeded(job.job_type, event.runner_id) if not repeated else (),
    )  # fmt: skip


def on_failed(job: Job, event: types.AttemptFailed, context: Context) -> Decision:
    """Retry with backoff while attempts remain and the error is retryable; otherwise conclude the job as failed."""
    repeated = job.concluded_by == context.cause.position and job.phase is Phase.FAILED
    if not _holds(job, event) and not repeated:
        return _refused(job, event, context)
    if job.cancel_reason is not None and not repeated:
        return cancelled(job, job.cancel_reason, context)
    if repeated:
        return _failed(job, event.error, context)
    observed = failed(job.job_type, event.runner_id, event.error.category)
    if not will_retry(job, event.error):
        return _replace(_failed(job, event.error, context), observed=observed)
    failures = job.failures + 1
    delay = backoff_micros(job.retry, failures, event.attempt_id)
    asked = event.error.retry_after_seconds
    if asked is not None and asked > 0:  # It may be no number: not every runner is of our making.
        delay = max(delay, int(min(asked, LONGEST_SECONDS) * SECOND))
    header = caused_header(context.cause, "JobRetryScheduled", 0, context.producer, context.now)
    rest = _retry(_replace(job, failures=failures), event.error, delay, header, context)
    return _replace(rest, observed=observed)


def _concluded_by(context: Context) -> LogPosition | None:
    return None if context.cause.scope == BY_TIME else context.cause.position


def _retry(job: Job, error: ErrorEnvelope, delay_micros: int, header: types.EventHeader, context: Context) -> Decision:
    due = context.now + delay_micros
    scheduled = types.JobRetryScheduled(
        header=header, job_id=job.job_id, attempt_id=job.attempt_id or "", attempt_number=job.attempt_number,
        runner_id=job.runner_id or "", error=error, due_at=due,
    )  # fmt: skip
    waiting = _replace(
        job, phase=Phase.RETRYING, due_at=earliest(due, job.deadline), last=context.cause.position, queued_at=due
    )
    return Decision(job=waiting, events=(scheduled,))


def _failed(job: Job, error: ErrorEnvelope, context: Context) -> Decision:
    failed = types.JobFailed(
        header=caused_header(context.cause, "JobFailed", 0, context.producer, context.now),
        job_id=job.job_id, attempt_id=job.attempt_id, attempt_number=job.attempt_number, runner_id=job.runner_id, error=error,
    )  # fmt: skip
    truth = outcome_truth(job, "failed", context.cause, context.producer, context.now)
    return Decision(job=job.tombstone(Phase.FAILED, _concluded_by(context)), events=(failed, truth))


def cancelled(job: Job, reason: str, context: Context) -> Decision:
    """Conclude the job as cancelled."""
    event = types.JobCancelled(
        header=caused_header(context.cause, "JobCancelled", 0, context.producer, context.now), job_id=job.job_id,
        attempt_id=job.attempt_id, attempt_number=job.attempt_number, reason=reason[:LONGEST_TEXT_CHARACTERS],
    )  # fmt: skip
    truth = outcome_truth(job, "cancelled", context.cause, context.producer, context.now)
    return Decision(job=job.tombstone(Phase.CANCELLED, _concluded_by(context)), events=(event, truth))


def on_attempt_cancelled(job: Job, event: types.AttemptCancelled, context: Context) -> Decision:
    """Conclude the job as cancelled if somebody asked for it; otherwise its runner gave the attempt up: lose it."""
    if not _holds(job, event):
        return _refused(job, event, context)
    if job.cancel_reason is not None:
        return cancelled(job, job.cancel_reason, context)
    return _lost(job, f"The runner gave the attempt up: {event.reason}", context)


def on_lost(job: Job, reason: str, context: Context) -> Decision:
    """End a lease without an observation: run the job elsewhere, unless too many runners were lost with it.

    The lease is taken back, too: a runner that returns has no room for what runs in vain.
    """
    decision = _lost(job, reason, context)
    return _replace(decision, events=(_revoked(job, "attempt_lost", reason, context), *decision.events))


def _revoked(job: Job, why: str, reason: str, context: Context) -> types.AttemptRevoked:
    attempt_id = job.attempt_id or ""
    return types.AttemptRevoked(
        header=leased_header(context.cause, f"AttemptRevoked/{why}", attempt_id, context.producer, context.now),
        job_id=job.job_id, attempt_id=attempt_id, attempt_number=job.attempt_number,
        runner_id=job.runner_id or "", reason=reason,
    )  # fmt: skip


def _lost(job: Job, reason: str, context: Context) -> Decision:
    attempt_id = job.attempt_id or ""
    lost = types.AttemptLost(
        header=leased_header(context.cause, "AttemptLost", attempt_id, context.producer, context.now),
        job_id=job.job_id, attempt_id=attempt_id, attempt_number=job.attempt_number,
        runner_id=job.runner_id or "", reason=reason,
    )  # fmt: skip
    if job.cancel_reason is not None:
        rest = cancelled(job, job.cancel_reason, context)
        return Decision(job=rest.job, events=(lost, *rest.events))
    observed = lost_with(job.runner_id or "")
    losses = job.losses + 1
    if losses > job.retry.max_lost_attempts:
        text = (
            f"Expected at most {job.retry.max_lost_attempts} attempts to be lost with their runners, but lost {losses}."
        )
        rest = _failed(
            job, envelope("attempts_lost", text, error_id=name_based_id(f"{attempt_id}/attempts_lost")), context
        )
        return Decision(job=rest.job, events=(lost, *rest.events), observed=observed)
    error = envelope("attempt_lost", reason, error_id=name_based_id(f"{attempt_id}/attempt_lost"))
    header = leased_header(context.cause, "JobRetryScheduled", attempt_id, context.producer, context.now)
    rest = _retry(_replace(job, losses=losses), error, 0, header, context)
    return Decision(job=rest.job, events=(lost, *rest.events), observed=observed)


def on_due(job: Job, context: Context) -> Decision:
    """Do what a job's timer is for: queue it, or conclude what took too long."""
    if job.concluded or job.due_at is None or job.due_at > context.now:
        return Decision(job=job)
    now = Instant(job.due_at)  # What follows then follows from the job alone: decided again it has the same bytes.
    context = _replace(context, now=now)
    if job.deadline is not None and job.deadline <= now:
        text = "Expected the job to conclude before its deadline, but it did not."
        rest = _timed_out(job, "job_timed_out", text, context)
        # What still runs is in nobody's interest, and its slot is given to the next.
        freed = (_revoked(job, "job_timed_out", text, context),) if job.leased else ()
        return _replace(rest, events=(*freed, *rest.events))
    if job.phase is Phase.QUEUED:
        return _timed_out(job, "queue_timed_out", "Expected a runner to take the job in time, but none did.", context)
    if job.phase in WAITING:
        return Decision(job=queued(job, now))
    error = envelope(
        "attempt_timed_out", f"Expected the attempt to end within {(job.attempt_timeout_micros or 0) / SECOND:g} s, but it did not.",
        error_id=name_based_id(f"{job.attempt_id}/timed_out"),
    )  # fmt: skip
    revoked = _revoked(job, error.code, error.message, context)
    if job.cancel_reason is not None:  # Its runner was asked to stop it, and did not: it is over all the same.
        rest = cancelled(job, job.cancel_reason, context)
        return Decision(job=rest.job, events=(revoked, *rest.events))
    observed = failed(job.job_type, job.runner_id or "", error.category)
    if not will_retry(job, error):
        rest = _failed(job, error, context)
        return Decision(job=rest.job, events=(revoked, *rest.events), observed=observed)
    failures = job.failures + 1
    header = leased_header(context.cause, "JobRetryScheduled", job.attempt_id or "", context.producer, now)
    delay = backoff_micros(job.retry, failures, job.attempt_id or "")
    rest = _retry(_replace(job, failures=failures), error, delay, header, context)
    return Decision(job=rest.job, events=(revoked, *rest.events), observed=observed)


def _timed_out(job: Job, code: str, text: str, context: Context) -> Decision:
    error = envelope(code, text, error_id=name_based_id(f"{job.job_id}/{code}"))
    return _failed(job, error, context)


def on_unroutable(job: Job, context: Context) -> Decision:
    """Conclude a job as failed that no record can give to a runner: it was accepted before such sizes were refused."""
    if job.phase is not Phase.QUEUED:
        return Decision(job=job)
    text = f"Expected a job that fits into a record for its runner, but its payload has {len(job.payload.data)} bytes."
    # As of a moment of the job's own: decided again it has the same bytes.
    return _timed_out(job, "payload_too_large", text, _replace(context, now=Instant(job.queued_at)))
