"""Writes: a request becomes an event; the answer comes after the log has it, with its position."""

import time
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Request
from pydantic import Field
from pydantic_core import PydanticSerializationError

from controlplane.api.fields import Moment, Number, Whole, YesNo
from controlplane.api.models import Acknowledgement, Identifier, JobRequest, Model, TenantName
from controlplane.api.problems import Refused, refused
from controlplane.api.submissions import OptionInvalid, instant_of, job_submitted, json_content
from controlplane.contents import ContentStore
from controlplane.contents.keys import KeyForgotten, KeyMissing
from controlplane.events import types
from controlplane.events.bounds import oversized
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant, name_based_id, random_id
from controlplane.events.types import Cardinality, FusionRule, ValueKind
from controlplane.events.values import ValueInvalid, typed_value
from controlplane.gateway.callers import CALLER
from controlplane.gateway.capabilities import Capabilities
from controlplane.gateway.governance import Governance
from controlplane.gateway.idempotency import IdempotencyKey, declared, identity_of
from controlplane.log.positions import position_text
from controlplane.log.producer import LogProducer

Unit = Annotated[str, Field(min_length=1, max_length=64)]
Reference = Annotated[str, Field(min_length=1, max_length=256)]
"""Of an assertion, or the position of a record."""


class Door:
    """What writing needs: the producer, the capabilities of the runners, the store of large payloads."""

    def __init__(
        self, producer: LogProducer, capabilities: Capabilities, contents: ContentStore, governance: Governance
    ) -> None:
        self.producer = producer
        self.capabilities = capabilities
        self.contents = contents
        self.governance = governance


class CancelRequest(Model):
    """Why, and how hard."""

    reason: str = Field("", max_length=1000)
    kill: YesNo = Field(False, description="Conclude at once, even if the runner does not answer.")
    tree: YesNo = Field(False, description="Its child jobs as well.")


class ReprioritiseRequest(Model):
    """Where the job shall stand."""

    priority: Whole = Field(ge=0, le=9)
    reason: str = Field("", max_length=1000)


class AssertionRequest(Model):
    """What a client knows of a subject."""

    subject: str = Field(min_length=1, max_length=512, examples=["module:json"])
    predicate: Identifier
    value: Any
    kind: ValueKind | None = Field(
        None,
        description="How to read the value: INSTANT takes RFC 3339 text, REFERENCE a subject; by default what it is as JSON.",
    )
    unit: Unit | None = None
    valid_from: Moment | None = Field(None, description="Since when it holds; by default from the log time on.")
    valid_to: Moment | None = Field(None, description="Until when, not included; by default open.")
    confidence: Number = Field(1.0, ge=0, le=1)
    source: Identifier | None = Field(None, description="Who says it; by default whoever asks.")
    assertion_id: Identifier | None = Field(
        None, description="Minted by the client, so that a retry is the same assertion."
    )
    inputs: list[Reference] = Field([], max_length=1000)
    supersedes: Reference | None = None
    tenant: TenantName | None = Field(None, description="By default that of whoever asks.")


class RetractionRequest(Model):
    """Which assertion is taken back, by whom."""

    subject: str = Field(min_length=1, max_length=512)
    source: Identifier | None = Field(None, description="Who takes it back; by default whoever asks.")
    reason: str = Field("", max_length=1000)


class SourceRequest(Model):
    """How much a source is trusted."""

    source: str = Field(min_length=1, max_length=512, examples=["runner media/image.thumbnail@1"])
    reliability: Number = Field(ge=0, le=1, description="Weight of its votes; 0 means that they say nothing.")
    reason: str = Field("", max_length=1000)


class PredicateRequest(Model):
    """The contract of a predicate."""

    predicate: Identifier
    value_kind: ValueKind | None = Field(None, description="Type of its object; by default any.")
    cardinality: Cardinality = Cardinality.UNDECLARED
    rule: FusionRule = FusionRule.DEFAULT
    unit: Unit | None = None
    description: str = Field("", max_length=2000)


