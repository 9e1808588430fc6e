"""The two questions about time: what the log knew then (`as_of`), and when it holds in the world (`valid_at`)."""

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from controlplane.events.catalog import TOPICS, TRUTH
from controlplane.log.positions import Partition, parse_position
from controlplane.truthcore_projector.cursors import Cursor, tuples

AsOf = datetime | Mapping[Partition, int]
"""What the log knew: up to a time, or up to an offset (included) per partition; partitions that are not named, whole."""

ALL: str = "true"
"""The condition that everything on the log meets."""


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """Where a question about truth stands: a condition on rows of the truth topic, and a moment in the world; None is now."""

    known: str = ALL
    instant: datetime | None = None


NOW = Moment()


def as_of_text(text: str) -> AsOf:
    """Return what `as_of` names: a time, or positions separated by commas.

    Raises:
        ValueError: it is neither.
    """
    try:
        if "/" in text:
            places = [parse_position(one) for one in text.split(",")]
            return {(place.topic, place.partition): place.offset for place in places}
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(
            f"Expected a time like 2026-01-31T12:00:00Z or positions topic/partition/offset, but found {text[:200]!r}."
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def bounds(cursor: Cursor, as_of: AsOf | None) -> dict[Partition, int]:
    """Return per partition the first offset that was not known yet; partitions that are not named were known whole.

    For a time that is the end of the longest prefix whose append times are all at or before it.
    """
    match as_of:
        case None:
            return {}
        case datetime():
            query = 'SELECT topic, partition, min("offset") AS first FROM events WHERE log_time > ? GROUP BY topic, partition'
            first = "SELECT topic, partition, min(first) FROM parts GROUP BY ALL"
            some = tuples(cursor, query, [naive(as_of)], gather=first)
            return {(topic, partition): offset for topic, partition, offset in some}
        case _:
            return {place: offset + 1 for place, offset in as_of.items()}


def moment(cursor: Cursor, as_of: AsOf | None, valid_at: datetime | None) -> Moment:
    """Return where a question stands; without `valid_at` the moment in the world is that of `as_of`, or now."""
    known = _condition(bounds(cursor, as_of))
    if valid_at is not None:
        return Moment(known=known, instant=naive(valid_at))
    match as_of:
        case None:
            return Moment(known=known)
        case datetime():
            return Moment(known=known, instant=naive(as_of))
        case _:
            query = f"SELECT max(log_time) AS newest FROM events WHERE topic = ? AND {known}"
            (row,) = tuples(cursor, query, [TRUTH.name], gather="SELECT max(newest) FROM parts")
            # A log that knew nothing yet has no moment of its own; whatever is asked of it, nothing holds.
            return Moment(known=known, instant=row[0] or datetime(1970, 1, 1))  # noqa: DTZ001 -- as the tables hold it


def _condition(ends: Mapping[Partition, int]) -> str:
    return _before({partition: end for (topic, partition), end in ends.items() if topic == TRUTH.name})


def condition(ends: Mapping[Partition, int]) -> str:
    """Return the condition on rows of any topic that they were known, given the first offsets that were not."""
    by_topic: dict[str, dict[int, int]] = {}
    for (topic, partition), end in sorted(ends.items()):
        if topic in TOPICS:
            by_topic.setdefault(topic, {})[partition] = end
    if not by_topic:
        return ALL
    cases = " ".join(f"WHEN '{topic}' THEN {_before(some)}" for topic, some in by_topic.items())
    return f"(CASE topic {cases} ELSE true END)"


def _before(ends: Mapping[int, int]) -> str:
    """Return the condition that a row lies before its partition's end, where it has one; a row is compared with one end only."""
    if not ends:
        return ALL
    cases = " ".join(f'WHEN {int(one)} THEN "offset" < {int(end)}' for one, end in sorted(ends.items()))
    return f"(CASE partition {cases} ELSE true END)"


def naive(moment: datetime) -> datetime:
    """Return a time as the tables hold it: UTC, without saying so."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        return aware.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:  # Within a day of the first or the last that there is: nothing was before or will be after.
        return datetime.min if moment.year == 1 else datetime.max  # noqa: DTZ901 -- as the tables hold it
