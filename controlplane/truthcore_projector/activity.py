"""What went on in a window of time. Each question looks at the window's rows and at jobs that are not concluded, not at all history.

A question is a statement that holds for one shard, and how the whole follows from the shards' answers.
"""

import math
from collections import Counter
from datetime import datetime, timedelta
from typing import Any, Final

from controlplane.api.activity import ActivityBucket, TypeActivity
from controlplane.api.models import Phase
from controlplane.truthcore_projector.cursors import Cursor, rows
from controlplane.truthcore_projector.queries import job_conditions

TYPES_LIMIT: Final = 100
STEPS: Final = 20
_COUNTED: Final = {
    "JobSubmitted": "submitted", "AttemptStarted": "started", "JobCompleted": "completed", "JobFailed": "failed",
    "JobRejected": "failed", "JobCancelled": "cancelled", "JobRetryScheduled": "retried", "AttemptLost": "retried",
}  # fmt: skip
_BUCKET: Final = "floor((epoch_us({}) - epoch_us($since)) / ($bucket * 1e6))::INTEGER"

EVENTS: Final = (
    f"""SELECT {_BUCKET.format("log_time")} AS bucket, event_type, count(*) AS records FROM events
  WHERE log_time >= $since AND log_time < $until GROUP BY ALL""",
    "SELECT bucket, event_type, sum(records)::BIGINT AS records FROM parts GROUP BY ALL",
)
# Times are counted by steps of a twentieth of e: counts of shards add up, and a quantile is right to a few percent.
LATENCY: Final = (
    f"""SELECT {_BUCKET.format("c.log_time")} AS bucket, floor(ln(greatest(epoch_us(c.log_time - s.log_time) / 1e6, 1e-3)) * {STEPS})::INTEGER AS step,
    count(*) AS jobs FROM conclusions AS c JOIN submissions AS s ON s.job_id = c.job_id
  WHERE c.log_time >= $since AND c.log_time < $until GROUP BY ALL""",
    "SELECT bucket, step, sum(jobs)::BIGINT AS jobs FROM parts GROUP BY ALL",
)
WAITED: Final = (
    f"""WITH ended AS (SELECT job_id, min(log_time) AS log_time FROM conclusions WHERE log_time >= $since GROUP BY job_id),
  concerned AS (
    SELECT job_id, min(log_time) AS log_time FROM submissions AS s WHERE log_time < $until
      AND (job_id IN (SELECT job_id FROM ended) OR NOT EXISTS (FROM conclusions AS c WHERE c.job_id = s.job_id))
    GROUP BY job_id),
  routed AS (SELECT job_id, min(log_time) AS log_time FROM attempt_events SEMI JOIN concerned USING (job_id)
    WHERE stage = 'ROUTED' GROUP BY job_id),
  waits AS (
    SELECT {_BUCKET.format("c.log_time")} AS since, {_BUCKET.format("least(r.log_time, e.log_time)")} AS until
    FROM concerned AS c LEFT JOIN routed AS r USING (job_id) LEFT JOIN ended AS e USING (job_id))
  SELECT bucket, count(*) FILTER (since <= bucket AND (until IS NULL OR until > bucket)) AS waiting
  FROM waits, (SELECT unnest(range($buckets)) AS bucket) GROUP BY bucket""",
    "SELECT bucket, sum(waiting)::BIGINT AS waiting FROM parts GROUP BY bucket",
)
BUSY: Final = (
    f"""SELECT bucket, sum(in_flight)::BIGINT AS busy, sum(slots)::BIGINT AS slots FROM (
    SELECT {_BUCKET.format("h.log_time")} AS bucket, h.runner_id, max_by(h.in_flight, h."offset") AS in_flight, any_value(r.slots) AS slots
    FROM runner_events AS h JOIN (SELECT runner_id, max(slots) AS slots FROM runner_events WHERE kind = 'REGISTERED' GROUP BY 1) AS r
      ON r.runner_id = h.runner_id
    WHERE h.kind = 'HEARTBEAT' AND h.log_time >= $since AND h.log_time < $until GROUP BY ALL)
  GROUP BY bucket""",
    "SELECT bucket, sum(busy)::BIGINT AS busy, sum(slots)::BIGINT AS slots FROM parts GROUP BY bucket",
)
_BY_PHASE_AND_TYPE: Final = "SELECT phase, job_type, sum(jobs)::BIGINT AS jobs FROM parts GROUP BY ALL"
OPEN: Final = "SELECT phase, job_type, count(*) AS jobs FROM unfinished_jobs GROUP BY ALL"
CONCLUDED: Final = """SELECT c.phase, s.job_type, count(*) AS jobs FROM conclusions AS c JOIN submissions AS s ON s.job_id = c.job_id
  WHERE c.log_time >= $since AND c.log_time < $until GROUP BY ALL"""
_RUNNING: Final = frozenset({Phase.ROUTED, Phase.RUNNING})


