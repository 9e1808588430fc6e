"""Live streams of records (server-sent events): what is chosen, where a stream begins, and its words.

Source: WHATWG HTML, "Server-sent events". A stream's ids are position vectors: `topic=next,next,...;...` with the
next offset of each partition from 0 on, in hexadecimal, or `topic:partition=next,...` with those of some, topics without their common prefix. The id after some events says exactly where to resume; a heartbeat moves it, too.
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, Literal

import msgspec

from controlplane.api.plain import plain_record
from controlplane.events.catalog import TERMINAL, TRUTH
from controlplane.events.codec import UndecodableRecord, schema_of
from controlplane.events.header import EVERY_TENANT
from controlplane.gateway.live import LiveRecord, Tail, read_older
from controlplane.log.connection import LogUnavailable
from controlplane.log.positions import Partition, parse_position

PREFIX: Final = "controlplane."
HEARTBEAT_SECONDS: Final = 10.0
AFTER_CONCLUSION_SECONDS: Final = 1.5
"""Truths that follow from a conclusion come right after it."""
CONCLUSIONS: Final = frozenset(one.__name__ for one in TERMINAL)
VECTOR_LIMIT_CHARACTERS: Final = 16_000
"""180 partitions of each topic at hundreds of millions of records each; all headers together have twice as much."""
_GROUP: Final = r"[a-z]{1,20}(=[0-9a-f]{1,15}(,[0-9a-f]{1,15})*|:\d{1,6}=\d{1,18}(,\d{1,6}=\d{1,18})*)"
_END: Final = ";end"
"""What the id of an `end` has behind its vector when the stream ended because its job is concluded."""
ID_PATTERN: Final = rf"^(controlplane\.[a-z]{{1,20}}/\d{{1,6}}/\d{{1,18}}|{_GROUP}(;{_GROUP})*({_END})?)$"
"""Of an event: a position vector, or one log position."""

End = Literal["time", "slow", "concluded", "stopping", "unavailable"]


class VectorInvalid(ValueError):
    """Expected the id of an event of such a stream, or a log position, but found something else."""


def vector_text(positions: Mapping[Partition, int]) -> str:
    """Return positions as the id of an event."""
    by_topic: dict[str, dict[int, int]] = {}
    for (topic, partition), following in sorted(positions.items()):
        by_topic.setdefault(topic.removeprefix(PREFIX), {})[partition] = following
    return ";".join(topic + _group(some) for topic, some in by_topic.items())


def _group(some: Mapping[int, int]) -> str:
    if list(some) == list(range(len(some))):
        return "=" + ",".join(f"{following:x}" for following in some.values())
    return ":" + ",".join(f"{partition}={following}" for partition, following in some.items())


def vector_from(text: str) -> dict[Partition, int]:
    """Return the positions that an id names.

    Raises:
        VectorInvalid: it is none.
    """
    positions: dict[Partition, int] = {}
    try:
        for group in text[:VECTOR_LIMIT_CHARACTERS].removesuffix(_END).split(";"):
            topic, some, parts = group.partition(":")
            if not some:
                topic, _, parts = group.partition("=")
            for number, part in enumerate(parts.split(",")):
                partition, _, following = part.partition("=") if some else (str(number), "", part)
                if len(following) > 18 or len(partition) > 6:
                    raise ValueError(part)
                positions[PREFIX + topic, int(partition)] = int(following, 10 if some else 16)
    except ValueError as error:
        what = f"Expected a position or the id of an earlier event, but found {text[:200]!r}."
        raise VectorInvalid(what) from error
    return positions


def is_end(text: str) -> bool:
    """Return whether an id is that of the end of a stream whose job is concluded."""
    return text.endswith(_END)


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream tells: records that are like all of this."""

    topics: frozenset[str] = frozenset()
    event_types: frozenset[str] = frozenset()
    job_id: str | None = None
    correlation_id: str | None = None
    sees: Callable[[str], bool] = lambda tenant: True
    """Whether what belongs to a tenant is shown."""

    def topic(self, name: str) -> bool:
        """Return whether records of a topic can be chosen."""
        return not self.topics or name in self.topics

    def told(self, record: LiveRecord) -> dict[str, Any] | None:
        """Return a record as the JSON values of an `EventView`; None when it is not chosen."""
        if self.event_types and _event_type(record.value) not in self.event_types:
            return None
        for wanted in (self.job_id, self.correlation_id):
            if wanted is not None and wanted.encode() not in record.value and record.key != wanted.encode():
                return None
        view = event_fields(record)
        if not self.sees((view["event"].get("header") or {}).get("tenant", EVERY_TENANT)):
            return None
        if self.correlation_id is not None and view["correlation_id"] != self.correlation_id:
            return None
        return view if self.job_id is None or self._about_job(record, view) else None

    def _about_job(self, record: LiveRecord, view: dict[str, Any]) -> bool:
        if record.topic != TRUTH.name:
            return bool(view["key"] == self.job_id)
        evidence = view["event"].get("evidence") or {}
        return self.job_id in (evidence.get("job_id"), view["key"].removeprefix("job:"))


def _event_type(value: bytes) -> str:
    try:
        return schema_of(value).event_name
    except UndecodableRecord:
        return "UNDECODABLE"


