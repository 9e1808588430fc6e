"""Live events over HTTP: all of them, filtered, or those of one job from its beginning to its end."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, cast

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from controlplane.api.models import Identifier
from controlplane.api.problems import Refused, refused
from controlplane.api.reading import MinPosition, WaitSeconds
from controlplane.events.catalog import EVENT_TYPES, JOB_LOGS, JOBS, PROGRESS, ROUTING, SUBMISSIONS, TOPICS, TRUTH
from controlplane.events.identity import partition_of
from controlplane.gateway.callers import CALLER
from controlplane.gateway.cores import TruthCores
from controlplane.gateway.histories import History, is_concluded
from controlplane.gateway.live import Tail
from controlplane.gateway.rooms import MEDIA_TYPE, LiveAnswer, Room
from controlplane.gateway.streams import (
    ID_PATTERN,
    VECTOR_LIMIT_CHARACTERS,
    Chosen,
    Stream,
    VectorInvalid,
    ending,
    is_end,
    single_position,
    spoken,
    vector_from,
)
from controlplane.log.positions import Partition, parse_position
from controlplane.log.reader import LogReader

SECONDS_AT_MOST: Final = 3600.0
BY_JOB: Final = (SUBMISSIONS, JOBS, PROGRESS, JOB_LOGS)
"""A job's records are in one partition of each of these: that of its id."""
OF_JOBS: Final = (*BY_JOB, ROUTING, TRUTH)

TopicName = StrEnum("TopicName", {name: name for name in TOPICS})  # type: ignore[misc] # of the catalog
EventName = StrEnum("EventName", {name: name for name in EVENT_TYPES})  # type: ignore[misc] # of the catalog
Seconds = Annotated[
    float,
    Query(gt=0, le=SECONDS_AT_MOST, description="How long the stream lasts; its last event says where to resume."),
]
LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID", max_length=VECTOR_LIMIT_CHARACTERS, pattern=ID_PATTERN, examples=["submissions:0=0"],
        description="The id of the last event that was seen: the stream goes on exactly there. Or a log position: its partition goes on "
        "after it, the others with what was appended from its time on.",
    ),
]  # fmt: skip
_EVENT: Final = {
    "type": "object",
    "description": "One event of the stream.",
    "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
}
_STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Events as they are appended: `data` is an EventView, `id` a position vector, where there is one. "
        "The last event is named `end` and says why the stream ends (time, slow, concluded, stopping, unavailable) and where to resume.",
        "content": {MEDIA_TYPE: {"schema": _EVENT}},
    }
}

_STREAM_OF_JOB: Final = {
    **_STREAM,
    204: {"description": "The stream ended before, concluded: nothing follows. An EventSource does not connect again."},
}

router = APIRouter(prefix="/v1", tags=["events"])


def _tail(request: Request) -> Tail:
    return cast(Tail, request.app.state.tail)


def _cores(request: Request) -> TruthCores:
    return cast(TruthCores, request.app.state.truthcores)


@contextlib.asynccontextmanager
async def _listening(request: Request) -> AsyncIterator[None]:
    with cast(Room, request.app.state.streams).place():
        async with _tail(request).listening():
            yield


async def _answer(
    request: Request,
    chosen: Chosen,
    places: Sequence[Partition],
    resume: str | None,
    seconds: float,
    *,
    of_job: str | None = None,
    history: History | None = None,
) -> Response:
    """Return a stream from `resume` on, or behind a history; that of one job is over when it was told to its end before."""
    async with contextlib.AsyncExitStack() as held:
        await held.enter_async_context(_listening(request))
        tail = _tail(request)
        positions = {place: tail.next[place] for place in places}
        try:
            if resume:
                positions |= {one: at for one, at in (await _resumed(tail, resume, places)).items() if one in positions}
            elif history is not None:
                positions |= {one: at for one, at in history.positions.items() if one in positions}
        except VectorInvalid as error:
            raise refused("request_invalid", str(error), field="Last-Event-ID", found=resume) from error
        if resume:
            _judge(tail, positions)
        stream = Stream(tail, chosen, positions, seconds=seconds)
        if resume and of_job is not None and await is_concluded(_cores(request), of_job, positions):
            if is_end(resume):
                return Response(status_code=204, headers={"Cache-Control": "no-store"})
            stream.conclude()
        return LiveAnswer(_told(stream, positions, history), held.pop_all())


