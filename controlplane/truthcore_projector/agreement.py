"""What sources say about the same single-valued truths, as the votes that their reliability is learned from."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import numpy as np

from controlplane.api.truths import LearnedSource
from controlplane.events.catalog import TRUTH
from controlplane.log.positions import Partition
from controlplane.truthcore_projector.cursors import DISTINCT, Cursor, tuples
from controlplane.truthcore_projector.learning import Votes, learn
from controlplane.truthcore_projector.moments import Moment
from controlplane.truthcore_projector.truths import Wanted, pattern
from controlplane.truthcore_projector.votes import contracts, reliabilities, standing, valid

VOTES_LIMIT: Final = 5_000_000


class Lesson(msgspec.Struct, frozen=True, kw_only=True):
    """What was learned of the sources, from how much, in how many rounds."""

    sources: list[LearnedSource]
    truths: int
    votes: int
    rounds: int
    settled: bool


def frozen_range(there: Mapping[Partition, int], ends: Mapping[Partition, int]) -> str:
    """Return the positions of the truth topic up to which the log is looked at, as `as_of` takes them: the same question has the same answer for ever."""
    return ",".join(
        f"{topic}/{number}/{min(end, ends.get((topic, number), end)) - 1}"
        for (topic, number), end in sorted(there.items())
        if topic == TRUTH.name and min(end, ends.get((topic, number), end)) > 0
    )


def lesson(cursor: Cursor, wanted: Wanted, at: Moment, method: str) -> Lesson:
    """Return what the sources' agreement says of their reliability.

    Counted are the votes that count for truths with one value about which at least two sources speak, of the contract's kind.
    """
    conditions = {"subject": pattern(wanted.subject), "predicate": pattern(wanted.predicate)}
    query = f"SELECT DISTINCT predicate FROM assertions WHERE {at.known} AND predicate LIKE $predicate ESCAPE '\\'"
    names = [name for (name,) in tuples(cursor, query, {"predicate": conditions["predicate"]}, gather=DISTINCT)]
    single = [(name, one) for name, one in sorted(contracts(cursor, names, at.known).items()) if not one.many]
    parameters: dict[str, Any] = {
        "subject": conditions["subject"], "names": [name for name, _ in single], "kinds": [one.value_kind for _, one in single], "units": [one.unit for _, one in single],
        "instant": at.instant or datetime.now(UTC).replace(tzinfo=None),
    }  # fmt: skip
    stood = standing(at.known, "subject LIKE $subject ESCAPE '\\'")
    query = f"""WITH declared AS (SELECT unnest($names) AS name, unnest($kinds::VARCHAR[]) AS value_kind, unnest($units::VARCHAR[]) AS declared_unit),
      votes AS (SELECT a.subject, a.predicate, a.source, a.kind, a.text, a.confidence,
          CASE WHEN a.kind = 'NUMBER' THEN coalesce(a.unit, declared_unit) ELSE a.unit END AS unit
        FROM ({stood}) AS a JOIN declared ON name = a.predicate
        WHERE {valid("$instant")} AND a.kind IS NOT DISTINCT FROM coalesce(value_kind, a.kind)
          AND (a.kind <> 'NUMBER' OR declared_unit IS NULL OR a.unit IS NULL OR a.unit = declared_unit)
        QUALIFY row_number() OVER (PARTITION BY a.subject, a.predicate, a.source ORDER BY a.partition DESC, a."offset" DESC) = 1)
      SELECT source, subject, predicate, kind, text, unit, confidence FROM votes
      QUALIFY count(*) OVER (PARTITION BY subject, predicate) > 1"""
    said = tuples(cursor, query, parameters, tail=f"ORDER BY subject, predicate, source LIMIT {VOTES_LIMIT}")
    if not said:
        return Lesson(sources=[], truths=0, votes=0, rounds=0, settled=True)
    sources = sorted({row[0] for row in said})
    place = {name: number for number, name in enumerate(sources)}
    items = _numbered([(row[1], row[2]) for row in said])
    learned = learn(
        Votes(
            source=np.array([place[row[0]] for row in said], np.int64), item=items, value=_numbered([row[1:6] for row in said]),
            confidence=np.array([row[6] for row in said], np.float64),
        ),
        method,
    )  # fmt: skip
    declared = reliabilities(cursor, sources, at.known)
    counts = dict.fromkeys(sources, 0)
    for row in said:
        counts[row[0]] += 1
    found = [
        LearnedSource(
            source=name, reliability=round(float(accuracy), 6), votes=counts[name], declared=declared.get(name)
        )
        for name, accuracy in zip(sources, learned.accuracy, strict=True)
    ]
    return Lesson(
        sources=found, truths=int(items.max()) + 1, votes=len(said), rounds=learned.rounds, settled=learned.settled
    )


def _numbered(keys: list[Any]) -> Any:
    """Return a number for each key, equal for equal keys, in the order in which they first come."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
