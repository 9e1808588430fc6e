"""The change feed of truths: record by record of the truth topic, what each did to what is true.

Where a reader stands is a place: the next offset of each partition of the truth topic. One step takes the next record of one partition; the truths that it touches are
fused before and after it, both at its own log time. So a reader that goes on at a place misses nothing and is told nothing twice, whoever answers. What begins or
ends by the world's time alone is no change of what is known: `truth history` and `truth diff` tell it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from controlplane.api.models import TruthView
from controlplane.api.truths import TruthChange
from controlplane.events.catalog import TRUTH
from controlplane.truthcore_projector.cursors import DISTINCT, Cursor, rows, tuples
from controlplane.truthcore_projector.differences import change_of
from controlplane.truthcore_projector.moments import condition
from controlplane.truthcore_projector.truths import Wanted, matches, page_end, truth, truth_cursor
from controlplane.truthcore_projector.votes import Pair, contracts, reliabilities, standing_about

RECORDS_AT_ONCE: Final = 500
PAIRS_AT_ONCE: Final = 500
Row = Mapping[str, Any]
Vector = dict[int, int]
"""Partition of the truth topic -> next offset."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a reader of the feed stands: behind these records, and perhaps within the changes of the next one."""

    vector: Vector
    within: tuple[int, Pair] | None = None
    """Partition of the next record, and the last pair that was told of it."""

    def __str__(self) -> str:
        text = ",".join(f"{partition}:{offset}" for partition, offset in sorted(self.vector.items()))
        return text if self.within is None else f"{text}~{self.within[0]}~{page_end(self.within[1])}"


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One change and where a reader stands behind it; without a change, a place alone."""

    place: Place
    change: TruthChange | None = None
    cause: str | None = None
    at: datetime | None = None


def place_of(text: str) -> Place:
    """Return the place that a reader names.

    Raises:
        ValueError: the feed gave no such place.
    """
    try:
        vector_text, mark, within = text.partition("~")
        vector = {int(one): int(offset) for one, _, offset in (part.partition(":") for part in vector_text.split(","))}
        if min([*vector, *vector.values()]) < 0 or max([*vector, *vector.values()]) >= 2**63:
            raise ValueError
        partition, _, pair = within.partition("~")
        return Place(vector=vector, within=(int(partition), truth_cursor(pair)) if mark else None)
    except ValueError as error:
        raise ValueError(f"Expected a place that the feed gave, like 0:12,1:7, but found {text[:200]!r}.") from error


def told(cursor: Cursor, place: Place, wanted: Wanted, limit: int) -> list[Told]:
    """Return the changes of the next records, of which at most so many are told; last, where a reader then stands."""
    steps = _next_records(cursor, place)
    found: list[Told] = []
    for chunk in _chunks(steps, _touched(cursor, steps)):
        for one in _chunk_told(cursor, place, chunk):
            place = one.place
            if one.change is not None and chosen(one.change, wanted):
                found.append(one)
                if len(found) == limit:
                    return found
    if not found or str(found[-1].place) != str(place):
        found.append(Told(place=place))
    return found


def chosen(change: TruthChange, wanted: Wanted) -> bool:
    """Say whether a change is asked for: by its names, and by how sure the truth was before or is after it."""
    sure = [one.confidence for one in (change.before, change.after) if one is not None]
    return (
        matches(change.subject, wanted.subject)
        and matches(change.predicate, wanted.predicate)
        and any(wanted.min_confidence <= one <= wanted.max_confidence for one in sure)
    )


def _next_records(cursor: Cursor, place: Place) -> Sequence[Row]:
    """Return the next records of the truth topic, in an order that is that of the offsets within each partition."""
    behind = " OR ".join(
        f'(partition = {int(one)} AND "offset" >= {int(offset)})' for one, offset in place.vector.items()
    )
    query = f"""SELECT *, max(log_time) OVER (PARTITION BY partition ORDER BY "offset") AS known_at
      FROM (SELECT partition, "offset", log_time, event_type FROM events WHERE topic = '{TRUTH.name}' AND ({behind}))"""
    first = "" if place.within is None else f"partition <> {int(place.within[0])}, "
    tail = f'ORDER BY {first}known_at, partition, "offset" LIMIT {RECORDS_AT_ONCE}'
    # A record of which a part was told comes first; those of its partition behind it wait for their turn.
    some = rows(cursor, query, tail=tail)
    if place.within is None:
        return some
    partition = place.within[0]
    # A replica that has not read that record yet has nothing to tell before it.
    return [one for one in some[:1] if (one["partition"], one["offset"]) == (partition, place.vector[partition])]


def _touched(cursor: Cursor, steps: Sequence[Row]) -> dict[tuple[int, int], list[Pair] | None]:
    """Return the pairs that each record bears on; None for a declaration, which may bear on any number."""
    if not steps:
        return {}
    places = {"p": [one["partition"] for one in steps], "o": [one["offset"] for one in steps]}
    among = 'SEMI JOIN (SELECT unnest($p::INTEGER[]) AS p, unnest($o::BIGINT[]) AS o) AS asked ON partition = p AND "offset" = o'
    said = rows(
        cursor, f'SELECT partition, "offset", subject, predicate, supersedes AS gone FROM assertions {among}', places
    )
    taken = rows(cursor, f'SELECT partition, "offset", subject, assertion_id AS gone FROM retractions {among}', places)
    gone = [(row["subject"], row["gone"]) for row in (*said, *taken) if row["gone"] is not None]
    query = """SELECT DISTINCT subject, assertion_id, predicate FROM assertions
      SEMI JOIN (SELECT unnest($s::VARCHAR[]) AS s, unnest($a::VARCHAR[]) AS a) AS asked ON subject = s AND assertion_id = a"""
    about: dict[tuple[str, str], set[Pair]] = {}
    if gone:
        names = {"s": [one for one, _ in gone], "a": [one for _, one in gone]}
        for subject, assertion, predicate in tuples(cursor, query, names, gather=DISTINCT):
            about.setdefault((subject, assertion), set()).add((subject, predicate))
    found: dict[tuple[int, int], list[Pair] | None] = {
        (one["partition"], one["offset"]): None if one["event_type"].endswith("Declared") else [] for one in steps
    }
    for row in (*said, *taken):
        pairs = set(about.get((row["subject"], row["gone"]), ()))
        if "predicate" in row:
            pairs.add((row["subject"], row["predicate"]))
        found[(row["partition"], row["offset"])] = sorted(pairs)
    return found


Chunk = list[tuple[Row, list[Pair] | None]]


def _chunks(steps: Iterable[Row], touched: Mapping[tuple[int, int], list[Pair] | None]) -> Iterator[Chunk]:
    """Cut records into runs in which no pair is touched twice, so that a run is looked up at once; a declaration stands alone."""
    run: Chunk = []
    seen: set[Pair] = set()
    for row in steps:
        pairs = touched[(row["partition"], row["offset"])]
        if run and (pairs is None or seen & set(pairs)):
            yield run
            run, seen = [], set()
        run.append((row, pairs))
        seen |= set(pairs or ())
        if pairs is None:
            yield run
            run, seen = [], set()
    if run:
        yield run


def _chunk_told(cursor: Cursor, place: Place, chunk: Chunk) -> Iterator[Told]:
    vector = dict(place.vector)
    after = vector | {row["partition"]: row["offset"] + 1 for row, _ in chunk}
    row, pairs = chunk[0]
    if pairs is None:
        yield from _declaration_told(cursor, place, row, after)
        return
    every = sorted({pair for _, some in chunk for pair in some or ()})
    before_at, after_at = _Truths(cursor, every, vector), _Truths(cursor, every, after)
    for row, pairs in chunk:
        following = vector | {row["partition"]: row["offset"] + 1}
        begun = place.within[1] if place.within is not None and row is chunk[0][0] else None
        left = [pair for pair in pairs or () if begun is None or pair > begun]
        found = [
            change
            for pair in left
            if (change := change_of(pair, before_at(pair, row["known_at"]), after_at(pair, row["known_at"])))
        ]
        yield from _step(found, row, vector, following)
        vector = following


def _step(
    found: Sequence[TruthChange], row: Row, vector: Vector, following: Vector, *, more: bool = False
) -> Iterator[Told]:
    """Yield the changes of one record; behind the last of them a reader stands behind the record, unless there is more of it."""
    cause = f"{TRUTH.name}/{row['partition']}/{row['offset']}"
    for number, change in enumerate(found):
        last = number == len(found) - 1 and not more
        within = None if last else (row["partition"], (change.subject, change.predicate))
        place = Place(vector=dict(following if last else vector), within=within)
        yield Told(place=place, change=change, cause=cause, at=row["known_at"])
    if not found and not more:
        yield Told(place=Place(vector=dict(following)))


def _declaration_told(cursor: Cursor, place: Place, row: Row, after: Vector) -> Iterator[Told]:
    """Yield what a declaration changed, of as many truths as it bears on, some at a time."""
    begin = place.within[1] if place.within is not None else None
    where = {"partition": row["partition"], "offset": row["offset"]}
    column, table = ("predicate", "predicates") if row["event_type"] == "PredicateDeclared" else ("source", "sources")
    names = [
        name
        for (name,) in tuples(
            cursor, f'SELECT {column} FROM {table} WHERE partition = $partition AND "offset" = $offset', where
        )
    ]
    while True:
        behind = "" if begin is None else "AND (subject, predicate) > ($subject, $name)"
        parameters = {"names": names} | ({} if begin is None else {"subject": begin[0], "name": begin[1]})
        query = f"SELECT DISTINCT subject, predicate FROM assertions WHERE {column} IN (SELECT unnest($names::VARCHAR[])) {behind}"
        pairs: list[Pair] = [
            (s, p)
            for s, p in tuples(cursor, query, parameters, tail=f"ORDER BY subject, predicate LIMIT {PAIRS_AT_ONCE + 1}")
        ]
        some, more = pairs[:PAIRS_AT_ONCE], len(pairs) > PAIRS_AT_ONCE
        before_at, after_at = _Truths(cursor, some, place.vector), _Truths(cursor, some, after)
        changes = [change_of(pair, before_at(pair, row["known_at"]), after_at(pair, row["known_at"])) for pair in some]
        yield from _step([one for one in changes if one], row, place.vector, after, more=more)
        if not more:
            return
        begin = some[-1]


class _Truths:
    """The truths of some pairs as the log knew them at a vector, for any moment in the world."""

    def __init__(self, cursor: Cursor, pairs: Sequence[Pair], vector: Vector) -> None:
        known = condition({(TRUTH.name, partition): offset for partition, offset in vector.items()})
        self._standing = standing_about(cursor, pairs, known) if pairs else {}
        self._contracts = contracts(cursor, [p for _, p in pairs], known) if pairs else {}
        sources = {row["source"] for some in self._standing.values() for row in some}
        self._weights = reliabilities(cursor, sorted(sources), known) if sources else {}

    def __call__(self, pair: Pair, instant: datetime) -> TruthView | None:
        """Return the truth that holds at a moment, if there is one."""
        some = [row for row in self._standing.get(pair, ()) if _holds(row, instant)]
        return truth(pair, some, self._contracts[pair[1]], self._weights)


def _holds(row: Row, instant: datetime) -> bool:
    since: datetime = row["valid_from"] or row["log_time"]
    return since <= instant and (row["valid_to"] is None or row["valid_to"] > instant)
