"""What would become of the truth without a source: its assertions, what was derived from them, and the truths they bear on."""

from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from controlplane.api.lineage import TruthImpact
from controlplane.api.models import TruthView
from controlplane.truthcore_projector.cursors import DISTINCT, Cursor, tuples
from controlplane.truthcore_projector.moments import Moment
from controlplane.truthcore_projector.truths import Doubted, first_pairs, fused
from controlplane.truthcore_projector.votes import Pair

DEPTH_LIMIT: Final = 64
DERIVED_LIMIT: Final = 20_000
JOBS_LIMIT: Final = 1_000

_LINKS: Final = "(SELECT assertion_id, unnest(inputs) AS input FROM assertions WHERE len(inputs) > 0 AND {known})"
_PLACE: Final = "topic || '/' || partition || '/' || \"offset\""


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """How far a source's word went."""

    assertions: int
    derived: frozenset[str]
    jobs: list[str]
    truncated: bool


def reach(cursor: Cursor, source: str, known: str) -> Reach:
    """Return what rests on a source, step by step, each assertion once."""
    # An assertion is an id of one subject, so of one partition.
    query = f"SELECT count(DISTINCT (subject, assertion_id)) AS n FROM assertions WHERE source = ? AND {known}"
    ((counted,),) = tuples(cursor, query, [source], gather="SELECT sum(n)::BIGINT FROM parts")
    links = _LINKS.replace("{known}", known)
    level: set[str] = set()
    if tuples(
        cursor, f"SELECT 1 AS one FROM {links}", tail="LIMIT 1"
    ):  # Where nothing names an input, nothing rests on anything.
        query = f"SELECT assertion_id, {_PLACE} AS place FROM assertions WHERE source = ? AND {known}"
        level = _resting_on(cursor, links, tuples(cursor, query, [source]))
    derived: set[str] = set()
    steps = 0
    while level and steps < DEPTH_LIMIT and len(derived) < DERIVED_LIMIT:
        derived |= level
        steps += 1
        query = f"SELECT assertion_id, {_PLACE} AS place FROM assertions WHERE assertion_id IN (SELECT unnest(?::VARCHAR[]))"
        level = _resting_on(cursor, links, tuples(cursor, query, [sorted(level)])) - derived
    jobs = f"""SELECT DISTINCT job_id FROM assertions WHERE job_id IS NOT NULL AND {known}
      AND assertion_id IN (SELECT unnest(?::VARCHAR[]))"""
    some = tuples(cursor, jobs, [sorted(derived)], tail=f"ORDER BY job_id LIMIT {JOBS_LIMIT}", gather=DISTINCT)
    return Reach(
        assertions=counted, derived=frozenset(derived), truncated=bool(level), jobs=[row[0] for row in some]
    )  # fmt: skip


def _resting_on(cursor: Cursor, links: str, said: Sequence[tuple[str, str]]) -> set[str]:
    """Return the assertions that name one of these, by id or position, among their inputs."""
    query = f"SELECT DISTINCT assertion_id FROM {links} WHERE input IN (SELECT unnest(?::VARCHAR[]))"
    wanted = sorted({name for pair in said for name in pair})
    return {row[0] for row in tuples(cursor, query, [wanted], gather=DISTINCT)}


def impacts(
    cursor: Cursor, source: str, reached: Reach, at: Moment, limit: int, after: Pair | None
) -> tuple[list[TruthImpact], Pair | None]:
    """Return a page of the truths on which a source or what rests on it has a say now, each with and without that."""
    conditions = [at.known, "(source = $source OR assertion_id IN (SELECT unnest($derived::VARCHAR[])))"]
    parameters: dict[str, Any] = {"source": source, "derived": sorted(reached.derived)}
    pairs = first_pairs(cursor, conditions, parameters, limit + 1, after)
    views = fused(cursor, pairs[:limit], at)
    without = {
        (one.subject, one.predicate): one
        for one in fused(cursor, pairs[:limit], at, without=Doubted(source=source, assertions=reached.derived))
    }
    told = [
        _impact(view, without.get((view.subject, view.predicate)))
        for view in views
        if _says(view, source, reached.derived)
    ]
    return told, pairs[limit - 1] if len(pairs) > limit else None


def _says(view: TruthView, source: str, derived: Collection[str]) -> bool:
    votes = (vote for candidate in view.candidates for vote in candidate.votes)
    return any(vote.source == source or vote.assertion_id in derived for vote in votes)


def _impact(now: TruthView, without: TruthView | None) -> TruthImpact:
    if without is None:
        change: Any = "vanishes"
    elif without.value != now.value:
        change = "changes"
    elif without.confidence == now.confidence:
        change = "stands"
    else:
        change = "surer" if without.confidence > now.confidence else "less sure"
    return TruthImpact(subject=now.subject, predicate=now.predicate, change=change, now=now, without=without)
