"""The change feed over HTTP: pages for those who ask again, server-sent events for those who stay."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

import msgspec
from fastapi import FastAPI, Header, Query, Request
from fastapi.responses import Response, StreamingResponse

from controlplane.api import truths as answers
from controlplane.api.models import Reflects
from controlplane.api.problems import Refused, problem_fields
from controlplane.events.catalog import TRUTH
from controlplane.events.values import canonical_json
from controlplane.truthcore_projector.asking import (
    Asked,
    AsOfText,
    Limit,
    MinPosition,
    WaitSeconds,
    as_of_from,
    cursor_from,
)
from controlplane.truthcore_projector.cursors import Cursor
from controlplane.truthcore_projector.feed import Place, Told, place_of, told
from controlplane.truthcore_projector.moments import AsOf, bounds
from controlplane.truthcore_projector.projector import Projector
from controlplane.truthcore_projector.store import positions_in
from controlplane.truthcore_projector.truths import Wanted

EVENTS: Final = "text/event-stream"
QUIET_SECONDS: Final = 10.0
"""A feed without changes says so often where its reader stands: it is alive, and going on from there costs nothing."""
LOOK_SECONDS: Final = 0.25
"""Other shards do not tell when they moved: they are looked at so often."""
EVENTS_AT_ONCE: Final = 200
_TAKEN_FOR_BREAKS: Final = str.maketrans({letter: f"\\u{ord(letter):04x}" for letter in "\x85\u2028\u2029"})
"""Only a line feed ends a line of the stream, but Python's `splitlines`, and with it httpx, ends one at these as well."""

Text = Annotated[str, Query(min_length=1, max_length=1000, description="`*` stands for anything.")]
Confidence = Annotated[float, Query(ge=0, le=1, description="Of the truth before or after the change.")]
PlaceText = Annotated[
    str | None, Query(max_length=4000, description="A place that the feed gave: go on behind it.", examples=["0:0"])
]

LastEventId = Annotated[str | None, Header(max_length=4000, examples=["0:0"])]


def add_feed(app: FastAPI, asked: Asked, projector: Projector) -> None:
    """Give TruthCore its change feed; it stands before paths that would take its name for something else."""

    @app.get("/v1/truths/changes", response_model=answers.TruthChangesAnswer)
    async def changes(
        request: Request, subject: Text = "*", predicate: Text = "*", min_confidence: Confidence = 0.0, max_confidence: Confidence = 1.0,
        since: AsOfText = None, after: PlaceText = None, last_event_id: LastEventId = None,
        limit: Limit = 200, min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0,
    ) -> answers.TruthChangesAnswer | Response:  # fmt: skip
        """Tell what each record changed: from `since` (as `as_of`), behind `after` or the header `Last-Event-ID`, else from now on."""
        wanted = Wanted(
            subject=subject, predicate=predicate, min_confidence=min_confidence, max_confidence=max_confidence
        )
        begin, known = cursor_from(place_of, last_event_id or after, "after"), as_of_from(since, "since")

        def work(cursor: Cursor, place: Place | None, most: int) -> list[Told]:
            place = place or _begin(cursor, known)
            # A partition that has no record yet is read from its beginning, too.
            vector = dict.fromkeys(range(projector.count(TRUTH.name)), 0) | place.vector
            return told(cursor, msgspec.structs.replace(place, vector=vector), wanted, most)

        async def look(place: Place | None, most: int, *, first: bool) -> tuple[list[Told], Reflects]:
            return await asked(min_position if first else None, wait_seconds, lambda c: work(c, place, most))

        begun = projector.version
        found, reflects = await look(begin, limit, first=True)
        if EVENTS not in request.headers.get("accept", ""):
            return answers.TruthChangesAnswer(
                changes=[_change(one) for one in found if one.change], place=str(found[-1].place), reflects=reflects
            )

        async def events() -> AsyncIterator[bytes]:
            some, now, version = found, reflects, begun
            while True:
                for one in some:
                    yield _event(one, now)
                if not any(one.change for one in some):
                    await projector.moved(version, QUIET_SECONDS if projector.shard.of == 1 else LOOK_SECONDS)
                version = projector.version
                try:
                    some, now = await look(some[-1].place, EVENTS_AT_ONCE, first=False)
                except (
                    Refused
                ) as refusal:  # The stream is open: the envelope is its last event, and the reader comes again.
                    yield _sent("problem", None, problem_fields(refusal.error, refusal.status))
                    return

        headers = {"cache-control": "no-store", "controlplane-answered-by": ",".join(reflects.answered_by)}
        return StreamingResponse(events(), media_type=EVENTS, headers=headers)


def _begin(cursor: Cursor, known: AsOf | None) -> Place:
    """Return the place behind what was known at a moment; without one, behind all there is."""
    ends, there = bounds(cursor, known), positions_in(cursor)
    return Place(
        vector={
            partition: min(offset, ends.get((topic, partition), offset))
            for (topic, partition), offset in there.items()
            if topic == TRUTH.name
        }
    )


def _change(one: Told) -> answers.TruthChangeTold:
    assert one.change is not None
    assert one.cause is not None
    assert one.at is not None
    return answers.TruthChangeTold(**dict(one.change), cause=one.cause, at=one.at, place=str(one.place))


def _event(one: Told, reflects: Reflects) -> bytes:
    if one.change is not None:
        return _sent("change", str(one.place), _change(one).model_dump(mode="json"))
    lag = {
        "lag_records": reflects.lag_records,
        "lag_seconds": reflects.lag_seconds,
        "answered_by": reflects.answered_by,
    }
    return _sent("place", str(one.place), lag)


def _sent(kind: str, place: str | None, data: Any) -> bytes:
    """Return one server-sent event; canonical JSON has no line breaks, and none that a client's reader of lines takes for one."""
    identity = "" if place is None else f"id: {place}\n"
    text = canonical_json(data).translate(_TAKEN_FOR_BREAKS)
    return f"event: {kind}\n{identity}data: {text}\n\n".encode()
