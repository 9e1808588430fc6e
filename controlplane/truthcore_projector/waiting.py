"""Why a job waits, in words: computed from the log alone, whoever decides. Reading is `read`, the words are pure."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from controlplane.events.controls import Controls, Limit
from controlplane.events.types import BreakerChanged, JobSubmitted, RunnerRegistered

CRITICAL: Final = 9
CRITICAL_BOOST_MICROS: Final = 10**15
BOOST_MICROS: Final = 30_000_000
"""How JobForge orders its queues, which it states in its docs: a priority is worth so much age."""
OPEN: Final = "OPEN"


class RunnerNow(msgspec.Struct, frozen=True, kw_only=True):
    """A runner that lives and takes work."""

    registered: RunnerRegistered
    busy: int
    """Slots that its leases take."""


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What a job waits among."""

    now: datetime
    controls: Controls
    runners: tuple[RunnerNow, ...]
    unfinished: pa.Table
    """Rows of `unfinished_jobs`."""
    recent_starts: dict[str, tuple[int, datetime]] = {}
    """By subject of a rate limit: attempts within its period, and when the first of those started."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """The job that is asked about."""

    row: dict[str, Any]
    """Its row of `jobs`; times are UTC."""
    submitted: JobSubmitted
    runner_id: str | None = None


def words(job: Waiting, situation: Situation) -> str | None:
    """Return why a job is where it is, or None when it is over or runs without being asked to stop."""
    row, now = job.row, situation.now
    match row["phase"]:
        case "SUBMITTED":
            return "waiting for JobForge to take it up"
        case "DELAYED" if row["not_before"] > now:
            return f"delayed until {moment(row['not_before'])}"
        case "RETRYING" if row["due_at"] is not None and row["due_at"] > now:
            return f"retry at {moment(row['due_at'])}, after {row['attempts']} {plural(row['attempts'], 'attempt')}"
        case "QUEUED" | "DELAYED" | "RETRYING":
            return _held(job, situation) or _runners(job, situation)
        case "ROUTED":
            return f"handed to {job.runner_id}, which has not begun yet"
        case "RUNNING" if row["cancel_reason"] is not None:
            return f"asked to stop: {row['cancel_reason'] or 'cancelled'}"
    return None


def moment(at: datetime) -> str:
    """Return a moment as people read it."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def plural(count: int, noun: str) -> str:
    """Return a noun as it stands behind a number."""
    return noun if count == 1 else f"{noun}s"


# What operators and limits say


def _held(job: Waiting, situation: Situation) -> str | None:
    """Return what holds the job back, whatever runners there are."""
    row, controls = job.row, situation.controls
    paused = controls.paused(row["pool"], row["job_type"])
    if paused is not None:
        return f"paused: {paused.subject}" + (f" ({paused.reason})" if paused.reason else "")
    breaker = controls.breakers.get(f"breaker:type:{row['job_type']}")
    if breaker is not None and breaker.state == OPEN:
        return f"the circuit breaker of {row['job_type']} is open{_until(breaker)}: {breaker.reason}"
    for subject, limit in controls.limits_of(row["job_type"], row["tenant"], row["concurrency_key"], row["rate_key"]):
        if (why := _limited(subject, limit, situation)) is not None:
            return why
    if breaker is not None:
        return f"the circuit breaker of {row['job_type']} is half open: a trial runs first"
    return None


def _until(breaker: BreakerChanged) -> str:
    if breaker.until is None:
        return ""
    return f" until {moment(datetime.fromtimestamp(breaker.until / 1_000_000, UTC))}"


def _limited(subject: str, limit: Limit, situation: Situation) -> str | None:
    if limit.max_running is not None:
        running = counted(situation.unfinished, subject, ("ROUTED", "RUNNING"), situation.now)
        if running >= limit.max_running:
            return f"held by the limit {subject} ({running} of {limit.max_running} running)"
    recent, first = situation.recent_starts.get(subject, (0, situation.now))
    if limit.starts is not None and recent >= limit.starts:
        again = first + timedelta(seconds=limit.period_seconds)
        return (
            f"held by the rate limit {subject} ({recent} of {limit.starts} starts in {limit.period_seconds:g} s),"
            f" next at {moment(again)}"
        )
    return None


def under(unfinished: pa.Table, subject: str) -> pa.Table:
    """Return the unfinished jobs that count against a subject."""
    kind, _, name = subject.partition(":")
    match kind:
        case "type":
            return unfinished.filter(pc.field("job_type") == name)
        case "tenant":
            return unfinished.filter(pc.field("tenant") == name)
        case _:
            tenant, _, key = name.partition("/")
            keyed = (pc.field("concurrency_key") == key) | (pc.field("rate_key") == key)
            return unfinished.filter((pc.field("tenant") == tenant) & keyed)


def counted(unfinished: pa.Table, subject: str, phases: Iterable[str], now: datetime) -> int:
    """Return how many jobs under a subject are in one of these phases now."""
    found = phases_now(under(unfinished, subject), now)
    return sum(found.get(phase, 0) for phase in phases)