def activity(cursor: Cursor, until: datetime, seconds: int, buckets: int) -> dict[str, Any]:
    """Return the parts of an `ActivityAnswer` for the window of so many seconds before `until`."""
    since, size = until - timedelta(seconds=seconds), seconds / buckets
    window = {"since": since.replace(tzinfo=None), "until": until.replace(tzinfo=None)}
    spread = {**window, "bucket": size}
    counts: list[dict[str, Any]] = [
        dict.fromkeys((*_COUNTED.values(), "records", "waiting"), 0) | dict.fromkeys(("busy", "slots", "median_seconds", "p95_seconds"))
        for _ in range(buckets)
    ]  # fmt: skip

    def at(row: dict[str, Any]) -> dict[str, Any]:
        number: int = row["bucket"]
        return counts[min(number, buckets - 1)]

    for row in rows(cursor, EVENTS[0], spread, gather=EVENTS[1]):
        at(row)["records"] += row["records"]
        if name := _COUNTED.get(row["event_type"]):
            at(row)[name] += row["records"]
    took: dict[int, Counter[int]] = {}
    for row in rows(cursor, LATENCY[0], spread, gather=LATENCY[1]):
        took.setdefault(min(row["bucket"], buckets - 1), Counter())[row["step"]] += row["jobs"]
    for bucket, steps in took.items():
        counts[bucket].update(median_seconds=_quantile(steps, 0.5), p95_seconds=_quantile(steps, 0.95))
    for row in rows(cursor, WAITED[0], {**spread, "buckets": buckets}, gather=WAITED[1]):
        at(row)["waiting"] = row["waiting"]
    for row in rows(cursor, BUSY[0], spread, gather=BUSY[1]):
        at(row).update(busy=row["busy"], slots=row["slots"])
    standing = rows(cursor, OPEN, gather=_BY_PHASE_AND_TYPE)
    by_phase, by_outcome, types = _types(standing, rows(cursor, CONCLUDED, window, gather=_BY_PHASE_AND_TYPE))
    whole = sum(took.values(), Counter())
    return {
        "seconds": seconds, "bucket_seconds": size, "open": by_phase, "concluded": by_outcome, "types": types,
        "buckets": [ActivityBucket(at=since + timedelta(seconds=size * number), **one) for number, one in enumerate(counts)],
        "median_seconds": _quantile(whole, 0.5), "p95_seconds": _quantile(whole, 0.95), "p99_seconds": _quantile(whole, 0.99),
    }  # fmt: skip


def _quantile(steps: Counter[int], share: float) -> float | None:
    """Return the middle of the step in which this share of the jobs is reached, by nearest rank."""
    wanted, seen = math.ceil(share * steps.total()), 0
    for step in sorted(steps):
        seen += steps[step]
        if seen >= wanted:
            return math.exp((step + 0.5) / STEPS)
    return None


def _types(
    standing: list[dict[str, Any]], concluded: list[dict[str, Any]]
) -> tuple[dict[Phase, int], dict[Phase, int], list[TypeActivity]]:
    """Return the open jobs by phase, the concluded ones by outcome, and both by type."""
    by_phase: dict[Phase, int] = {}
    by_outcome: dict[Phase, int] = {}
    types: dict[str, TypeActivity] = {}

    def of(name: str) -> TypeActivity:
        empty = TypeActivity(job_type=name, waiting=0, running=0, completed=0, failed=0)
        return types.setdefault(name, empty)

    for row in standing:
        phase, jobs = Phase(row["phase"]), row["jobs"]
        by_phase[phase] = by_phase.get(phase, 0) + jobs
        one = of(row["job_type"])
        if phase in _RUNNING:
            one.running += jobs
        else:
            one.waiting += jobs
    for row in concluded:
        phase, jobs = Phase(row["phase"]), row["jobs"]
        by_outcome[phase] = by_outcome.get(phase, 0) + jobs
        one = of(row["job_type"])
        if phase is Phase.COMPLETED:
            one.completed += jobs
        elif phase is not Phase.CANCELLED:
            one.failed += jobs
    busiest = sorted(
        types.values(), key=lambda one: (-(one.waiting + one.running), -(one.completed + one.failed), one.job_type)
    )
    return by_phase, by_outcome, busiest[:TYPES_LIMIT]


def job_counts(cursor: Cursor, filters: dict[str, str | None]) -> dict[Phase, int]:
    """Return how many jobs a filter finds, by phase."""
    conditions, parameters = job_conditions(filters)
    # Which of several submissions of a job is its first matters only to what is said of it.
    submissions = "first_submissions" if parameters else "submissions"
    chosen = f"SEMI JOIN (SELECT s.job_id FROM {submissions} AS s WHERE {' AND '.join(conditions)}) USING (job_id)"
    query = f"""SELECT phase, count(*) AS jobs FROM (
        SELECT phase FROM unfinished_jobs {chosen if parameters else ""}
        UNION ALL SELECT phase FROM first_conclusions {chosen}) GROUP BY phase"""
    gather = "SELECT phase, sum(jobs)::BIGINT AS jobs FROM parts GROUP BY phase"
    found = {Phase(row["phase"]): row["jobs"] for row in rows(cursor, query, parameters * 2, gather=gather)}
    return {phase: jobs for phase, jobs in found.items() if filters.get("phase") in (None, phase)}