def event_fields(record: LiveRecord) -> dict[str, Any]:
    """Return a record as the JSON values of an `EventView`."""
    event = plain_record(record.value)
    header = event.get("header") or {}
    cause = header.get("causation")
    log_time = _rfc3339(record.timestamp * 1000)
    producer = header.get("producer") or {}
    return {
        "position": record.position, "event_id": header.get("event_id") or "", "event_type": _event_type(record.value),
        "log_time": log_time, "occurred_at": _rfc3339(header["occurred_at"]) if "occurred_at" in header else log_time,
        "correlation_id": header.get("correlation_id") or "",
        "causation": f"{cause['topic']}/{cause['partition']}/{cause['offset']}" if cause else None,
        "producer": producer.get("service") or "", "key": record.key.decode("utf-8", "backslashreplace"), "event": event,
    }  # fmt: skip


def _rfc3339(micros: int) -> str:
    seconds, rest = divmod(micros, 1_000_000)
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:06d}Z"
    except (OverflowError, ValueError, OSError):
        return "1970-01-01T00:00:00.000000Z"  # A client's clock may say anything.


def spoken(views: list[dict[str, Any]], positions: Mapping[Partition, int] | None) -> bytes:
    """Return events as a part of the stream; the last one carries the id, so that what comes before it is told again, never lost.

    Without positions none does: the stream is not at a place from which it could go on.
    """
    parts = [b"data: " + msgspec.json.encode(view) for view in views]
    if positions is not None:
        parts[-1] = f"id: {vector_text(positions)}\n".encode() + parts[-1]
    return b"\n\n".join(parts) + b"\n\n"


def heartbeat(positions: Mapping[Partition, int]) -> bytes:
    """Return what says that the stream lives, and where it is."""
    return f": heartbeat\nid: {vector_text(positions)}\n\n".encode()


def ending(reason: End, place: Mapping[Partition, int] | str) -> bytes:
    """Return the last words of a stream: why it ends, and where to resume, behind positions or behind a record."""
    place = place if isinstance(place, str) else vector_text(place) + (_END if reason == "concluded" else "")
    data = msgspec.json.encode({"reason": reason, "resume": place}).decode()
    return f"id: {place}\nevent: end\ndata: {data}\n\n".encode()


class Stream:
    """One client's stream, from its positions on."""

    def __init__(self, tail: Tail, chosen: Chosen, positions: dict[Partition, int], *, seconds: float) -> None:
        """Tell what is chosen from these positions on, for so long."""
        self._tail = tail
        self._chosen = chosen
        self._positions = positions
        self._give_up_at = time.monotonic() + seconds
        self._concluded_at: float | None = None
        self._goal: dict[Partition, int] = {}

    def note(self, event_types: list[str]) -> None:
        """Take what was told before the stream began: a stream of one job ends soon after its conclusion."""
        if self._chosen.job_id is not None and CONCLUSIONS & set(event_types):
            self.conclude()

    def conclude(self) -> None:
        """End soon, but not before everything is told that is there by now."""
        self._concluded_at = time.monotonic()
        self._goal = {place: self._tail.next[place] for place in self._positions}

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the stream, part by part, until it ends; the last part says why."""
        reason: End | None = None
        try:
            if self._tail.older(self._positions):
                async for records in read_older(self._tail, self._positions, HEARTBEAT_SECONDS):
                    yield self._told(records) or heartbeat(self._positions)
                    if (reason := self._over()) is not None:
                        break
        except LogUnavailable:
            reason = "unavailable"
        if reason is None:
            yield heartbeat(self._positions)
        while reason is None and (reason := self._over()) is None:
            if self._tail.older(self._positions):
                reason = "slow"
            elif part := self._told(self._tail.after(self._positions)):
                yield part
            elif not await self._tail.moved(self._positions, self._patience()):
                yield heartbeat(self._positions)
        yield ending(reason, self._positions)

    def _told(self, records: list[LiveRecord]) -> bytes:
        views = [view for record in records if (view := self._chosen.told(record)) is not None]
        self.note([view["event_type"] for view in views])
        return spoken(views, self._positions) if views else b""

    def _over(self) -> End | None:
        if self._tail.closing:
            return "stopping"
        if self._concluded_at is not None and time.monotonic() - self._concluded_at >= AFTER_CONCLUSION_SECONDS and self._caught_up():  # fmt: skip
            return "concluded"
        return "time" if time.monotonic() >= self._give_up_at else None

    def _caught_up(self) -> bool:
        return all(self._positions[place] >= following for place, following in self._goal.items())

    def _patience(self) -> float:
        left = self._give_up_at - time.monotonic()
        if self._concluded_at is not None:
            left = min(left, self._concluded_at + AFTER_CONCLUSION_SECONDS - time.monotonic())
        return max(0.01, min(HEARTBEAT_SECONDS, left))


def single_position(text: str) -> Partition | None:
    """Return the partition of an id that is one log position, as `topic/partition/offset`; None when it is a vector.

    Raises:
        VectorInvalid: it is neither.
    """
    if "/" not in text:
        return None
    try:
        found = parse_position(text)
    except ValueError as error:
        raise VectorInvalid(str(error)) from error
    return found.topic, found.partition