def phases_now(unfinished: pa.Table, now: datetime) -> dict[str, int]:
    """Count jobs by phase; one whose time has come is queued, whatever was said of it last."""
    found: dict[str, int] = {}
    for phase, group in _by_phase(unfinished):
        moments = group[{"DELAYED": "not_before", "RETRYING": "due_at"}.get(phase, "submitted_at")]
        ready = pc.sum(pc.less_equal(moments, pa.scalar(now.replace(tzinfo=None), moments.type))).as_py() or 0
        if phase in ("DELAYED", "RETRYING"):
            found["QUEUED"] = found.get("QUEUED", 0) + ready
            found[phase] = found.get(phase, 0) + group.num_rows - ready
        else:
            found[phase] = found.get(phase, 0) + group.num_rows
    return found


def _by_phase(unfinished: pa.Table) -> Iterable[tuple[str, pa.Table]]:
    for phase in pc.unique(unfinished["phase"]).to_pylist():
        yield phase, unfinished.filter(pc.field("phase") == phase)


# What runners there are


def _runners(job: Waiting, situation: Situation) -> str:
    """Return what is the matter with the runners, and who else waits for them."""
    row = job.row
    wanted = f"{row['job_type']} v{row['contract_major']}"
    offering = [one for one in situation.runners if offers(one.registered, row["job_type"], row["contract_major"])]
    able = [one for one in offering if one.registered.pool == row["pool"]]
    if not able:
        elsewhere = sorted({one.registered.pool for one in offering})
        where = f"; it is offered in pool {', '.join(elsewhere)}" if elsewhere else ""
        return f"waiting for a runner with {wanted} in pool {row['pool']}: none is there{where}"
    lacking = [one for one in able if _missing(job.submitted, one.registered)]
    if len(lacking) == len(able):
        labels = ", ".join(f"{name}={value}" for name, value in sorted(job.submitted.required_labels.items()))
        return f"waiting for a runner with {wanted} and {labels}: {len(able)} healthy, none with these labels"
    able = [one for one in able if one not in lacking]
    slots = _slots(job.submitted, able[0].registered)
    largest = max(one.registered.slots for one in able)
    if largest < slots:
        return f"waiting for a runner with {wanted} and {slots} slots: the largest of {len(able)} healthy has {largest}"
    return f"waiting for a runner with {wanted}: {len(able)} healthy, {_busy(able, slots, situation)}{_queue(job, situation)}"


def offers(runner: RunnerRegistered, job_type: str, major: int) -> bool:
    """Say whether a runner can do a job type under a contract."""
    return any(one.job_type == job_type and one.version.partition(".")[0] == str(major) for one in runner.capabilities)


def _missing(submitted: JobSubmitted, runner: RunnerRegistered) -> bool:
    return any(runner.labels.get(name) != value for name, value in submitted.required_labels.items())


def _slots(submitted: JobSubmitted, runner: RunnerRegistered) -> int:
    if submitted.slots is not None:
        return submitted.slots
    return next((one.slots for one in runner.capabilities if one.job_type == submitted.job_type), 1)


def _busy(able: list[RunnerNow], slots: int, situation: Situation) -> str:
    stopped = full = 0
    for one in able:
        breaker = situation.controls.breakers.get(f"breaker:runner:{one.registered.runner_id}")
        if breaker is not None and breaker.state == OPEN:
            stopped += 1
        elif one.busy + slots > one.registered.slots:
            full += 1
    behind = f", {stopped} behind an open circuit breaker" if stopped else ""
    if full == len(able):
        return {1: "it is full", 2: "both full"}.get(full, "all full") + behind
    return f"{full} full{behind}"


def _queue(job: Waiting, situation: Situation) -> str:
    """Say how many jobs of the type go before it."""
    row, now = job.row, situation.now
    same = situation.unfinished.filter(
        (pc.field("pool") == row["pool"]) & (pc.field("job_type") == row["job_type"]) & (pc.field("job_id") != row["job_id"])
    )  # fmt: skip
    ready = pc.is_in(same["phase"], value_set=pa.array(["QUEUED"]))
    for phase, column in (("DELAYED", "not_before"), ("RETRYING", "due_at")):
        come = pc.less_equal(same[column], pa.scalar(now.replace(tzinfo=None), same[column].type))
        ready = pc.or_(ready, pc.and_(pc.equal(same["phase"], phase), pc.fill_null(come, False)))
    before = pc.sum(pc.and_(ready, pc.less(turns(same), turn(row["submitted_at"], row["priority"])))).as_py() or 0
    return f"; {before} {plural(before, 'job')} of its kind before it" if before else ""


def turn(submitted_at: datetime, priority: int) -> int:
    """Return a job's place in the queue, as JobForge orders it: critical ones first, then by age and priority."""
    boost = CRITICAL_BOOST_MICROS if priority >= CRITICAL else priority * BOOST_MICROS
    return int(submitted_at.timestamp() * 1_000_000) - boost


def turns(unfinished: pa.Table) -> pa.ChunkedArray:
    """Return the place of each job, as `turn` does."""
    priority = unfinished["priority"].cast(pa.int64())
    critical = pc.greater_equal(priority, CRITICAL)
    boost = pc.if_else(critical, CRITICAL_BOOST_MICROS, pc.multiply(priority, BOOST_MICROS))
    return pc.subtract(unfinished["submitted_at"].cast(pa.timestamp("us")).cast(pa.int64()), boost)