router = APIRouter(prefix="/v1", dependencies=[Depends(declared)])


def door_of(request: Request) -> Door:
    """Return what writing needs, of the application that serves a request."""
    return cast(Door, request.app.state.door)


def _now() -> Instant:
    return Instant(time.time_ns() // 1000)


def submission(
    request: JobRequest, door: Door, minted: str | None = None, idempotency_key: str | None = None
) -> types.JobSubmitted:
    """Return the event of a request; a job without an id gets the minted one, or a random one.

    Raises:
        Refused: too much is in flight, the payload breaks the contract that runners declared, or an option is impossible.
    """
    door.governance.admit()
    caller = CALLER.get()
    tenant = caller.tenant_for(request.tenant if "tenant" in request.model_fields_set else None)
    if minted is None:
        minted = name_based_id(f"{tenant}/{idempotency_key}") if idempotency_key else random_id()
    job_id = request.job_id or minted
    try:
        content = json_content(request.payload)
        error = door.capabilities.registry.refusal(request.job_type, request.contract_major, content, random_id())
        # An unknown type is JobForge's to judge: its runner may have registered after this gateway looked.
        if error is not None and error.code == "payload_invalid":
            raise Refused(error)
        header = outside_header(
            "JobSubmitted",
            job_id,
            door.producer.identity,
            _now(),
            correlation_id=request.correlation_id,
            tenant=tenant,
            actor=caller.name,
        )
        key_id = f"{tenant}/{request.secret}" if request.secret else None
        payload = door.contents.check_in(content, key_id=key_id)
        contract = door.capabilities.registry.contract(request.job_type, request.contract_major)
        event = job_submitted(
            request, job_id=job_id, payload=payload, header=header, idempotency_key=idempotency_key,
            usual=contract.capability.retry if contract else None,
        )  # fmt: skip
    except KeyForgotten as error_found:
        raise refused("content_forgotten", str(error_found), field="secret") from error_found
    except KeyMissing as error_found:
        raise refused("key_missing", str(error_found), field="secret") from error_found
    except (OptionInvalid, PydanticSerializationError) as error_found:
        raise refused("request_invalid", str(error_found), field="body") from error_found
    return fitting(event)


def fitting(event: types.JobSubmitted) -> types.JobSubmitted:
    """Return a submission that JobForge will not find too large.

    Raises:
        Refused: it would.
    """
    if (error := oversized(event)) is not None:
        raise Refused(error)
    return event


async def _acknowledged(door: Door, event: Any) -> Acknowledgement:
    position = await door.producer.publish(event)
    return Acknowledgement(
        job_id=getattr(event, "job_id", None), event_id=event.header.event_id, position=position_text(position),
        correlation_id=event.header.correlation_id,
    )  # fmt: skip


@router.post("/jobs", status_code=202, tags=["jobs"])
async def submit(request: Request, job: JobRequest, idempotency_key: IdempotencyKey = None) -> Acknowledgement:
    """Submit a job; the answer comes when the log has it. The same id, or Idempotency-Key, again is the same job."""
    door = door_of(request)
    return await _acknowledged(door, submission(job, door, None, idempotency_key))


def command_header(request: Request, name: str, correlation_id: str) -> types.EventHeader:
    """Return the header of a command that whoever asks gives."""
    caller = CALLER.get()
    return outside_header(
        name, identity_of(request), door_of(request).producer.identity, _now(), correlation_id=correlation_id,
        tenant=caller.tenant, actor=caller.name,
    )  # fmt: skip


@router.post("/jobs/{job_id:path}/cancel", status_code=202, tags=["jobs"])
async def cancel(request: Request, job_id: Identifier, body: CancelRequest | None = None) -> Acknowledgement:
    """Ask for a job to be cancelled; what became of it is an event."""
    door, wish = door_of(request), body or CancelRequest()
    header = command_header(request, "JobCancelRequested", job_id)
    return await _acknowledged(
        door, types.JobCancelRequested(header=header, job_id=job_id, reason=wish.reason, kill=wish.kill, tree=wish.tree)
    )


@router.post("/jobs/{job_id:path}/reprioritise", status_code=202, tags=["jobs"])
async def reprioritise(request: Request, job_id: Identifier, body: ReprioritiseRequest) -> Acknowledgement:
    """Ask for a waiting job to move in its queue."""
    door = door_of(request)
    header = command_header(request, "JobReprioritiseRequested", job_id)
    event = types.JobReprioritiseRequested(header=header, job_id=job_id, priority=body.priority, reason=body.reason)
    return await _acknowledged(door, event)


@router.post("/assertions", status_code=202, tags=["truths"])
async def assert_truth(request: Request, body: AssertionRequest) -> Acknowledgement:
    """Assert something of a subject; the answer's event id is the assertion id."""
    door = door_of(request)
    try:
        value = typed_value(body.value, kind=body.kind, unit=body.unit)
        since = None if body.valid_from is None else instant_of(body.valid_from, "valid_from")
        until = None if body.valid_to is None else instant_of(body.valid_to, "valid_to")
    except ValueInvalid as error:
        raise refused("request_invalid", str(error), field="value") from error
    except OptionInvalid as error:
        raise refused("request_invalid", str(error), field="valid_from") from error
    if since is not None and until is not None and until <= since:
        what = f"Expected valid_to after valid_from, but found {body.valid_from} and {body.valid_to}."
        raise refused("request_invalid", what, field="valid_to")
    caller = CALLER.get()
    tenant, source = caller.tenant_for(body.tenant), caller.source_for(body.source)
    identity = body.assertion_id or identity_of(request)
    event = types.TruthAsserted(
        header=outside_header("TruthAsserted", identity, door.producer.identity, _now(), tenant=tenant, actor=caller.name),
        subject=body.subject, predicate=body.predicate, object=value, confidence=body.confidence,
        source=types.Source(kind=types.SourceKind.CLIENT, name=source),
        evidence=types.Evidence(inputs=tuple(body.inputs)), supersedes=body.supersedes, valid_from=since, valid_to=until,
    )  # fmt: skip
    return await _acknowledged(door, event)


@router.post("/assertions/{assertion_id}/retract", status_code=202, tags=["truths"])
async def retract(request: Request, assertion_id: Identifier, body: RetractionRequest) -> Acknowledgement:
    """Take an assertion back; it stays in the history."""
    door = door_of(request)
    event = types.TruthRetracted(
        header=command_header(request, "TruthRetracted", assertion_id), subject=body.subject, assertion_id=assertion_id,
        source=types.Source(kind=types.SourceKind.CLIENT, name=CALLER.get().source_for(body.source)), reason=body.reason,
    )  # fmt: skip
    return await _acknowledged(door, event)


@router.post("/predicates", status_code=202, tags=["truths"])
async def declare_predicate(request: Request, body: PredicateRequest) -> Acknowledgement:
    """Declare how a predicate's competing assertions are fused."""
    door = door_of(request)
    event = types.PredicateDeclared(
        header=command_header(request, "PredicateDeclared", body.predicate), subject=f"predicate:{body.predicate}",
        predicate=body.predicate, cardinality=body.cardinality, rule=body.rule, unit=body.unit, description=body.description,
        value_kind=body.value_kind,
    )  # fmt: skip
    return await _acknowledged(door, event)


@router.post("/sources", status_code=202, tags=["truths"])
async def declare_source(request: Request, body: SourceRequest) -> Acknowledgement:
    """Declare how reliable a source is; answers as of an earlier moment keep the weight of that moment."""
    door = door_of(request)
    event = types.SourceDeclared(
        header=command_header(request, "SourceDeclared", body.source), subject=f"source:{body.source}", source_name=body.source,
        reliability=body.reliability, reason=body.reason,
    )  # fmt: skip
    return await _acknowledged(door, event)
