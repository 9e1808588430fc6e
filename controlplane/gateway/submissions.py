"""Writes: a request becomes an event; the answer comes after the log has it, with its position."""

import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Final, cast

import msgspec
from fastapi import APIRouter, Header, Request, Response
from pydantic import Field, ValidationError
from pydantic_core import PydanticSerializationError
from starlette.types import Receive, Scope, Send

from controlplane.api.models import Acknowledgement, Identifier, JobRequest, Model
from controlplane.api.problems import Refused, problem_fields, refused
from controlplane.api.submissions import OptionInvalid, instant_of, job_submitted, json_content
from controlplane.contents import ContentStore
from controlplane.contents.keys import KeyForgotten
from controlplane.events import types
from controlplane.events.errors import envelope
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant, name_based_id, random_id
from controlplane.events.types import Cardinality, FusionRule, ValueKind
from controlplane.events.values import ValueInvalid, typed_value
from controlplane.gateway.callers import CALLER
from controlplane.gateway.capabilities import Capabilities
from controlplane.gateway.governance import Governance
from controlplane.log.positions import position_text
from controlplane.log.producer import LogProducer

LINE_LIMIT_BYTES: Final = 1_000_000
BULK_AT_ONCE: Final = 500


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
    kill: bool = Field(False, description="Conclude at once, even if the runner does not answer.")
    tree: bool = Field(False, description="Its child jobs as well.")


class ReprioritiseRequest(Model):
    """Where the job shall stand."""

    priority: int = Field(ge=0, le=9)
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
    unit: str | None = None
    valid_from: datetime | None = Field(None, description="Since when it holds; by default from the log time on.")
    valid_to: datetime | None = Field(None, description="Until when, not included; by default open.")
    confidence: float = Field(1.0, ge=0, le=1)
    source: Identifier | None = Field(None, description="Who says it; by default whoever asks.")
    assertion_id: Identifier | None = Field(
        None, description="Minted by the client, so that a retry is the same assertion."
    )
    inputs: list[str] = Field([], max_length=1000)
    supersedes: str | None = None
    tenant: Identifier | None = Field(None, description="By default that of whoever asks.")


class RetractionRequest(Model):
    """Which assertion is taken back, by whom."""

    subject: str = Field(min_length=1, max_length=512)
    source: Identifier | None = Field(None, description="Who takes it back; by default whoever asks.")
    reason: str = Field("", max_length=1000)


class SourceRequest(Model):
    """How much a source is trusted."""

    source: str = Field(min_length=1, max_length=512, examples=["runner media/image.thumbnail@1"])
    reliability: float = Field(ge=0, le=1, description="Weight of its votes; 0 means that they say nothing.")
    reason: str = Field("", max_length=1000)


class PredicateRequest(Model):
    """The contract of a predicate."""

    predicate: Identifier
    value_kind: ValueKind | None = Field(None, description="Type of its object; by default any.")
    cardinality: Cardinality = Cardinality.UNDECLARED
    rule: FusionRule = FusionRule.DEFAULT
    unit: str | None = None
    description: str = ""


router = APIRouter(prefix="/v1")


def _door(request: Request) -> Door:
    return cast(Door, request.app.state.door)


