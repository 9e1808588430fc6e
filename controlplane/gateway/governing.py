"""Reads of what governs routing: limits, shares, pauses, breakers, admission, schedules, bulk commands."""

import time
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Final, cast

import msgspec
from fastapi import APIRouter, Depends, Request

from controlplane.api import operations as answers
from controlplane.api.cron import times
from controlplane.api.models import Identifier, Reflects
from controlplane.api.problems import refused
from controlplane.api.reading import MinPosition, WaitSeconds
from controlplane.events import types
from controlplane.events.catalog import CONTROLS, SUBMISSIONS
from controlplane.events.controls import Controls, tenant_of
from controlplane.gateway.callers import CALLER
from controlplane.gateway.governance import Governance
from controlplane.log.positions import PositionInvalid, parse_position

NEXT_TIMES: Final = 5

router = APIRouter(prefix="/v1", tags=["operations"])


class Governing(msgspec.Struct, frozen=True, kw_only=True):
    """What holds, and up to where on the log."""

    controls: Controls
    reflects: Reflects


async def governing(request: Request, min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0) -> Governing:
    """Return what holds once the wanted positions are reflected.

    Raises:
        Refused: a position is none of this topic, or is not reached in time.
    """
    governance = cast(Governance, request.app.state.governance)
    wanted: dict[tuple[str, int], int] = {}
    for text in min_position or ():
        try:
            position = parse_position(text)
        except PositionInvalid as error:
            raise refused("request_invalid", str(error), field="min_position", found=text) from error
        place = (position.topic, position.partition)
        if place not in governance.places:
            what = f"Expected a position of {CONTROLS.name}, of which this answer is made, but found {text[:200]}."
            raise refused("not_found", what, field="min_position", found=text)
        wanted[place] = max(wanted.get(place, 0), position.offset)
    if not await governance.reached(wanted, wait_seconds):
        what = f"Expected {CONTROLS.name} to be read up to {min_position} within {wait_seconds:g} s, but it was not."
        raise refused("projection_behind", what[:1000], field="min_position")
    return Governing(controls=governance.controls, reflects=governance.reflects())


Now = Annotated[Governing, Depends(governing)]


@router.get("/controls")
async def controls(now: Now) -> answers.ControlsAnswer:
    """Return what governs routing now: limits, shares, pauses, open breakers, admission; of keys and tenants, those of whoever asks."""
    found, sees = now.controls, CALLER.get().sees
    admission = found.admission
    return answers.ControlsAnswer(
        limits={
            subject: answers.DeclaredLimit(max_running=one.max_running, starts=one.starts, period_seconds=one.period_seconds)
            for subject, one in sorted(found.limits.items())
            if (tenant := tenant_of(subject)) is None or sees(tenant)
        },
        shares={tenant: weight for tenant, weight in sorted(found.weights.items()) if sees(tenant)},
        pauses={subject: pause.reason for subject, pause in sorted(found.pauses.items())},
        breakers={
            subject: answers.BreakerView(state=one.state, reason=one.reason, until=_moment(one.until), openings=one.openings)
            for subject, one in sorted(found.breakers.items())
        },
        admission=answers.AdmissionView(
            open=admission is None or admission.open, reason=admission.reason if admission else ""
        ),
        reflects=now.reflects,
    )  # fmt: skip


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else datetime.fromtimestamp(micros / 1_000_000, UTC)


@router.get("/schedules")
async def schedules(now: Now) -> answers.SchedulesAnswer:
    """Return the schedules, when they fired last and when they fire next."""
    found = now.controls
    views = [
        _schedule_view(one, found.fired.get(one.schedule_id))
        for _, one in sorted(found.schedules.items())
        if CALLER.get().sees(one.header.tenant)
    ]
    return answers.SchedulesAnswer(schedules=views, reflects=now.reflects)


def _schedule_view(schedule: types.ScheduleDeclared, last: types.ScheduleFired | None) -> answers.ScheduleView:
    micros = time.time_ns() // 1000
    coming = [] if schedule.paused else list(islice(times(schedule.cron, schedule.time_zone, micros), NEXT_TIMES))
    return answers.ScheduleView(
        schedule_id=schedule.schedule_id, cron=schedule.cron, time_zone=schedule.time_zone, job_type=schedule.job.job_type,
        paused=schedule.paused, overlap=schedule.overlap, last_at=_moment(last.due_at) if last else None,
        last_job_id=last.job_id if last else None, last_reason=last.reason if last else "", next_at=coming,
    )  # fmt: skip


@router.get("/bulk/{bulk_id}")
async def bulk_progress(request: Request, bulk_id: Identifier, now: Now) -> answers.BulkView:
    """Return how far a bulk command came."""
    found = now.controls.bulks.get(bulk_id)
    if found is None or not CALLER.get().sees(found.command.header.tenant):
        what = f"Expected a bulk command, but there is no {bulk_id}."
        raise refused("not_found", what, field="bulk_id", found=bulk_id)
    applied = found.applied.values()
    return answers.BulkView(
        bulk_id=bulk_id, action=found.command.action,
        done=len(applied) == request.app.state.door.producer.partitions(SUBMISSIONS.name),
        partitions_done=len(applied), matched=sum(one.matched for one in applied),
        refused=sum(one.refused for one in applied), reflects=now.reflects,
    )  # fmt: skip
