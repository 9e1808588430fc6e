"""Current truth: the votes about each (subject, predicate) as the log knew them at a moment, fused by the rule in force."""

from datetime import UTC, datetime
from typing import Any, Final

from controlplane.api.models import Candidate, TruthView, Vote
from controlplane.events.types import TypedValue, ValueKind
from controlplane.events.values import json_value
from controlplane.truthcore_projector.fusion import RULES, Ballot, rule_of
from controlplane.truthcore_projector.queries import Cursor, rows

END_OF_TIME: Final = datetime(9999, 1, 1, tzinfo=UTC)


def pattern(text: str) -> str:
    """Return a LIKE pattern, escaped with a backslash, for a text in which `*` stands for anything."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%")


def truth_page(
    cursor: Cursor, *, subject: str, predicate: str, min_confidence: float, as_of: datetime | None,
    valid_at: datetime | None, limit: int, after: str | None,
) -> tuple[list[TruthView], str | None]:  # fmt: skip
    """Return a page of truths in order of subject and predicate, and where the next begins."""
    known = (as_of or END_OF_TIME).astimezone(UTC).replace(tzinfo=None)
    conditions = ["subject LIKE ? ESCAPE '\\'", "predicate LIKE ? ESCAPE '\\'", "log_time <= ?"]
    parameters: list[Any] = [pattern(subject or "*"), pattern(predicate or "*"), known]
    if after:
        conditions.append("(subject, predicate) > (?, ?)")
        parameters += list(after.partition("~")[::2])
    query = f"SELECT DISTINCT subject, predicate FROM assertions WHERE {' AND '.join(conditions)} ORDER BY subject, predicate LIMIT ?"  # noqa: S608 -- our own words
    pairs = cursor.execute(query, [*parameters, limit + 1]).fetchall()
    following = "~".join(pairs[limit - 1]) if len(pairs) > limit else None
    views = fused(cursor, pairs[:limit], known, valid_at)
    return [view for view in views if view.confidence >= min_confidence], following


def fused(cursor: Cursor, pairs: list[tuple[str, str]], known: datetime, valid_at: datetime | None) -> list[TruthView]:
    """Return the truth of each (subject, predicate) that has a vote."""
    votes = _votes(cursor, pairs, known, valid_at)
    declared = {
        row["predicate"]: row
        for row in rows(cursor, 'SELECT * FROM predicates WHERE log_time <= ? ORDER BY log_time, "offset"', [known])
    }
    weights = {
        row["source"]: row["reliability"]
        for row in rows(cursor, 'SELECT * FROM sources WHERE log_time <= ? ORDER BY log_time, "offset"', [known])
    }
    views = []
    for pair in pairs:
        contract = declared.get(pair[1], {})
        rule = rule_of(contract.get("rule"), contract.get("cardinality"))
        if mine := votes.get(pair):
            views.append(_truth(pair, mine, rule, weights))
    return views


def _votes(
    cursor: Cursor, pairs: list[tuple[str, str]], known: datetime, valid_at: datetime | None
) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the assertions that count: once each, not taken back, not superseded, valid at the moment."""
    if not pairs:
        return {}
    moment = (valid_at or datetime.now(UTC)).astimezone(UTC).replace(tzinfo=None)
    query = """SELECT a.* FROM assertions AS a
      SEMI JOIN (SELECT unnest(?) AS s, unnest(?) AS p) AS wanted ON a.subject = s AND a.predicate = p
      ANTI JOIN (SELECT assertion_id AS r FROM retractions WHERE log_time <= ?) AS gone ON a.assertion_id = r
      ANTI JOIN (SELECT supersedes AS n FROM assertions WHERE log_time <= ? AND supersedes IS NOT NULL) AS newer ON a.assertion_id = n
      WHERE a.log_time <= ? AND coalesce(a.valid_from, a.log_time) <= greatest(?, a.log_time)
        AND (a.valid_to IS NULL OR a.valid_to > ?)
      QUALIFY row_number() OVER (PARTITION BY a.assertion_id ORDER BY a.topic, a.partition, a."offset") = 1"""
    if valid_at is not None:
        query = query.replace("greatest(?, a.log_time)", "?")
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    parameters = [[s for s, _ in pairs], [p for _, p in pairs], known, known, known, moment, moment]
    for row in rows(cursor, query, parameters):
        found.setdefault((row["subject"], row["predicate"]), []).append(row)
    return found


def _ballot(row: dict[str, Any], weights: dict[str, float]) -> Ballot:
    order = (int(row["log_time"].timestamp() * 1e6), row["topic"], row["partition"], row["offset"])
    return Ballot(
        value=(row["kind"], row["text"], row["unit"]), source=row["source"], confidence=row["confidence"],
        reliability=weights.get(row["source"], 1.0), order=order,
    )  # fmt: skip


def _truth(pair: tuple[str, str], found: list[dict[str, Any]], rule: str, weights: dict[str, float]) -> TruthView:
    newest: dict[Any, tuple[Ballot, dict[str, Any]]] = {}
    for row in found:
        ballot = _ballot(row, weights)
        # A source has one vote; where a predicate has many values, one per value.
        key = (ballot.source, ballot.value) if rule == "NOISY_OR" else ballot.source
        if key not in newest or newest[key][0].order < ballot.order:
            newest[key] = (ballot, row)
    ranked = RULES[rule]([ballot for ballot, _ in newest.values()])
    candidates = [
        Candidate(
            value=_plain(value), kind=value[0], unit=value[2], probability=probability,
            votes=[_vote(ballot, row) for ballot, row in sorted(newest.values(), key=lambda one: one[0].source) if ballot.value == value],
        )
        for value, probability in ranked
    ]  # fmt: skip
    many = rule == "NOISY_OR"
    return TruthView(
        subject=pair[0], predicate=pair[1], value=[one.value for one in candidates] if many else candidates[0].value,
        kind=candidates[0].kind, unit=candidates[0].unit, confidence=candidates[0].probability, rule=rule,
        conflict=len(candidates) > 1 and not many, candidates=candidates,
    )  # fmt: skip


def _plain(value: tuple[str, str, str | None]) -> Any:
    return json_value(TypedValue(kind=ValueKind(value[0]), text=value[1], unit=value[2]))


def _vote(ballot: Ballot, row: dict[str, Any]) -> Vote:
    return Vote(
        assertion_id=row["assertion_id"], source=ballot.source, confidence=ballot.confidence, reliability=ballot.reliability,
        log_time=row["log_time"], position=f"{row['topic']}/{row['partition']}/{row['offset']}", job_id=row["job_id"],
    )  # fmt: skip
