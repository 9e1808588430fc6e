"""One truth over time: as it was believed record by record, or as it holds through the world's time given what is known now."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from controlplane.api.models import TruthView
from controlplane.api.truths import TruthInterval
from controlplane.events.catalog import TRUTH
from controlplane.truthcore_projector.contracts import contract_of
from controlplane.truthcore_projector.cursors import Cursor, rows
from controlplane.truthcore_projector.moments import Moment
from controlplane.truthcore_projector.truths import truth

ASSERTIONS_LIMIT: Final = 5_000
Axis = Literal["believed", "valid"]
Row = Mapping[str, Any]


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the projection, and since when the log knew it: the end of the longest prefix that has it."""

    row: Row
    known_at: datetime

    @property
    def position(self) -> str:
        """Return where its record stands."""
        return f"{self.row['topic']}/{self.row['partition']}/{self.row['offset']}"


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that ever bore on one truth, each in the order of its partition."""

    subject: str
    predicate: str
    assertions: list[Told]
    withdrawals: dict[str, list[Told]]
    """By assertion id: what retracts or supersedes it."""
    declarations: list[Told]
    weights: list[Told]
    complete: bool


def story(cursor: Cursor, subject: str, predicate: str, known: str) -> Story:
    """Return what the log knew that bears on one truth."""
    # An id that comes again is no new assertion; what comes first in a partition is also known first.
    query = f"""SELECT a.* FROM assertions AS a ANTI JOIN assertions AS e ON e.subject = $s AND e.subject = a.subject
        AND e.partition = a.partition AND e.assertion_id = a.assertion_id AND e."offset" < a."offset"
      WHERE {known} AND a.subject = $s AND a.predicate = $p"""
    newest = f'ORDER BY partition, "offset" DESC LIMIT {ASSERTIONS_LIMIT + 1}'
    said = rows(cursor, query, {"s": subject, "p": predicate}, tail=newest)
    complete, said = len(said) <= ASSERTIONS_LIMIT, said[:ASSERTIONS_LIMIT][::-1]
    ids = list({row["assertion_id"] for row in said})
    query = f"""SELECT topic, partition, "offset", log_time, assertion_id AS gone FROM retractions
      WHERE {known} AND subject = $s AND assertion_id IN (SELECT unnest($ids))
      UNION ALL SELECT topic, partition, "offset", log_time, supersedes FROM assertions
      WHERE {known} AND subject = $s AND supersedes IN (SELECT unnest($ids))"""
    in_order = 'ORDER BY partition, "offset"'
    gone = rows(cursor, query, {"s": subject, "ids": ids}, tail=in_order)
    query = f"SELECT * FROM predicates WHERE {known} AND predicate = ?"
    declared = rows(cursor, query, [predicate], tail=in_order)
    query = f"SELECT * FROM sources WHERE {known} AND source IN (SELECT unnest(?))"
    weighed = rows(cursor, query, [list({row["source"] for row in said})], tail=in_order)
    since = _known_since(cursor, [*said, *gone, *declared, *weighed])

    def told(some: Iterable[Row]) -> list[Told]:
        return [Told(row=row, known_at=since.get((row["partition"], row["offset"])) or row["log_time"]) for row in some]

    withdrawals: dict[str, list[Told]] = {}
    for one in told(gone):
        withdrawals.setdefault(one.row["gone"], []).append(one)
    return Story(
        subject=subject, predicate=predicate, assertions=told(said), withdrawals=withdrawals, declarations=told(declared),
        weights=told(weighed), complete=complete,
    )  # fmt: skip


def _known_since(cursor: Cursor, some: Sequence[Row]) -> dict[tuple[int, int], Any]:
    """Return for records of the truth topic the newest append time up to each: since then a prefix has it."""
    places = [
        list({row["partition"] for row in some}),
        [row["partition"] for row in some],
        [row["offset"] for row in some],
    ]
    query = """WITH prefixes AS (SELECT partition, "offset", max(log_time) OVER (PARTITION BY partition ORDER BY "offset") AS known_at
        FROM events WHERE topic = $topic AND partition IN (SELECT unnest($partitions)))
      SELECT partition, "offset", known_at FROM prefixes
      SEMI JOIN (SELECT unnest($p) AS p, unnest($o) AS o) AS asked ON partition = p AND "offset" = o"""
    found = rows(cursor, query, {"topic": TRUTH.name, "partitions": places[0], "p": places[1], "o": places[2]})
    return {(row["partition"], row["offset"]): row["known_at"] for row in found}


def truth_at(story: Story, believed_at: datetime | None, valid_at: datetime) -> TruthView | None:
    """Return what was believed at one moment (None: with all that is known) to hold at another."""

    def known(some: Iterable[Told]) -> list[Told]:
        return [one for one in some if believed_at is None or one.known_at <= believed_at]

    standing: dict[str, Row] = {}
    for one in known(story.assertions):
        row, name = one.row, one.row["assertion_id"]
        later = (w for w in known(story.withdrawals.get(name, ())) if w.row["offset"] > row["offset"])
        if next(later, None) is None and _holds(row, valid_at):
            standing[name] = row
    declared = known(story.declarations)
    weights = {one.row["source"]: one.row["reliability"] for one in known(story.weights)}
    return truth(
        (story.subject, story.predicate), list(standing.values()), contract_of(declared[-1].row if declared else None), weights
    )  # fmt: skip


def _holds(row: Row, moment: datetime) -> bool:
    since: datetime = row["valid_from"] or row["log_time"]
    return since <= moment and (row["valid_to"] is None or row["valid_to"] > moment)


def turns(story: Story, axis: Axis, at: Moment) -> list[datetime]:
    """Return the moments at which the truth may change, in order; those of the world only where they follow its time."""
    told = [
        *story.assertions,
        *story.declarations,
        *story.weights,
        *(one for some in story.withdrawals.values() for one in some),
    ]
    moments = {one.known_at for one in told} if axis == "believed" else set[datetime]()
    if axis == "valid" or at.instant is None:
        moments |= {edge for one in story.assertions for edge in _edges(one.row)}
    if axis == "believed" and told:
        # Before the first record nothing was believed; what ends later than now has not ended yet.
        first, now = min(one.known_at for one in told), datetime.now(UTC)
        moments = {one for one in moments if first <= one <= max(now, *(one.known_at for one in told))}
    return sorted(moments)


def _edges(row: Row) -> list[datetime]:
    return [edge for edge in (row["valid_from"] or row["log_time"], row["valid_to"]) if edge is not None]


def intervals(
    story: Story, axis: Axis, at: Moment, limit: int, after: datetime | None = None
) -> tuple[list[TruthInterval], datetime | None]:
    """Return a page of the series, oldest first, and the moment with which the next begins."""
    fixed = at.instant.replace(tzinfo=UTC) if at.instant is not None else None
    causes = {one.known_at: one.position for one in reversed(story.assertions)} | {
        one.known_at: one.position for some in story.withdrawals.values() for one in some
    }
    found: list[TruthInterval] = []
    for turn in (one for one in turns(story, axis, at) if after is None or one >= after):
        view = truth_at(story, turn, fixed or turn) if axis == "believed" else truth_at(story, None, turn)
        made = _interval(turn, view, causes.get(turn) if axis == "believed" else None)
        if found and _same(found[-1], made):
            continue
        if found:
            found[-1] = found[-1].model_copy(update={"until": turn})
        if len(found) == limit:
            return found, turn
        found.append(made)
    return found, None


def _interval(since: datetime, view: TruthView | None, cause: str | None) -> TruthInterval:
    if view is None:
        return TruthInterval(
            since=since, until=None, value=None, kind=None, unit=None, confidence=0.0, rule=None, conflict=False, sources=[], cause=cause
        )  # fmt: skip
    said = view.candidates if view.contract.many else view.candidates[:1]
    return TruthInterval(
        since=since, until=None, value=view.value, kind=view.kind, unit=view.unit, confidence=view.confidence, rule=view.rule,
        conflict=view.conflict, sources=sorted({vote.source for one in said for vote in one.votes}), cause=cause,
    )  # fmt: skip


def _same(one: TruthInterval, other: TruthInterval) -> bool:
    return one.model_dump(exclude={"since", "until", "cause"}) == other.model_dump(exclude={"since", "until", "cause"})
