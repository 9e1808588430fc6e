"""When a schedule is due, and what it submits then: pure functions of the schedule and the time.

A declared schedule's expression was read by the gateway before; one that a client declared on the log itself and that cannot be read never fires.
"""

from typing import Final

import msgspec

from controlplane.api.cron import times
from controlplane.events.header import Cause, caused_header
from controlplane.events.identity import Instant, name_based_id
from controlplane.events.types import JobSubmitted, Producer, ScheduleDeclared, ScheduleFired
from controlplane.jobforge_agent.state import SECOND

MISSED_COUNTED: Final = 1000
"""So many missed times are counted at most when a schedule goes on after a long rest."""


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """The times of a schedule that have come since the last one that was dealt with."""

    at: int
    """The last of them, microseconds since 1970."""
    missed: int
    """How many came before it."""
    too_late: bool
    """Whether it is longer ago than the schedule catches up."""


def due(schedule: ScheduleDeclared, last: int, now: int) -> Due | None:
    """Return what is due of a schedule whose times up to `last` were dealt with, or None."""
    if schedule.paused:
        return None
    found: list[int] = []
    for moment in times(schedule.cron, schedule.time_zone, max(last, now - _span(schedule, now, last))):
        at = int(moment.timestamp()) * SECOND
        if at > now or len(found) > MISSED_COUNTED:
            break
        if at > last:
            found.append(at)
    if not found:
        return None
    return Due(at=found[-1], missed=len(found) - 1, too_late=now - found[-1] > schedule.catch_up_seconds * SECOND)


def _span(schedule: ScheduleDeclared, now: int, last: int) -> int:
    """Return how far to look back: as far as it catches up, and at least to the last time of a short rest."""
    return max(int(schedule.catch_up_seconds * SECOND), min(now - last, 3600 * SECOND))


def fired(
    schedule: ScheduleDeclared, came: Due, cause: Cause, producer: Producer, *, running: bool
) -> tuple[ScheduleFired | JobSubmitted, ...]:
    """Return what follows when a time came: a job with an id of that time, so that firing twice is one job, and the record of it.

    `running` says that the job before is not concluded.
    """
    reason = ""
    if came.too_late:
        reason = f"Its time was missed by more than {schedule.catch_up_seconds:g} s."
    elif running and not schedule.overlap:
        reason = "The job before is not concluded."
    job_id = None if reason else job_of(schedule.schedule_id, came.at)
    # What was found is part of the identity: a store that forgot this time and is asked again may find another state.
    found = f"{came.at}/{came.missed}/{job_id or reason}"
    now = Instant(came.at)  # Not the moment of the look, so that what is decided again is the same.
    record = ScheduleFired(
        header=caused_header(cause, f"ScheduleFired/{found}", 0, producer, now), subject=schedule.subject,
        schedule_id=schedule.schedule_id, due_at=came.at, job_id=job_id, missed=came.missed, reason=reason,
    )  # fmt: skip
    if job_id is None:
        return (record,)
    job = schedule.job
    submitted = JobSubmitted(
        header=caused_header(cause, f"JobSubmitted/{came.at}", 0, producer, now), job_id=job_id, job_type=job.job_type,
        contract_major=job.contract_major, payload=job.payload, pool=job.pool, priority=job.priority,
        required_labels=job.required_labels, preferred_labels=job.preferred_labels, slots=job.slots, retry=job.retry,
        timeouts=job.timeouts, concurrency_key=job.concurrency_key, rate_key=job.rate_key, schedule_id=schedule.schedule_id,
    )  # fmt: skip
    return (submitted, record)


def job_of(schedule_id: str, at: int) -> str:
    """Return the id of the job that a schedule submits at a time."""
    return name_based_id(f"schedule/{schedule_id}/{at}")