def _now() -> Instant:
    return Instant(time.time_ns() // 1000)


def submission(request: JobRequest, door: Door, idempotency_key: str | None = None) -> types.JobSubmitted:
    """Return the event of a request.

    Raises:
        Refused: too much is in flight, the payload breaks the contract that runners declared, or an option is impossible.
    """
    door.governance.admit()
    caller = CALLER.get()
    tenant = caller.tenant_for(request.tenant if "tenant" in request.model_fields_set else None)
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
        return job_submitted(request, job_id=job_id, payload=payload, header=header, idempotency_key=idempotency_key)
    except KeyForgotten as error_found:
        raise refused("content_forgotten", str(error_found), field="secret") from error_found
    except (OptionInvalid, PydanticSerializationError) as error_found:
        raise refused("request_invalid", str(error_found), field="body") from error_found


async def _acknowledged(door: Door, event: Any) -> Acknowledgement:
    position = await door.producer.publish(event)
    return Acknowledgement(
        job_id=getattr(event, "job_id", None), event_id=event.header.event_id, position=position_text(position),
        correlation_id=event.header.correlation_id,
    )  # fmt: skip


@router.post("/jobs", status_code=202, tags=["jobs"])
async def submit(
    request: Request, job: JobRequest, idempotency_key: Annotated[str | None, Header(max_length=200)] = None
) -> Acknowledgement:
    """Submit a job; the answer comes when the log has it. The same id, or Idempotency-Key, again is the same job."""
    door = _door(request)
    return await _acknowledged(door, submission(job, door, idempotency_key))


@router.post("/jobs/bulk", tags=["jobs"])
async def submit_many(request: Request) -> Response:
    """Submit one job per line (NDJSON); answers with one acknowledgement or problem per line, in the same order."""
    return AnswerWhileReading(_bulk(request, _door(request)))


class AnswerWhileReading(Response):
    """An answer that is made while its request is read; the stock streaming answer would take parts of the request away."""

    media_type = "application/x-ndjson"

    def __init__(self, parts: AsyncIterator[bytes]) -> None:
        """Take the parts of the answer."""
        super().__init__()
        del self.headers["content-length"]
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the parts as they come."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for part in self._parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _bulk(request: Request, door: Door) -> AsyncIterator[bytes]:
    lines: list[bytes] = []
    async for line in _lines(request):
        lines.append(line)
        if len(lines) >= BULK_AT_ONCE:
            yield await _submit_lines(lines, door)
            lines = []
    if lines:
        yield await _submit_lines(lines, door)


async def _lines(request: Request) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in request.stream():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line.strip():
                yield line
        if len(rest) > LINE_LIMIT_BYTES:
            yield rest  # Too long to be a job: its answer says so, and what follows cannot be told apart from it.
            return
    if rest.strip():
        yield rest


async def _submit_lines(lines: list[bytes], door: Door) -> bytes:
    answers: list[dict[str, Any]] = [{} for _ in lines]
    events: list[tuple[int, types.JobSubmitted]] = []
    for index, line in enumerate(lines):
        try:
            if len(line) > LINE_LIMIT_BYTES:
                raise refused(
                    "payload_too_large", f"Expected a line of at most {LINE_LIMIT_BYTES} bytes, but found more."
                )
            events.append((index, submission(JobRequest.model_validate_json(line), door)))
        except Refused as fault:
            answers[index] = problem_fields(fault.error, fault.status)
        except ValidationError as fault:
            first = fault.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "line"
            error = envelope("request_invalid", f"Expected {field} to be valid, but: {first['msg']}.", field=field)
            answers[index] = problem_fields(error, 422)
    positions = await door.producer.send([door.producer.record(event) for _, event in events])
    for (index, event), position in zip(events, positions, strict=True):
        answers[index] = {
            "job_id": event.job_id, "event_id": event.header.event_id, "position": position_text(position),
            "correlation_id": event.header.correlation_id,
        }  # fmt: skip
    return b"".join(msgspec.json.encode(answer) + b"\n" for answer in answers)


def command_header(door: Door, name: str, correlation_id: str) -> types.EventHeader:
    """Return the header of a command that whoever asks gives."""
    caller = CALLER.get()
    return outside_header(
        name, random_id(), door.producer.identity, _now(), correlation_id=correlation_id, tenant=caller.tenant,
        actor=caller.name,
    )  # fmt: skip


@router.post("/jobs/{job_id:path}/cancel", status_code=202, tags=["jobs"])
async def cancel(request: Request, job_id: Identifier, body: CancelRequest | None = None) -> Acknowledgement:
    """Ask for a job to be cancelled; what became of it is an event."""
    door, wish = _door(request), body or CancelRequest()
    header = command_header(door, "JobCancelRequested", job_id)
    return await _acknowledged(
        door, types.JobCancelRequested(header=header, job_id=job_id, reason=wish.reason, kill=wish.kill, tree=wish.tree)
    )


@router.post("/jobs/{job_id:path}/reprioritise", status_code=202, tags=["jobs"])
async def reprioritise(request: Request, job_id: Identifier, body: ReprioritiseRequest) -> Acknowledgement:
    """Ask for a waiting job to move in its queue."""
    door = _door(request)
    header = command_header(door, "JobReprioritiseRequested", job_id)
    event = types.JobReprioritiseRequested(header=header, job_id=job_id, priority=body.priority, reason=body.reason)
    return await _acknowledged(door, event)


@router.post("/assertions", status_code=202, tags=["truths"])
async def assert_truth(request: Request, body: AssertionRequest) -> Acknowledgement:
    """Assert something of a subject; the answer's event id is the assertion id."""
    door = _door(request)
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
    identity = body.assertion_id or random_id()
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
    door = _door(request)
    event = types.TruthRetracted(
        header=command_header(door, "TruthRetracted", assertion_id), subject=body.subject, assertion_id=assertion_id,
        source=types.Source(kind=types.SourceKind.CLIENT, name=CALLER.get().source_for(body.source)), reason=body.reason,
    )  # fmt: skip
    return await _acknowledged(door, event)


@router.post("/predicates", status_code=202, tags=["truths"])
async def declare_predicate(request: Request, body: PredicateRequest) -> Acknowledgement:
    """Declare how a predicate's competing assertions are fused."""
    door = _door(request)
    event = types.PredicateDeclared(
        header=command_header(door, "PredicateDeclared", body.predicate), subject=f"predicate:{body.predicate}",
        predicate=body.predicate, cardinality=body.cardinality, rule=body.rule, unit=body.unit, description=body.description,
        value_kind=body.value_kind,
    )  # fmt: skip
    return await _acknowledged(door, event)


@router.post("/sources", status_code=202, tags=["truths"])
async def declare_source(request: Request, body: SourceRequest) -> Acknowledgement:
    """Declare how reliable a source is; answers as of an earlier moment keep the weight of that moment."""
    door = _door(request)
    event = types.SourceDeclared(
        header=command_header(door, "SourceDeclared", body.source), subject=f"source:{body.source}", source_name=body.source,
        reliability=body.reliability, reason=body.reason,
    )  # fmt: skip
    return await _acknowledged(door, event)
