"""When a schedule is due, and what it submits then: pure functions of the schedule and the time.

A declared schedule's expression was read by the gateway before; one that a client declared on the log itself and that cannot be read never fires.
"""

from itertools import islice, takewhile
from typing import Final

import msgspec

from controlplane.api.cron import times, times_before
from controlplane.events.header import Cause, caused_header
from controlplane.events.identity import Instant, name_based_id
from controlplane.events.types import JobSubmitted, Producer, ScheduleDeclared, ScheduleFired
from controlplane.jobforge_agent.state import SECOND

MISSED_COUNTED: Final = 1000
"""So many missed times are counted at most when a schedule goes on after a long rest."""
PROMPT_SECONDS: Final = 5.0
"""A time that is looked at so soon is not missed, whatever is declared: instances look now and then, and their clocks differ."""


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """The times of a schedule that have come since the last one that was dealt with."""

    at: int
    """The last of them, microseconds since 1970."""
    missed: int
    """How many came before it; `MISSED_COUNTED` stands for that many or more."""
    too_late: bool
    """Whether it is longer ago than the schedule catches up."""


def due(schedule: ScheduleDeclared, last: int, now: int) -> Due | None:
    """Return what is due of a schedule whose times up to `last` were dealt with, or None."""
    if schedule.paused:
        return None
    came = (int(moment.timestamp()) * SECOND for moment in times(schedule.cron, schedule.time_zone, last))
    found = list(islice(takewhile(lambda at: at <= now, (at for at in came if at > last)), MISSED_COUNTED + 1))
    if not found:
        return None
    at = found[-1]
    if len(found) > MISSED_COUNTED:  # There may be any number more: the last of them is found from its end.
        at = max(at, int(next(times_before(schedule.cron, schedule.time_zone, now + 1)).timestamp()) * SECOND)
    too_late = now - at > _late_seconds(schedule) * SECOND
    return Due(at=at, missed=len(found) - 1, too_late=too_late)


def _late_seconds(schedule: ScheduleDeclared) -> float:
    return max(schedule.catch_up_seconds, PROMPT_SECONDS)


def fired(
    schedule: ScheduleDeclared, came: Due, cause: Cause, producer: Producer, *, running: bool
) -> tuple[ScheduleFired | JobSubmitted, ...]:
    """Return what follows when a time came: a job with an id of that time, so that firing twice is one job, and the record of it.

    `running` says that the job before is not concluded.
    """
    reason = ""
    if came.too_late:
        reason = f"Its time was missed by more than {_late_seconds(schedule):g} s."
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
