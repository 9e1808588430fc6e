"""When a schedule is due, what is missed of it, and what it submitted last."""

import random
import time
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from controlplane.api.cron import times, times_before
from controlplane.events import types
from controlplane.events.catalog import Service
from controlplane.events.controls import Controls
from controlplane.events.header import Cause, outside_header
from controlplane.events.identity import Instant
from controlplane.events.types import LogPosition
from controlplane.jobforge_agent.schedules import MISSED_COUNTED, PROMPT_SECONDS, Due, due, fired
from controlplane.jobforge_agent.state import SECOND

IDENTITY = types.Producer(service=Service.JOBFORGE, version="1", instance="one")
CAUSE = Cause(position=LogPosition(topic="controlplane.controls", partition=0, offset=0), correlation_id="c")
DAY = 24 * 3600


def at(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * SECOND


def scheduled(cron: str = "0 6 * * *", **options: Any) -> types.ScheduleDeclared:
    header = outside_header("ScheduleDeclared", "s", IDENTITY, Instant(0), correlation_id="c")
    job = types.JobTemplate(job_type="light", payload=types.Content(data=b"{}"))
    return types.ScheduleDeclared(header=header, subject="schedule:x", schedule_id="x", cron=cron, job=job, **options)


SIX = at("2026-11-26 06:00")


@pytest.mark.parametrize(
    ("cron", "catch_up", "last", "now", "found"),
    [
        # cron, seconds of catch-up, seconds since six o'clock: dealt with up to, looked at; time, missed before, too late
        ("0 6 * * *", 60.0, -DAY, -1, None),
        ("0 6 * * *", 60.0, -DAY, 0, (0, 0, False)),
        ("0 6 * * *", 60.0, 0, 3600, None),
        ("0 6 * * *", 60.0, -DAY, 60, (0, 0, False)),
        ("0 6 * * *", 60.0, -DAY, 61, (0, 0, True)),
        ("0 6 * * *", 0.0, -DAY, 0.25, (0, 0, False)),  # A look is always later than its time.
        ("0 6 * * *", 0.0, -DAY, PROMPT_SECONDS, (0, 0, False)),
        ("0 6 * * *", 0.0, -DAY, PROMPT_SECONDS + 0.1, (0, 0, True)),
        ("0 6 * * *", 60.0, -DAY, 2 * 3600, (0, 0, True)),  # Away from half past five to eight: said at eight.
        ("0 6 * * *", 60.0, -4 * DAY, 2 * 3600, (0, 3, True)),
        ("0 * * * *", 60.0, -5 * 3600, 1, (0, 4, False)),
        ("0 * * * *", 60.0, -5 * 3600, 1800, (0, 4, True)),
        ("* * * * * *", 60.0, -MISSED_COUNTED - 1, 0.5, (0, MISSED_COUNTED, False)),
        ("* * * * * *", 60.0, -365 * DAY, 0.5, (0, MISSED_COUNTED, False)),  # That many or more.
        ("*/5 * * * *", 604_800.0, -365 * DAY, 299, (0, MISSED_COUNTED, False)),
    ],
)  # fmt: skip
def test_every_time_that_came_is_due_or_said_to_be_missed(
    cron: str, catch_up: float, last: float, now: float, found: tuple[int, int, bool] | None
) -> None:
    came = due(scheduled(cron, catch_up_seconds=catch_up), SIX + int(last * SECOND), SIX + int(now * SECOND))
    if found is None:
        assert came is None
    else:
        moment, missed, too_late = found
        assert came == Due(at=SIX + moment * SECOND, missed=missed, too_late=too_late)


def test_a_missed_time_is_said_with_its_reason_and_submits_nothing() -> None:
    (record,) = fired(
        scheduled(catch_up_seconds=0.0), Due(at=SIX, missed=2, too_late=True), CAUSE, IDENTITY, running=False
    )
    assert isinstance(record, types.ScheduleFired)
    assert (record.job_id, record.missed, record.reason) == (None, 2, "Its time was missed by more than 5 s.")


def test_the_cost_of_a_look_does_not_grow_with_the_absence() -> None:
    began = time.process_time()
    due(scheduled("* * * * * *"), SIX - 100 * 365 * DAY * SECOND, SIX)  # 3,153,600,000 times.
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/St_Johns"])
@pytest.mark.parametrize("cron", ["30 2 * * *", "*/5 * * * *", "0,30 * * * *", "0 0 2 * * *"])
@pytest.mark.parametrize("day", ["2026-03-28", "2026-10-24", "2026-06-01"])
def test_the_last_time_before_a_moment_is_the_same_from_either_side(zone: str, cron: str, day: str) -> None:
    start, draw = at(f"{day} 12:00", zone), random.Random(1)
    there = [int(one.timestamp()) * SECOND for one, _ in zip(times(cron, zone, start), range(400), strict=False)]
    for _ in range(20):
        now = start + draw.randrange(26 * 3600, 30 * 3600) * SECOND
        last = max((one for one in there if one <= now), default=None)
        if last is not None:
            assert int(next(times_before(cron, zone, now + 1)).timestamp()) * SECOND == last


def test_the_last_job_of_a_schedule_is_known_however_many_times_were_left_out_since() -> None:
    def came(number: int, job_id: str | None) -> types.ScheduleFired:
        header = outside_header("ScheduleFired", f"f{number}", IDENTITY, Instant(number), correlation_id="c")
        return types.ScheduleFired(
            header=header,
            subject="schedule:x",
            schedule_id="x",
            due_at=number,
            job_id=job_id,
            reason="" if job_id else "why",
        )

    controls = Controls([scheduled(), came(1, "first"), came(2, None), came(3, None)])
    assert (controls.last_job["x"], controls.fired["x"].due_at) == ("first", 3)
    controls.take(came(4, "second"))
    assert controls.last_job["x"] == "second"
    header = outside_header("ScheduleRemoved", "r", IDENTITY, Instant(5), correlation_id="c")
    controls.take(types.ScheduleRemoved(header=header, subject="schedule:x", schedule_id="x"))
    assert not controls.last_job
    assert not controls.fired
