"""Which assertions count: said by then, once each, not taken back, not replaced, and valid at the moment asked for."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from controlplane.truthcore_projector.contracts import Contract, contract_of
from controlplane.truthcore_projector.cursors import Cursor, rows, tuples
from controlplane.truthcore_projector.fusion import Ballot
from controlplane.truthcore_projector.moments import Moment

Pair = tuple[str, str]
"""(subject, predicate)"""

SINCE: Final = "coalesce(a.valid_from, a.log_time)"


def standing(known: str, subjects: str) -> str:
    """Return SQL of the assertions about some subjects that stood, given what was known.

    What takes back or replaces an assertion is a later record of the same subject, so of the same partition: no interleaving of
    partitions changes the answer, and no two assertions can replace each other. `subjects` is a condition on the column `subject`.
    """
    return f"""WITH mine AS MATERIALIZED (SELECT * FROM assertions WHERE {known} AND {subjects}),
      gone AS MATERIALIZED (
        SELECT subject, partition, assertion_id, "offset" FROM retractions WHERE {known} AND {subjects}
        UNION ALL SELECT subject, partition, supersedes, "offset" FROM mine WHERE supersedes IS NOT NULL)
      SELECT a.* FROM mine AS a
      ANTI JOIN mine AS e ON e.subject = a.subject AND e.partition = a.partition AND e.assertion_id = a.assertion_id AND e."offset" < a."offset"
      ANTI JOIN gone AS g ON g.subject = a.subject AND g.partition = a.partition AND g.assertion_id = a.assertion_id AND g."offset" > a."offset" """


def valid(instant: str) -> str:
    """Return the condition that an assertion `a` holds at an instant of the world."""
    return f"{SINCE} <= {instant} AND (a.valid_to IS NULL OR a.valid_to > {instant})"


# What was just appended holds now, even if this clock is behind the broker's.
NOW_OR_NEWEST: Final = "greatest(now()::TIMESTAMP, a.log_time)"


def counting(cursor: Cursor, pairs: Sequence[Pair], at: Moment) -> dict[Pair, list[dict[str, Any]]]:
    """Return the assertions that count about each (subject, predicate)."""
    if not pairs:
        return {}
    parameters: dict[str, Any] = {"s": [s for s, _ in pairs], "p": [p for _, p in pairs]}
    if at.instant is not None:
        parameters["instant"] = at.instant
    subjects = "subject IN (SELECT unnest($s))"
    if len(set(parameters["s"])) == 1:
        subjects, parameters["one"] = "subject = $one", pairs[0][0]
    query = f"""SELECT a.* FROM ({standing(at.known, subjects)}) AS a
      SEMI JOIN (SELECT unnest($s) AS s, unnest($p) AS p) AS wanted ON a.subject = s AND a.predicate = p
      WHERE {valid("$instant" if at.instant is not None else NOW_OR_NEWEST)}"""
    by_pair: dict[Pair, list[dict[str, Any]]] = {}
    for row in rows(cursor, query, parameters):
        by_pair.setdefault((row["subject"], row["predicate"]), []).append(row)
    return by_pair


def contracts(cursor: Cursor, predicates: Sequence[str], known: str) -> dict[str, Contract]:
    """Return the contract in force of each predicate; a declaration's key is its predicate, so its partition orders it."""
    query = f"SELECT * FROM predicates WHERE {known} AND predicate IN (SELECT unnest(?))"
    some = rows(cursor, query, [list(set(predicates))], tail='ORDER BY partition, "offset"')
    declared = {row["predicate"]: row for row in some}
    return {predicate: contract_of(declared.get(predicate)) for predicate in predicates}


def reliabilities(cursor: Cursor, sources: Sequence[str], known: str) -> dict[str, float]:
    """Return the declared reliability of the sources that have one."""
    query = (
        f'SELECT source, reliability, partition, "offset" FROM sources WHERE {known} AND source IN (SELECT unnest(?))'
    )
    some = tuples(cursor, query, [list(set(sources))], tail='ORDER BY partition, "offset"')
    return {row[0]: row[1] for row in some}


def ballot(row: Mapping[str, Any], weights: Mapping[str, float]) -> Ballot:
    """Return an assertion as a vote; a source that nobody declared has the weight 1."""
    return Ballot(
        value=(row["kind"], row["text"], row["unit"]), source=row["source"], confidence=row["confidence"],
        reliability=weights.get(row["source"], 1.0), order=(row["topic"], row["partition"], row["offset"]),
    )  # fmt: skip
