"""What changed in the truth between two moments."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from controlplane.api.models import TruthView
from controlplane.api.truths import TruthChange
from controlplane.truthcore_projector.cursors import DISTINCT, Cursor, tuples
from controlplane.truthcore_projector.moments import Moment
from controlplane.truthcore_projector.truths import Wanted, fused, page_end, pattern
from controlplane.truthcore_projector.votes import Pair

CHUNKS_LIMIT: Final = 20
SAME_CONFIDENCE: Final = 1e-9
"""A vote that says nothing may change the last digits of a product; that is no other confidence."""


def changes(
    cursor: Cursor, wanted: Wanted, before: Moment, after: Moment, limit: int, begin: Pair | None = None
) -> tuple[list[TruthChange], str | None]:
    """Return a page of the truths that differ between two moments, and where the next begins."""
    differing: list[TruthChange] = []
    for _ in range(CHUNKS_LIMIT):
        pairs = _touched(cursor, wanted, before, after, limit + 1, begin)
        chosen = pairs[:limit]
        then = {(one.subject, one.predicate): one for one in fused(cursor, chosen, before)}
        now = {(one.subject, one.predicate): one for one in fused(cursor, chosen, after)}
        for number, pair in enumerate(chosen):
            if change := change_of(pair, then.get(pair), now.get(pair)):
                differing.append(change)
            if len(differing) == limit and number < len(pairs) - 1:
                return differing, page_end(pair)
        if len(pairs) <= limit:
            return differing, None
        begin = pairs[limit - 1]
    return differing, page_end(begin) if begin else None


def _touched(
    cursor: Cursor, wanted: Wanted, before: Moment, after: Moment, limit: int, begin: Pair | None
) -> Sequence[Pair]:
    """Return the pairs whose truth may differ: touched by a record known at one moment only, or by the world's time between.

    What is declared of a predicate or a source touches everything that it bears on.
    """
    new = f"(({before.known}) <> ({after.known}))"
    declared = tuples(cursor, f"SELECT DISTINCT predicate FROM predicates WHERE {new}", gather=DISTINCT)
    weighed = tuples(cursor, f"SELECT DISTINCT source FROM sources WHERE {new}", gather=DISTINCT)
    instants = [one.instant or datetime.now(UTC).replace(tzinfo=None) for one in (before, after)]
    conditions = ["subject LIKE $subject ESCAPE '\\'", "predicate LIKE $predicate ESCAPE '\\'"]
    parameters: dict[str, Any] = {
        "subject": pattern(wanted.subject), "predicate": pattern(wanted.predicate), "low": min(instants), "high": max(instants),
        "declared": [row[0] for row in declared], "weighed": [row[0] for row in weighed],
    }  # fmt: skip
    if begin is not None:
        conditions.append("(subject, predicate) > ($begin_subject, $begin_predicate)")
        parameters |= {"begin_subject": begin[0], "begin_predicate": begin[1]}
    query = f"""SELECT DISTINCT subject, predicate FROM assertions WHERE {" AND ".join(conditions)} AND (
        {new} OR coalesce(valid_from, log_time) BETWEEN $low AND $high OR valid_to BETWEEN $low AND $high
        OR subject IN (SELECT subject FROM retractions WHERE {new})
        OR subject IN (SELECT subject FROM assertions WHERE supersedes IS NOT NULL AND {new})
        OR predicate IN (SELECT unnest($declared::VARCHAR[])) OR source IN (SELECT unnest($weighed::VARCHAR[])))"""
    return [
        (s, p) for s, p in tuples(cursor, query, parameters, tail=f"ORDER BY subject, predicate LIMIT {int(limit)}")
    ]


def change_of(pair: Pair, before: TruthView | None, after: TruthView | None) -> TruthChange | None:
    """Return what became of one truth, or None where nothing did."""

    def change(name: Any) -> TruthChange:
        return TruthChange(subject=pair[0], predicate=pair[1], change=name, before=before, after=after)

    if before is None or after is None:
        return None if before is after else change("appeared" if before is None else "vanished")
    if (before.value, before.unit, before.kind) != (after.value, after.unit, after.kind):
        return change("changed")
    if abs(before.confidence - after.confidence) > SAME_CONFIDENCE:
        return change("surer" if after.confidence > before.confidence else "less sure")
    return None if _votes(before) == _votes(after) and before.contract == after.contract else change("otherwise")


def _votes(view: TruthView) -> list[tuple[str, float]]:
    return [(vote.assertion_id, vote.strength) for candidate in view.candidates for vote in candidate.votes]
