"""What operators declare and command: limits, shares, pauses, schedules, bulk commands, retries. Each is a record on the log."""

import time
from typing import Annotated, Any, Literal, cast

import msgspec
from fastapi import APIRouter, Depends, Path, Request
from pydantic import Field

from controlplane.api.cron import ScheduleInvalid, times
from controlplane.api.fields import AS_NUMBER, INT_MOST, Number, YesNo
from controlplane.api.models import Acknowledgement, Identifier, JobRequest, Model, Phase, TenantName
from controlplane.api.problems import Refused, refused
from controlplane.events import types
from controlplane.events.catalog import CONTROLS
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant
from controlplane.gateway.callers import CALLER
from controlplane.gateway.cores import TruthCores
from controlplane.gateway.governance import Governance
from controlplane.gateway.histories import first_of
from controlplane.gateway.idempotency import declared, identity_of
from controlplane.gateway.submissions import door_of, submission
from controlplane.log.positions import parse_position, position_text

Limited = Annotated[str, Path(pattern=r"^(key|type|tenant):[^\x00-\x1f]{1,200}$", examples=["key:default/customer-7"])]
Paused = Annotated[str, Path(pattern=r"^(pool|type):[^\x00-\x1f]{1,200}$", examples=["pool:gpu"])]
Reason = Annotated[str, Field(max_length=1000, description="Why, for a person.")]

router = APIRouter(prefix="/v1", dependencies=[Depends(declared)])


class LimitRequest(Model):
    """How much may run at once, and how often it may start; without both there is no limit any more."""

    max_running: Annotated[int, Field(ge=0, le=INT_MOST), AS_NUMBER] | None = Field(
        None, description="Attempts that may run at once."
    )
    starts: Annotated[int, Field(ge=1, le=100_000), AS_NUMBER] | None = Field(
        None, description="Attempts that may start in each period."
    )
    period_seconds: Number = Field(1.0, gt=0, le=86_400)
    reason: Reason = ""


class ShareRequest(Model):
    """A tenant's part where tenants compete, relative to the others'; 1 unless declared."""

    weight: Number = Field(gt=0, le=1_000_000)


class PauseRequest(Model):
    """Why it is paused."""

    reason: Reason = ""


class ScheduleRequest(Model):
    """Jobs at the times of a cron expression."""

    cron: str = Field(min_length=9, max_length=200, examples=["0 6 * * 1-5"])
    time_zone: str = Field("UTC", max_length=100, examples=["Europe/Berlin"])
    job: JobRequest
    overlap: YesNo = Field(True, description="Whether a job may be submitted while the one before is not concluded.")
    catch_up_seconds: Number = Field(
        60.0, ge=0, le=604_800, description="A time missed by more than this, and by more than 5 s, is left out."
    )
    paused: YesNo = False


class BulkRequestBody(Model):
    """One command for every job that is like this."""

    action: Literal["cancel", "retry", "reprioritise"]
    job_type: Identifier | None = None
    pool: Identifier | None = None
    tenant: Identifier | None = None
    phase: Phase | None = None
    correlation_id: Identifier | None = None
    schedule_id: Identifier | None = None
    key: Identifier | None = None
    priority: Annotated[int, Field(ge=0, le=9), AS_NUMBER] | None = None
    kill: YesNo = False
    reason: Reason = ""
    bulk_id: Identifier | None = Field(None, description="Minted by the client, so that a retry is the same command.")


class ReasonBody(Model):
    """Why, for a person."""

    reason: Reason = ""


def _governance(request: Request) -> Governance:
    return cast(Governance, request.app.state.governance)


