"""Live events over HTTP: all of them, filtered, or those of one job from its beginning to its end."""

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, cast
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Request

from controlplane.api.models import Identifier
from controlplane.api.problems import Refused, refused
from controlplane.api.reading import MinPosition, WaitSeconds
from controlplane.events.catalog import EVENT_TYPES, JOB_LOGS, JOBS, PROGRESS, ROUTING, SUBMISSIONS, TOPICS, TRUTH
from controlplane.events.identity import partition_of
from controlplane.gateway.callers import CALLER
from controlplane.gateway.cores import TruthCores
from controlplane.gateway.live import Tail
from controlplane.gateway.rooms import MEDIA_TYPE, LiveAnswer, Room
from controlplane.gateway.streams import ID_PATTERN, Chosen, Stream, VectorInvalid, single_position, spoken, vector_from
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
        alias="Last-Event-ID", max_length=8000, pattern=ID_PATTERN, examples=["submissions:0=0"],
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

router = APIRouter(prefix="/v1", tags=["events"])


def _tail(request: Request) -> Tail:
    return cast(Tail, request.app.state.tail)


@contextlib.asynccontextmanager
async def _listening(request: Request) -> AsyncIterator[None]:
    with cast(Room, request.app.state.streams).place():
        async with _tail(request).listening():
            yield


async def _answer(
    request: Request, chosen: Chosen, places: Sequence[Partition], resume: str | None, seconds: float, history: "_History | None" = None
) -> LiveAnswer:  # fmt: skip
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
        _judge(tail, positions)
        stream = Stream(tail, chosen, positions, seconds=seconds)
        return LiveAnswer(_told(stream, positions, history), held.pop_all())


class _History:
    """What TruthCore knows of a job, and up to where."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.events: list[dict[str, Any]] = answer["events"]
        self.positions: dict[Partition, int] = {
            (topic, int(number)): following
            for topic, partitions in answer["reflects"]["positions"].items()
            for number, following in partitions.items()
        }


async def _told(stream: Stream, positions: dict[Partition, int], history: _History | None) -> AsyncIterator[bytes]:
    if history is not None and history.events:
        stream.note([one["event_type"] for one in history.events])
        yield spoken(history.events, positions)
    async for part in stream.parts():
        yield part


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
) -> LiveAnswer:
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
    "/jobs/{job_id:path}/events/stream", response_class=LiveAnswer, status_code=200, responses=_STREAM, tags=["jobs"]
)
async def stream_job(
    request: Request, job_id: Identifier, max_seconds: Seconds = SECONDS_AT_MOST, last_event_id: LastEventId = None,
    min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0,
) -> LiveAnswer:  # fmt: skip
    """Stream everything about one job: what happened so far, then what happens, until it is concluded."""
    places = _places_of_job(_tail(request), job_id)
    history = None if last_event_id else await _history(request, job_id, min_position or [], wait_seconds)
    return await _answer(
        request, Chosen(job_id=job_id, sees=CALLER.get().sees), places, last_event_id, max_seconds, history
    )


async def _history(request: Request, job_id: str, positions: list[str], wait_seconds: float) -> _History:
    cores = cast(TruthCores, request.app.state.truthcores)
    query = "&".join([*(f"min_position={quote(one)}" for one in positions), f"wait_seconds={wait_seconds}"])
    answer = await cores.ask("GET", f"/v1/jobs/{quote(job_id)}/events", query.encode(), b"")
    found = json.loads(bytes(answer.body))
    if answer.status_code != 200:
        raise _passed_on(found, answer.status_code)
    return _History(found)


def _passed_on(problem: dict[str, Any], status: int) -> Refused:
    return refused(problem["code"], problem["message"], field=problem.get("field"), found=problem.get("found"))
