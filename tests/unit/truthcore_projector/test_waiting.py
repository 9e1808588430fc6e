"""Why a job waits, in words, for every cause: as a table."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from controlplane.events import types
from controlplane.events.controls import Controls
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant
from controlplane.events.types import Producer
from controlplane.jobforge_agent.state import CRITICAL_BOOST_MICROS, PRIORITY_BOOST_MICROS
from controlplane.truthcore_projector import waiting
from controlplane.truthcore_projector.store import Store
from controlplane.truthcore_projector.unfinished import UnfinishedJobs
from controlplane.truthcore_projector.waiting import RunnerNow, Situation, Waiting, phases_now, under, words

PRODUCER = Producer(service="test", version="0")
NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
HEADER = outside_header("Test", "x", PRODUCER, Instant(1))
ROW: dict[str, Any] = {
    "job_id": "me", "job_type": "image.thumbnail", "contract_major": 1, "pool": "default", "priority": 5, "tenant": "acme",
    "phase": "QUEUED", "not_before": None, "due_at": None, "attempts": 0, "concurrency_key": None, "rate_key": None,
    "cancel_reason": None, "submitted_at": NOW - timedelta(seconds=10),
}  # fmt: skip
with_columns = Store(":memory:")
SCHEMA = UnfinishedJobs().read(with_columns.connection.cursor()).schema
with_columns.close()


def unfinished(*rows: dict[str, Any]) -> pa.Table:
    others = [
        {
            name: value.replace(tzinfo=None) if isinstance(value, datetime) else value
            for name, value in {**ROW, **row}.items()
        }
        for row in rows
    ]
    return pa.Table.from_pylist([{name: row.get(name) for name in SCHEMA.names} for row in others], schema=SCHEMA)


def runner(name: str, busy: int = 0, slots: int = 2, pool: str = "default", major: int = 1, **labels: str) -> RunnerNow:
    registered = types.RunnerRegistered(
        header=HEADER, runner_id=name, name=name, pool=pool, slots=slots, labels=labels, inbox_partition=0, heartbeat_seconds=2.0,
        capabilities=(types.Capability(job_type="image.thumbnail", version=f"{major}.2.0"),),
    )  # fmt: skip
    return RunnerNow(registered=registered, busy=busy)


def said(
    *runners: RunnerNow, controls: tuple[Any, ...] = (), others: tuple[dict[str, Any], ...] = (),
    starts: dict[str, tuple[int, datetime]] | None = None, labels: dict[str, str] | None = None, slots: int | None = None, **row: Any,
) -> str | None:  # fmt: skip
    submitted = types.JobSubmitted(
        header=HEADER,
        job_id="me",
        job_type="image.thumbnail",
        payload=types.Content(),
        required_labels=labels or {},
        slots=slots,
    )
    situation = Situation(
        now=NOW,
        controls=Controls(controls),
        runners=runners,
        unfinished=unfinished({**row}, *others),
        recent_starts=starts or {},
    )
    return words(Waiting(row={**ROW, **row}, submitted=submitted, runner_id="r-1"), situation)


def breaker(subject: str, state: str, until: datetime | None = None) -> types.BreakerChanged:
    micros = None if until is None else int(until.timestamp() * 1_000_000)
    return types.BreakerChanged(
        header=HEADER, subject=subject, state=state, until=micros, failures=5, successes=0, reason="5 of 5 failed."
    )


FULL = (runner("a", busy=2), runner("b", busy=2))
PAUSED = types.PauseDeclared(header=HEADER, subject="pool:default", paused=True, reason="maintenance")
LIMIT = types.LimitDeclared(header=HEADER, subject="key:acme/*", max_running=3)
RATE = types.LimitDeclared(header=HEADER, subject="tenant:acme", starts=10, period_seconds=60.0)
UNTIL = NOW + timedelta(seconds=30)


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        ("waiting for JobForge to take it up", {"phase": "SUBMITTED"}),
        ("delayed until 2026-07-01 12:00:30 UTC", {"phase": "DELAYED", "not_before": UNTIL}),
        ("retry at 2026-07-01 12:00:30 UTC, after 1 attempt", {"phase": "RETRYING", "due_at": UNTIL, "attempts": 1}),
        ("handed to r-1, which has not begun yet", {"phase": "ROUTED"}),
        ("asked to stop: not needed", {"phase": "RUNNING", "cancel_reason": "not needed"}),
        (None, {"phase": "RUNNING"}),
        (None, {"phase": "COMPLETED"}),
        ("paused: pool:default (maintenance)", {"controls": (PAUSED,)}),
        (
            "the circuit breaker of image.thumbnail is open until 2026-07-01 12:00:30 UTC: 5 of 5 failed.",
            {"controls": (breaker("breaker:type:image.thumbnail", "OPEN", UNTIL),)},
        ),
        (
            "the circuit breaker of image.thumbnail is half open: a trial runs first",
            {"controls": (breaker("breaker:type:image.thumbnail", "HALF_OPEN"),)},
        ),
        (
            "held by the limit key:acme/db (1 of 1 running)",
            {"concurrency_key": "db", "others": ({"job_id": "o", "phase": "RUNNING", "concurrency_key": "db"},)},
        ),
        (
            "held by the limit key:acme/db (3 of 3 running)",
            {
                "concurrency_key": "db", "controls": (LIMIT,),
                "others": tuple({"job_id": f"o{n}", "phase": "ROUTED", "concurrency_key": "db"} for n in range(3)),
            },
        ),
        (
            "held by the rate limit tenant:acme (10 of 10 starts in 60 s), next at 2026-07-01 12:00:50 UTC",
            {"controls": (RATE,), "starts": {"tenant:acme": (10, NOW - timedelta(seconds=10))}},
        ),
        ("waiting for a runner with image.thumbnail v1 in pool default: none is there", {}),
        (
            "waiting for a runner with image.thumbnail v1 in pool default: none is there; it is offered in pool gpu",
            {"runners": (runner("g", pool="gpu"),)},
        ),
        ("waiting for a runner with image.thumbnail v1 in pool default: none is there", {"runners": (runner("n", major=2),)}),
        (
            "waiting for a runner with image.thumbnail v1 and region=eu: 2 healthy, none with these labels",
            {"runners": FULL, "labels": {"region": "eu"}},
        ),
        (
            "waiting for a runner with image.thumbnail v1 and 4 slots: the largest of 2 healthy has 2",
            {"runners": FULL, "slots": 4},
        ),
        ("waiting for a runner with image.thumbnail v1: 2 healthy, both full", {"runners": FULL}),
        ("waiting for a runner with image.thumbnail v1: 1 healthy, it is full", {"runners": FULL[:1]}),
        ("waiting for a runner with image.thumbnail v1: 3 healthy, 2 full", {"runners": (*FULL, runner("c", busy=1))}),
        (
            "waiting for a runner with image.thumbnail v1: 2 healthy, 1 full, 1 behind an open circuit breaker",
            {"runners": FULL, "controls": (breaker("breaker:runner:a", "OPEN"),)},
        ),
        (
            "waiting for a runner with image.thumbnail v1: 2 healthy, both full; 2 jobs of its kind before it",
            {
                "runners": FULL,
                "others": (
                    {"job_id": "older", "submitted_at": NOW - timedelta(seconds=11)},
                    {"job_id": "critical", "priority": 9, "submitted_at": NOW},
                    {"job_id": "younger", "submitted_at": NOW},
                    {"job_id": "elsewhere", "pool": "gpu", "submitted_at": NOW - timedelta(seconds=99)},
                    {"job_id": "not yet", "phase": "RETRYING", "due_at": UNTIL, "submitted_at": NOW - timedelta(seconds=99)},
                    {"job_id": "runs", "phase": "RUNNING", "submitted_at": NOW - timedelta(seconds=99)},
                ),
            },
        ),
        (
            "waiting for a runner with image.thumbnail v1: 2 healthy, both full",
            {"runners": FULL, "phase": "RETRYING", "due_at": NOW - timedelta(seconds=1)},
        ),
    ],
)  # fmt: skip
def test_a_job_says_why_it_waits(expected: str | None, given: dict[str, Any]) -> None:
    runners = given.pop("runners", ())
    assert said(*runners, **given) == expected


def test_jobs_count_against_what_they_are_under_and_by_where_they_stand_now() -> None:
    rows = unfinished(
        {"job_id": "1", "concurrency_key": "db"}, {"job_id": "2", "rate_key": "db", "phase": "RUNNING"},
        {"job_id": "3", "concurrency_key": "db", "tenant": "umbrella"},
        {"job_id": "4", "concurrency_key": "db", "phase": "DELAYED", "not_before": UNTIL},
        {"job_id": "5", "concurrency_key": "db", "phase": "DELAYED", "not_before": NOW},
        {"job_id": "6", "concurrency_key": "db", "phase": "RETRYING", "due_at": UNTIL},
    )  # fmt: skip
    found = phases_now(under(rows, "key:acme/db"), NOW)
    assert found == {"QUEUED": 2, "RUNNING": 1, "DELAYED": 1, "RETRYING": 1}
    assert under(rows, "tenant:umbrella").num_rows == 1
    assert under(rows, "type:image.thumbnail").num_rows == 6


def test_the_order_of_queues_is_jobforges_own() -> None:
    assert (waiting.CRITICAL_BOOST_MICROS, waiting.BOOST_MICROS) == (CRITICAL_BOOST_MICROS, PRIORITY_BOOST_MICROS)


def test_unfinished_jobs_are_read_once_for_many() -> None:
    moments = iter([0.0, 0.01, 0.05, 0.2, 0.21])
    jobs = UnfinishedJobs(lambda: next(moments))
    store = Store(":memory:")
    with store.snapshot() as cursor:
        first = jobs.read(cursor)
        assert jobs.read(cursor) is first
        assert jobs.read(cursor) is not first
    store.close()