async def _told(stream: Stream, positions: dict[Partition, int], history: History | None) -> AsyncIterator[bytes]:
    """Yield a job's history and then the stream behind it; what breaks off within the history has no id, and is told again."""
    last: str | None = None
    try:
        async for events, is_last in _pages(history):
            stream.note([one["event_type"] for one in events])
            if events:
                last = events[-1]["position"]
                yield spoken(events, positions if is_last else None)
    except Refused:
        yield ending("unavailable", last or positions)
        return
    async for part in stream.parts():
        yield part


async def _pages(history: History | None) -> AsyncIterator[tuple[list[dict[str, Any]], bool]]:
    if history is not None:
        async for page in history.pages():
            yield page


async def _resumed(tail: Tail, text: str, places: Sequence[Partition]) -> dict[Partition, int]:
    """Return the positions that an id names.

    Raises:
        VectorInvalid: it is neither a vector nor a position.
        Refused: the log has no such record.
    """
    place = single_position(text)
    if place is None:
        return vector_from(text)
    offset = parse_position(text).offset
    async with LogReader(tail.connection, client_id="controlplane-gateway-resume") as reader:
        if place in tail.next and offset < tail.next[place]:
            await reader.assign({place: offset})
            batch = await reader.batch(timeout_seconds=5.0, max_records=1)
            for record in batch.get(place, ()):
                others = {one: record.timestamp for one in places if one != place}
                return {**await reader.offsets_at(others), place: offset + 1}
    raise refused(
        "not_found", f"Expected a record at {text[:200]}, but there is none.", field="Last-Event-ID", found=text
    )


def _judge(tail: Tail, positions: dict[Partition, int]) -> None:
    for (topic, partition), following in positions.items():
        end = tail.next[topic, partition]
        if following > end:
            text = f"Expected to resume within the log, but {topic}/{partition} ends before {following}, at {end}."
            raise refused("not_found", text, field="Last-Event-ID", found=following)


@router.get("/events/stream", response_class=LiveAnswer, status_code=200, responses=_STREAM)
async def stream_events(
    request: Request,
    topic: Annotated[list[TopicName] | None, Query(max_length=20, description="Only these topics.")] = None,
    event_type: Annotated[list[EventName] | None, Query(max_length=100, description="Only these types.")] = None,
    job_id: Annotated[Identifier | None, Query(description="Only what is about this job.")] = None,
    correlation_id: Annotated[str | None, Query(min_length=1, max_length=200, description="Only this chain.")] = None,
    max_seconds: Seconds = SECONDS_AT_MOST,
    last_event_id: LastEventId = None,
) -> Response:
    """Stream records as they are appended, from now on or from where `Last-Event-ID` says."""
    chosen = Chosen(
        topics=frozenset(topic or ()), event_types=frozenset(event_type or ()), job_id=job_id, correlation_id=correlation_id, sees=CALLER.get().sees,
    )  # fmt: skip
    places = _places_of_job(_tail(request), job_id) if job_id else _tail(request).places
    return await _answer(request, chosen, [one for one in places if chosen.topic(one[0])], last_event_id, max_seconds)


def _places_of_job(tail: Tail, job_id: str) -> list[Partition]:
    counts = {topic: number + 1 for topic, number in tail.places}
    own = {topic.name: partition_of(job_id.encode(), counts[topic.name]) for topic in BY_JOB}
    names = {topic.name for topic in OF_JOBS}
    return [one for one in tail.places if one[0] in names and own.get(one[0], one[1]) == one[1]]


@router.get(
    "/jobs/{job_id:path}/events/stream",
    response_class=LiveAnswer,
    status_code=200,
    responses=_STREAM_OF_JOB,
    tags=["jobs"],
)
async def stream_job(
    request: Request, job_id: Identifier, max_seconds: Seconds = SECONDS_AT_MOST, last_event_id: LastEventId = None,
    min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0,
) -> Response:  # fmt: skip
    """Stream everything about one job: what happened so far, then what happens, until it is concluded."""
    places, chosen = _places_of_job(_tail(request), job_id), Chosen(job_id=job_id, sees=CALLER.get().sees)
    if last_event_id:
        return await _answer(request, chosen, places, last_event_id, max_seconds, of_job=job_id)
    history = await History.begun(_cores(request), job_id, min_position or [], wait_seconds)
    return await _answer(request, chosen, places, None, max_seconds, history=history)
