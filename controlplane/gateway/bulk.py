"""Many jobs in one request: lines of JSON in, one line of JSON out for each, while the request is still being read."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, cast

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from controlplane.api.models import JobRequest
from controlplane.api.problems import Refused, of_faults, problem_fields, refused
from controlplane.events.errors import envelope
from controlplane.events.identity import name_based_id
from controlplane.events.types import JobSubmitted, LogPosition
from controlplane.gateway.callers import CALLER
from controlplane.gateway.idempotency import LinesSeen, declared
from controlplane.gateway.limits import BodyLate, in_time
from controlplane.gateway.submissions import Door, submission
from controlplane.log.connection import LogUnavailable
from controlplane.log.positions import position_text
from controlplane.log.producer import OutgoingRecord, RecordTooLarge

LINE_LIMIT_BYTES: Final = 1_000_000
LINES_AT_ONCE: Final = 500
PATH: Final = "/v1/jobs/bulk"
MEDIA_TYPE: Final = "application/x-ndjson"
EXAMPLE: Final = '{"job_type": "image.thumbnail", "payload": {"image": "cat"}}\n{"job_type": "image.thumbnail"}\n'
_LINES: Final = {"schema": {"type": "string"}, "example": EXAMPLE}

router = APIRouter(tags=["jobs"], dependencies=[Depends(declared)])


class AnswerWhileReading(Response):
    """An answer that is made while its request is read; the stock streaming answer would take parts of the request away."""

    media_type = MEDIA_TYPE

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


@router.post(
    PATH,
    response_class=AnswerWhileReading,
    status_code=200,
    openapi_extra={"requestBody": {"required": True, "content": {MEDIA_TYPE: _LINES}}},
    responses={
        200: {"description": "One line for each line.", "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}
    },
)
async def submit_many(request: Request) -> Response:
    """Submit one job per line (NDJSON); answers with one acknowledgement or problem per line, in the same order.

    Lines without an id get one that follows from the Idempotency-Key, where there is one, and the number of the line. A line that came with another
    content before, under the same key and number, gets a problem (409) in its place.
    """
    state = request.app.state
    return AnswerWhileReading(_answers(request, cast(Door, state.door), cast(LinesSeen, state.lines_seen)))


class _Portion:
    """Some lines on their way: what is to be answered for each, and the records that are not acknowledged yet."""

    __slots__ = ("answers", "appended", "events", "lines", "positions", "seen")

    def __init__(self, size: int, seen: LinesSeen) -> None:
        self.seen = seen
        self.lines: list[str] = []
        """Those that the key and their numbers give; none without a key."""
        self.answers: list[dict[str, Any]] = [{}] * size
        self.events: list[JobSubmitted] = []
        self.positions: list[int] = []
        self.appended: asyncio.Future[list[LogPosition]] | None = None

    async def told(self) -> bytes:
        """Return the lines of the answer, once the log has what was accepted."""
        assert self.appended is not None
        try:
            found = await self.appended
        except LogUnavailable as fault:
            problem = problem_fields(envelope("log_unavailable", str(fault)), 503)
            for index in self.positions:
                self.answers[index] = problem
            for identity in self.lines:
                self.seen.forget(identity)
        else:
            for index, event, position in zip(self.positions, self.events, found, strict=True):
                header = event.header
                self.answers[index] = {
                    "job_id": event.job_id, "event_id": header.event_id, "position": position_text(position),
                    "correlation_id": header.correlation_id,
                }  # fmt: skip
        return msgspec.json.Encoder().encode_lines(self.answers)


async def _answers(request: Request, door: Door, seen: LinesSeen) -> AsyncIterator[bytes]:
    """Yield the answers of portions; while one is on its way to the log the next is judged."""
    key = request.headers.get("idempotency-key")
    ahead: _Portion | None = None
    number = 0
    try:
        async for lines in _portions(request):
            portion = _judged(lines, door, seen, key, number)
            number += len(lines)
            if ahead is not None:
                yield await ahead.told()
            ahead = portion
    except BodyLate as late:
        problem = problem_fields(envelope("request_timeout", str(late), field="body"), 408)
        last = msgspec.json.encode(problem) + b"\n"
    else:
        last = b""
    if ahead is not None:
        yield await ahead.told()
    if last:
        yield last


async def _portions(request: Request) -> AsyncIterator[list[bytes]]:
    """Yield the lines of a request, some at a time: what has come, at most `LINES_AT_ONCE`.

    Raises:
        BodyLate: nothing comes for too long.
    """
    rest = b""
    more = True
    while more:
        message = await in_time(request.receive)
        if message["type"] == "http.disconnect":
            return
        more = message.get("more_body", False)
        *lines, rest = (rest + message.get("body", b"")).split(b"\n")
        if not more or len(rest) > LINE_LIMIT_BYTES:
            lines.append(
                rest
            )  # Too long to be a job: its answer says so, and what follows cannot be told apart from it.
            more = more and len(rest) <= LINE_LIMIT_BYTES
        lines = [line for line in lines if line.strip()]
        for first in range(0, len(lines), LINES_AT_ONCE):
            yield lines[first : first + LINES_AT_ONCE]


def _judged(lines: list[bytes], door: Door, seen: LinesSeen, key: str | None, first: int) -> _Portion:
    portion = _Portion(len(lines), seen)
    records: list[OutgoingRecord] = []
    for index, line in enumerate(lines):
        try:
            if len(line) > LINE_LIMIT_BYTES:
                text = f"Expected a line of at most {LINE_LIMIT_BYTES} bytes, but found more."
                raise refused("payload_too_large", text, field="line")
            job = JobRequest.model_validate_json(line)
            minted = None if key is None else _minted(job, key, first + index)
            event = submission(job, door, minted)
            record = door.producer.record(event)
            if minted is not None and seen.another(minted, line):
                raise _other_content(key, first + index)
        except Refused as fault:
            portion.answers[index] = problem_fields(fault.error, fault.status)
        except RecordTooLarge as fault:
            portion.answers[index] = problem_fields(envelope("payload_too_large", str(fault)), 413)
        except ValidationError as fault:
            portion.answers[index] = problem_fields(of_faults(fault.errors(include_url=False), "line"), 422)
        else:
            records.append(record)
            portion.events.append(event)
            portion.positions.append(index)
            if minted is not None:
                portion.lines.append(minted)
    portion.appended = door.producer.send(records)
    return portion


def _minted(job: JobRequest, key: str, number: int) -> str:
    """Return the id of a line that names none."""
    caller = CALLER.get()
    tenant = job.tenant if "tenant" in job.model_fields_set else caller.home
    return name_based_id(f"{caller.name}/{tenant}/{key}/{number}")


def _other_content(key: str | None, number: int) -> Refused:
    text = f"Expected line {number + 1} under the Idempotency-Key {key!r:.200} with the content that it came with first, but found another."
    return refused("duplicate_with_other_content", text, field="Idempotency-Key", found=key)
