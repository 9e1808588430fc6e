"""What follows from a command about a job: cancel, retry, reprioritise. Pure; a command that the state does not allow is refused on the log."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from controlplane.events import types
from controlplane.events.bounds import oversized
from controlplane.events.errors import envelope
from controlplane.events.header import caused_header, concerns
from controlplane.events.identity import name_based_id
from controlplane.jobforge_agent.decide import (
    Context,
    Decision,
    cancelled,
    error_id,
    on_attempt_cancelled,
    on_failed,
    on_progressed,
    on_started,
    on_submitted,
    on_succeeded,
    queued,
)
from controlplane.jobforge_agent.state import Job
from controlplane.jobforge_agent.transitions import WAITING, Phase

_replace = msgspec.structs.replace
_RETRIED_AS_NEW: Final = frozenset({Phase.FAILED, Phase.CANCELLED, Phase.REJECTED})


def on_cancel_requested(job: Job | None, event: types.JobCancelRequested, context: Context) -> Decision:
    """Cancel a waiting job at once; ask the runner of a running one, or conclude at once when told to kill.

    With `tree` its unfinished children are asked to be cancelled in the same way, and those that come later never run.
    """
    if job is not None and event.tree:
        job = _replace(job, tree_cancelled=True)
    decision = _cancel(job, event, context)
    return _replace(decision, events=(*decision.events, *_children_cancelled(event, context)))


def _children_cancelled(event: types.JobCancelRequested, context: Context) -> Iterator[types.JobCancelRequested]:
    if not event.tree:
        return
    known = context.related.children.get(event.job_id, ())
    fresh = (job.job_id for job in context.batch.values() if job.parent and job.parent.job_id == event.job_id)
    for child in sorted({*known, *(name for name in fresh if not context.batch[name].concluded)}):
        header = caused_header(context.cause, f"JobCancelRequested/{child}", 0, context.producer, context.now)
        yield types.JobCancelRequested(header=header, job_id=child, reason=event.reason, kill=event.kill, tree=True)


def _cancel(job: Job | None, event: types.JobCancelRequested, context: Context) -> Decision:
    if job is None or job.concluded:
        repeated = job is not None and job.concluded_by == context.cause.position
        if job is not None and repeated:
            return cancelled(job, event.reason, context)
        found = "it is not known" if job is None else f"it is {job.phase}"
        return _command_refused(
            job, event.job_id, event, f"Expected to cancel job {event.job_id}, but {found}.", context
        )
    if job.phase in WAITING:
        return cancelled(job, event.reason, context)
    # Decided again after the store went back, it may be about another attempt: that is another event.
    revoked = types.AttemptRevoked(
        header=caused_header(context.cause, f"AttemptRevoked/{job.attempt_id}", 0, context.producer, context.now),
        job_id=job.job_id, attempt_id=job.attempt_id or "", attempt_number=job.attempt_number,
        runner_id=job.runner_id or "", reason=event.reason or "cancelled",
    )  # fmt: skip
    if event.kill:
        decision = cancelled(job, event.reason, context)
        return Decision(job=decision.job, events=(revoked, *decision.events))
    return Decision(job=_replace(job, cancel_reason=event.reason or "cancelled"), events=(revoked,))


def on_reprioritise_requested(job: Job | None, event: types.JobReprioritiseRequested, context: Context) -> Decision:
    """Move a waiting job in the queue."""
    if job is None or job.phase not in WAITING:
        found = "it is not known" if job is None else f"it is {job.phase}"
        text = f"Expected job {event.job_id} to wait, so that it can move in the queue, but {found}."
        return _command_refused(job, event.job_id, event, text, context)
    header = caused_header(context.cause, "JobReprioritised", 0, context.producer, context.now)
    moved = types.JobReprioritised(header=header, job_id=job.job_id, priority=event.priority)
    return Decision(job=_replace(job, priority=event.priority), events=(moved,))


def on_retry_requested(job: Job | None, event: types.JobRetryRequested, context: Context) -> Decision:
    """Run a job that waits for its next attempt now; do the work of one that failed or was cancelled again, as a new job.

    A conclusion is final: whoever read it acted on it. So the retry of a concluded job is another job, whose cause is the command.
    """
    original = context.related.originals.get(event.job_id)
    if original is not None and not concerns(event.header.tenant, original.header.tenant):
        original = None
    if job is not None and job.phase in {Phase.RETRYING, Phase.DELAYED}:
        return Decision(job=queued(job, context.now), events=(_retried(event, None, context),))
    retried_as = job.retried_as if job is not None else None
    unfit = oversized(original, event.job_id) if original is not None else None
    if unfit is None and original is not None and retried_as is None and (job is None or job.phase in _RETRIED_AS_NEW):
        again = _again(original, event, context)
        kept = _replace(job, retried_as=again.job_id) if job is not None else None
        return Decision(job=kept, events=(_retried(event, again.job_id, context), again))
    found = "it is not known" if job is None else f"it is {job.phase}"
    if retried_as is not None:
        found = f"it was retried as {retried_as}"
    elif unfit is not None:
        found = f"it cannot be submitted again: {unfit.message}"
    text = f"Expected job {event.job_id} to have failed, or to wait for its next attempt, but {found}."
    return _command_refused(job, event.job_id, event, text, context)


def _retried(event: types.JobRetryRequested, retry_job_id: str | None, context: Context) -> types.JobRetried:
    header = caused_header(context.cause, "JobRetried", 0, context.producer, context.now)
    return types.JobRetried(header=header, job_id=event.job_id, retry_job_id=retry_job_id, reason=event.reason)


def _again(original: types.JobSubmitted, event: types.JobRetryRequested, context: Context) -> types.JobSubmitted:
    header = caused_header(context.cause, "JobSubmitted", 0, context.producer, context.now)
    return _replace(
        original, header=_replace(header, tenant=original.header.tenant), job_id=name_based_id(f"retry/{header.event_id}"), not_before=None, deadline=None,
        idempotency_key=None, retry_of=event.job_id,
    )  # fmt: skip


def refuse_stranger(job: Job, event: Any, context: Context) -> Decision:
    """Refuse a command, or a submission under the same id, of somebody in another tenant, who learns nothing of the job."""
    own = _replace(context, cause=_replace(context.cause, tenant=event.header.tenant))
    text = f"Expected a job of tenant {event.header.tenant}, but {event.job_id} is none."
    return _replace(_command_refused(None, event.job_id, event, text, own), job=job)


def _command_refused(job: Job | None, job_id: str, command: Any, text: str, context: Context) -> Decision:
    error = envelope("conflict", text, error_id=error_id(context, "CommandRefused"), field="job_id", found=job_id)
    # What was found is part of the identity: after a fold the same command may find another state.
    found = job.phase if job is not None else "unknown"
    header = caused_header(context.cause, f"CommandRefused/{found}", 0, context.producer, context.now)
    refused = types.CommandRefused(header=header, job_id=job_id, command=type(command).__name__, error=error)
    return Decision(job=job, events=(refused,))


Decider = Callable[[Any, Any, Context], Decision]

ON_UNKNOWN_JOB: Final = frozenset(
    {types.JobSubmitted, types.JobCancelRequested, types.JobRetryRequested, types.JobReprioritiseRequested}
)
"""Events that have a meaning without a job; any other event about an unknown job is refused as a dead letter."""

DECIDERS: Final[dict[type[msgspec.Struct], Decider]] = {
    types.JobSubmitted: on_submitted,
    types.JobCancelRequested: on_cancel_requested,
    types.JobRetryRequested: on_retry_requested,
    types.JobReprioritiseRequested: on_reprioritise_requested,
    types.AttemptStarted: on_started,
    types.AttemptProgressed: on_progressed,
    types.AttemptSucceeded: on_succeeded,
    types.AttemptFailed: on_failed,
    types.AttemptCancelled: on_attempt_cancelled,
}
