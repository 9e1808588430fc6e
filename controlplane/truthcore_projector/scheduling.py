"""Questions about scheduling: why a job waits, how far limits are used, what a handler logged."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from controlplane.api.models import JobView
from controlplane.api.scheduling import JobLogLine, LimitView
from controlplane.events.codec import decode
from controlplane.events.controls import Controls, Limit
from controlplane.events.types import JobLogged, JobSubmitted, RunnerRegistered
from controlplane.truthcore_projector import waiting
from controlplane.truthcore_projector.cursors import Cursor, rows, tuples
from controlplane.truthcore_projector.unfinished import UnfinishedJobs

LIMITS_SHOWN: Final = 1000
RUNNERS_LOOKED_AT: Final = 10_000
EXPLAINED: Final = frozenset({"SUBMITTED", "DELAYED", "RETRYING", "QUEUED", "ROUTED", "RUNNING"})


def controls_in(cursor: Cursor) -> Controls:
    """Return what operators declared and JobForge says of itself, as the snapshot has it."""
    query = """SELECT value FROM control_events
      QUALIFY row_number() OVER (PARTITION BY kind, subject ORDER BY "offset" DESC) = 1"""
    return Controls(decode(value) for (value,) in tuples(cursor, query))


class Scheduling:
    """Answers from snapshots; what many ask for is read once."""

    def __init__(self, now: Callable[[], datetime], lease_seconds: float) -> None:
        """`now` is the moment that the projection reflects; a runner that is silent for longer than a lease is gone."""
        self._now = now
        self._silence = timedelta(seconds=2 * lease_seconds)
        self._unfinished = UnfinishedJobs()

    # Why a job waits

    def explain(self, cursor: Cursor, job: JobView) -> str | None:
        """Return why a job waits, in words."""
        if job.phase not in EXPLAINED:
            return None
        [row] = rows(cursor, "SELECT * FROM jobs WHERE job_id = ?", [job.job_id])
        query = """SELECT e.value FROM events AS e SEMI JOIN
          (SELECT topic, partition, "offset" FROM first_submissions WHERE job_id = ?) AS s
          ON e.topic = s.topic AND e.partition = s.partition AND e."offset" = s."offset" """
        [(value,)] = tuples(cursor, query, [job.job_id])
        submitted: JobSubmitted = decode(value)
        runner_id = job.attempts[-1].runner_id if job.attempts else None
        asked = waiting.Waiting(row=row, submitted=submitted, runner_id=runner_id)
        return waiting.words(asked, self._situation(cursor, row))

    def _situation(self, cursor: Cursor, row: dict[str, Any]) -> waiting.Situation:
        controls, now, unfinished = controls_in(cursor), self._now(), self._unfinished.read(cursor)
        limits = controls.limits_of(row["job_type"], row["tenant"], row["concurrency_key"], row["rate_key"])
        starts = {
            subject: self._starts(cursor, subject, limit, now) for subject, limit in limits if limit.starts is not None
        }
        return waiting.Situation(
            now=now, controls=controls, runners=self._runners(cursor, unfinished, now), unfinished=unfinished,
            recent_starts=starts,
        )  # fmt: skip

    def _starts(self, cursor: Cursor, subject: str, limit: Limit, now: datetime) -> tuple[int, datetime]:
        kind, _, name = subject.partition(":")
        conditions = {"type": "s.job_type = $name", "tenant": "s.tenant = $name"}
        keyed = "s.tenant = $tenant AND (s.concurrency_key = $name OR s.rate_key = $name)"
        tenant, _, key = name.partition("/")
        values = {"name": name} if kind in conditions else {"tenant": tenant, "name": key}
        query = f"""SELECT count(*) AS starts, min(a.log_time) AS began FROM attempt_events AS a JOIN submissions AS s ON s.job_id = a.job_id
          WHERE a.stage = 'ROUTED' AND a.log_time > $since AND {conditions.get(kind, keyed)}"""  # noqa: S608 -- our own words
        since = (now - timedelta(seconds=limit.period_seconds)).replace(tzinfo=None)
        gather = "SELECT sum(starts)::BIGINT AS starts, min(began) AS began FROM parts"
        [(starts, began)] = tuples(cursor, query, {**values, "since": since}, gather=gather)
        return starts, began.replace(tzinfo=UTC) if began else now

    def _runners(self, cursor: Cursor, unfinished: pa.Table, now: datetime) -> tuple[waiting.RunnerNow, ...]:
        leased = unfinished.filter(pc.is_in(unfinished["phase"], value_set=pa.array(["ROUTED", "RUNNING"])))
        busy: dict[str, int] = {}
        for runner_id, slots in zip(leased["runner_id"].to_pylist(), leased["slots"].to_pylist(), strict=True):
            busy[runner_id] = busy.get(runner_id, 0) + slots
        query = """SELECT runner_id, value FROM runners
          WHERE state = 'REGISTERED' AND coalesce(last_heartbeat_at, registered_at) > ?"""
        since = (now - self._silence).replace(tzinfo=None)
        found = tuples(cursor, query, [since], tail=f"LIMIT {RUNNERS_LOOKED_AT}")
        runners: list[tuple[str, RunnerRegistered]] = [(runner_id, decode(value)) for runner_id, value in found]
        return tuple(
            waiting.RunnerNow(registered=registered, busy=busy.get(runner_id, 0)) for runner_id, registered in runners
        )

    # Limits

    def limits(self, cursor: Cursor, only: str | None) -> list[LimitView]:
        """Return the limits in force and what counts against each; `only` chooses one subject."""
        controls, now, unfinished = controls_in(cursor), self._now(), self._unfinished.read(cursor, fresh=True)
        found = [
            _limit_view(subject, limit, controls, unfinished, now)
            for subject, limit in _in_force(controls, unfinished).items()
            if only in (None, subject)
        ]
        found.sort(key=lambda one: (-(one.running + one.queued + one.retrying + one.delayed), one.subject))
        return found[:LIMITS_SHOWN]


def _in_force(controls: Controls, unfinished: pa.Table) -> dict[str, Limit]:
    """Return every declared limit, and those that unfinished jobs bring with their keys."""
    found = dict(controls.limits)
    columns = ("job_type", "tenant", "concurrency_key", "rate_key")
    for kind in unfinished.select(columns).group_by(list(columns)).aggregate([]).to_pylist():
        found.update(controls.limits_of(*(kind[name] for name in columns)))
    return found


def _limit_view(
    subject: str, limit: Limit, controls: Controls, unfinished: pa.Table, now: datetime
) -> LimitView:  # fmt: skip
    pattern = subject.endswith("*")
    declared = subject if subject in controls.limits else _pattern_of(subject, controls)
    phases = {} if pattern else waiting.phases_now(waiting.under(unfinished, subject), now)
    return LimitView(
        subject=subject, declared=declared, max_running=limit.max_running, starts=limit.starts,
        period_seconds=limit.period_seconds if limit.starts is not None else None,
        running=phases.get("ROUTED", 0) + phases.get("RUNNING", 0),
        queued=phases.get("QUEUED", 0) + phases.get("SUBMITTED", 0),
        retrying=phases.get("RETRYING", 0), delayed=phases.get("DELAYED", 0),
    )  # fmt: skip


def _pattern_of(subject: str, controls: Controls) -> str | None:
    fitting = [name for name in controls.limits if name.endswith("*") and subject.startswith(name[:-1])]
    return max(fitting, key=len, default=None)


# What a handler logged


def job_log(
    cursor: Cursor, job_id: str, limit: int, after: int | None
) -> tuple[list[JobLogLine], int, int | None]:  # fmt: skip
    """Return lines of a job from behind a record on, how many were dropped, and behind which record to go on.

    A page ends with a whole record, so it may have a few lines more than `limit`.
    """
    counts = "SELECT coalesce(max(dropped), 0) AS most FROM job_logs WHERE job_id = ? GROUP BY attempt_id"
    dropped = sum(most for (most,) in tuples(cursor, counts, [job_id]))
    query = """SELECT topic, partition, "offset", attempt_id, value FROM (
        SELECT *, sum(line_count) OVER (ORDER BY "offset") - line_count AS before FROM job_logs WHERE job_id = ? AND "offset" > ?)
      WHERE before < ?"""
    lines: list[JobLogLine] = []
    last = after
    behind = -1 if after is None else after
    for row in rows(cursor, query, [job_id, behind, limit], tail='ORDER BY "offset"'):
        last = row["offset"]
        event: JobLogged = decode(row["value"])
        lines += [
            JobLogLine(
                position=f"{row['topic']}/{row['partition']}/{last}", attempt_id=row["attempt_id"],
                at=datetime.fromtimestamp(line.at / 1_000_000, UTC), level=line.level, logger=line.logger, message=line.message,
            )
            for line in event.lines
        ]  # fmt: skip
    return lines, dropped, last