def _now() -> Instant:
    return Instant(time.time_ns() // 1000)


def _header(request: Request, name: str, subject: str, identity: str | None = None) -> types.EventHeader:
    caller = CALLER.get()
    return outside_header(
        name, identity or identity_of(request), door_of(request).producer.identity, _now(), correlation_id=subject, tenant=caller.tenant,
        actor=caller.name,
    )  # fmt: skip


async def _declared(request: Request, event: Any) -> Acknowledgement:
    position = await door_of(request).producer.publish(event)
    wanted = {(CONTROLS.name, position.partition): position.offset}
    await _governance(request).reached(wanted, 2.0)  # So that a look shows it.
    return Acknowledgement(
        event_id=event.header.event_id, position=position_text(position), correlation_id=event.header.correlation_id
    )


# Limits, shares, pauses


@router.put("/limits/{subject:path}", status_code=202, tags=["operations"])
async def declare_limit(request: Request, subject: Limited, body: LimitRequest) -> Acknowledgement:
    """Limit a key (`key:TENANT/NAME`), a job type (`type:NAME`) or a tenant (`tenant:NAME`); a name may end in `*`."""
    event = types.LimitDeclared(
        header=_header(request, "LimitDeclared", subject), subject=subject, max_running=body.max_running,
        starts=body.starts, period_seconds=body.period_seconds, reason=body.reason,
    )  # fmt: skip
    return await _declared(request, event)


@router.delete("/limits/{subject:path}", status_code=202, tags=["operations"])
async def remove_limit(request: Request, subject: Limited) -> Acknowledgement:
    """Let as much run as there is room for."""
    return await _declared(
        request, types.LimitDeclared(header=_header(request, "LimitDeclared", subject), subject=subject)
    )


@router.put("/shares/{tenant}", status_code=202, tags=["operations"])
async def declare_share(request: Request, tenant: TenantName, body: ShareRequest) -> Acknowledgement:
    """Give a tenant another weight where tenants compete for runners."""
    subject = f"tenant:{tenant}"
    return await _declared(
        request,
        types.ShareDeclared(header=_header(request, "ShareDeclared", subject), subject=subject, weight=body.weight),
    )


@router.put("/pauses/{subject:path}", status_code=202, tags=["operations"])
async def pause(request: Request, subject: Paused, body: PauseRequest | None = None) -> Acknowledgement:
    """Stop routing of a pool (`pool:NAME`) or a job type (`type:NAME`); what runs goes on."""
    return await _pause(request, subject, paused=True, reason=body.reason if body else "")


@router.delete("/pauses/{subject:path}", status_code=202, tags=["operations"])
async def resume(request: Request, subject: Paused) -> Acknowledgement:
    """Go on with routing."""
    return await _pause(request, subject, paused=False, reason="")


async def _pause(request: Request, subject: str, *, paused: bool, reason: str) -> Acknowledgement:
    event = types.PauseDeclared(
        header=_header(request, "PauseDeclared", subject), subject=subject, paused=paused, reason=reason
    )
    return await _declared(request, event)


# Schedules


@router.put("/schedules/{schedule_id}", status_code=202, tags=["operations"])
async def declare_schedule(request: Request, schedule_id: Identifier, body: ScheduleRequest) -> Acknowledgement:
    """Submit a job at every time of a cron expression from now on; declaring it again changes it."""
    try:
        coming = next(times(body.cron, body.time_zone, _now()), None)
    except ScheduleInvalid as error:
        raise refused("request_invalid", str(error), field="cron") from error
    if coming is None:
        raise refused("request_invalid", f"Expected a time that comes, but {body.cron!r} never does.", field="cron")
    like = submission(body.job.model_copy(update={"job_id": "template"}), door_of(request))
    template = types.JobTemplate(
        job_type=like.job_type, contract_major=like.contract_major, payload=like.payload, pool=like.pool,
        priority=like.priority, required_labels=like.required_labels, preferred_labels=like.preferred_labels, slots=like.slots,
        retry=like.retry, timeouts=like.timeouts, concurrency_key=like.concurrency_key, rate_key=like.rate_key,
    )  # fmt: skip
    subject = f"schedule:{schedule_id}"
    _own_schedule(request, schedule_id)
    header = msgspec.structs.replace(_header(request, "ScheduleDeclared", subject), tenant=like.header.tenant)
    event = types.ScheduleDeclared(
        header=header, subject=subject, schedule_id=schedule_id, cron=body.cron, time_zone=body.time_zone, job=template,
        overlap=body.overlap, catch_up_seconds=body.catch_up_seconds, paused=body.paused,
    )  # fmt: skip
    return await _declared(request, event)


def _own_schedule(request: Request, schedule_id: str) -> types.ScheduleDeclared | None:
    """Return the schedule of that id, if there is one.

    Raises:
        Refused: it is another tenant's.
    """
    found = _governance(request).controls.schedules.get(schedule_id)
    if found is not None and not CALLER.get().sees(found.header.tenant):
        text = f"Expected an id that nobody uses, but {schedule_id} is another tenant's schedule."
        raise refused("conflict", text, field="schedule_id", found=schedule_id)
    return found


@router.delete("/schedules/{schedule_id}", status_code=202, tags=["operations"])
async def remove_schedule(request: Request, schedule_id: Identifier) -> Acknowledgement:
    """End a schedule; jobs that it submitted go on."""
    if _own_schedule(request, schedule_id) is None:
        raise refused(
            "not_found", f"Expected a schedule, but there is no {schedule_id}.", field="schedule_id", found=schedule_id
        )
    subject = f"schedule:{schedule_id}"
    header = _header(request, "ScheduleRemoved", subject)
    return await _declared(request, types.ScheduleRemoved(header=header, subject=subject, schedule_id=schedule_id))


# Commands


@router.post("/bulk", status_code=202, tags=["operations"])
async def bulk(request: Request, body: BulkRequestBody) -> Acknowledgement:
    """Command every job that the query finds and that was submitted before: applied by JobForge, `GET /v1/bulk/ID` tells how far it is."""
    if body.action == "reprioritise" and body.priority is None:
        raise refused(
            "request_invalid", "Expected a priority from 0 to 9 to reprioritise with, but found none.", field="priority"
        )
    bulk_id = body.bulk_id or identity_of(request)
    subject = f"bulk:{bulk_id}"
    event = types.BulkRequested(
        header=_header(request, "BulkRequested", bulk_id, bulk_id), subject=subject, bulk_id=bulk_id,
        **body.model_dump(exclude={"bulk_id"}),
    )  # fmt: skip
    return await _declared(request, event)


@router.post("/jobs/{job_id:path}/retry", status_code=202, tags=["jobs"])
async def retry(request: Request, job_id: Identifier, body: ReasonBody | None = None) -> Acknowledgement:
    """Run a job that waits for its next attempt now, or do the work of one that failed again as a new job; what became of it is an event."""
    event = types.JobRetryRequested(
        header=_header(request, "JobRetryRequested", job_id), job_id=job_id, reason=body.reason if body else "",
        submission=await _submission_of(request, job_id),
    )  # fmt: skip
    position = await door_of(request).producer.publish(event)
    return Acknowledgement(
        job_id=job_id, event_id=event.header.event_id, position=position_text(position), correlation_id=job_id
    )


async def _submission_of(request: Request, job_id: str) -> types.LogPosition | None:
    """Return where a job was submitted, for one that JobForge may have forgotten; None when TruthCore cannot say."""
    cores = cast(TruthCores, request.app.state.truthcores)
    try:
        place = await first_of(cores, job_id, "JobSubmitted")
    except Refused:
        return None
    return None if place is None else parse_position(place)
