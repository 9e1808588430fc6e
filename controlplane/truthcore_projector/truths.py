"""Current truth: the votes about each (subject, predicate) as the log knew them at a moment, fused by the rule in force."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from controlplane.api.models import Candidate, TruthView, Vote
from controlplane.events.catalog import TRUTH
from controlplane.events.types import TypedValue, ValueKind
from controlplane.events.values import json_value
from controlplane.log.positions import parse_position
from controlplane.truthcore_projector.fusion import RULES, Ballot, rule_of
from controlplane.truthcore_projector.queries import Cursor, rows


def pattern(text: str) -> str:
    """Return a LIKE pattern, escaped with a backslash, for a text in which `*` stands for anything."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%")


AsOf = datetime | Mapping[int, int]
"""What the log knew: up to a time, or up to an offset (included) per partition of the truth topic; others whole."""


def as_of_text(text: str) -> AsOf:
    """Return what `as_of` names: a time, or positions separated by commas.

    Raises:
        ValueError: it is neither.
    """
    try:
        if "/" in text:
            places = [parse_position(one) for one in text.split(",")]
            return {place.partition: place.offset for place in places if place.topic == TRUTH.name}
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(
            f"Expected a time like 2026-01-31T12:00:00Z or positions topic/partition/offset, but found {text[:200]!r}."
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def truth_cursor(text: str) -> tuple[str, str]:
    """Return the subject and predicate that a page of truths ended with.

    Raises:
        ValueError: no page gave this cursor.
    """
    try:
        return msgspec.json.decode(urlsafe_b64decode(text.encode()), type=tuple[str, str])
    except (ValueError, msgspec.DecodeError) as error:
        raise ValueError(f"Expected a cursor of an earlier page, but found {text[:100]!r}.") from error


def truth_page(
    cursor: Cursor, *, subject: str, predicate: str, min_confidence: float, as_of: AsOf | None,
    valid_at: datetime | None, limit: int, after: tuple[str, str] | None,
) -> tuple[list[TruthView], str | None]:  # fmt: skip
    """Return a page of truths in order of subject and predicate, and where the next begins."""
    known = _known(cursor, as_of)
    conditions = ["subject LIKE ? ESCAPE '\\'", "predicate LIKE ? ESCAPE '\\'", known]
    parameters: list[Any] = [pattern(subject or "*"), pattern(predicate or "*")]
    if after:
        conditions.append("(subject, predicate) > (?, ?)")
        parameters += after
    query = f"SELECT DISTINCT subject, predicate FROM assertions WHERE {' AND '.join(conditions)} ORDER BY subject, predicate LIMIT ?"  # noqa: S608 -- our own words
    pairs = cursor.execute(query, [*parameters, limit + 1]).fetchall()
    more = len(pairs) > limit
    following = urlsafe_b64encode(msgspec.json.encode(pairs[limit - 1])).decode() if more else None
    views = fused(cursor, pairs[:limit], known, _moment(cursor, as_of, valid_at, known))
    return [view for view in views if view.confidence >= min_confidence], following


def _known(cursor: Cursor, as_of: AsOf | None) -> str:
    """Return the condition on rows of the truth topic that the log knew then: per partition, a prefix.

    For a time it is the longest prefix whose append times are all at or before it.
    """
    match as_of:
        case None:
            return "true"
        case datetime():
            query = 'SELECT partition, min("offset") FROM events WHERE topic = ? AND log_time > ? GROUP BY partition'
            bounds = cursor.execute(query, [TRUTH.name, _naive(as_of)]).fetchall()
        case _:
            bounds = [(partition, offset + 1) for partition, offset in as_of.items()]
    return " AND ".join(["true", *(f'NOT (partition = {int(one)} AND "offset" >= {int(end)})' for one, end in bounds)])


def _moment(cursor: Cursor, as_of: AsOf | None, valid_at: datetime | None, known: str) -> datetime | None:
    """Return the moment in the world: the one asked for; else that of `as_of`; None is now."""
    if valid_at is not None:
        return _naive(valid_at)
    match as_of:
        case None:
            return None
        case datetime():
            return _naive(as_of)
        case _:
            row = cursor.execute(
                f"SELECT max(log_time) FROM events WHERE topic = ? AND {known}", [TRUTH.name]
            ).fetchone()
            newest: datetime | None = row[0] if row else None
            return newest


def _naive(moment: datetime) -> datetime:
    """Return a time as the tables hold it: UTC, without saying so."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).replace(tzinfo=None)


def fused(cursor: Cursor, pairs: list[tuple[str, str]], known: str, moment: datetime | None) -> list[TruthView]:
    """Return the truth of each (subject, predicate) that has a vote."""
    votes = _votes(cursor, pairs, known, moment)
    # A declaration's key is its predicate or source, so its partition alone orders it.
    declared = {
        row["predicate"]: row for row in rows(cursor, f'SELECT * FROM predicates WHERE {known} ORDER BY "offset"')
    }
    weights = {
        row["source"]: row["reliability"]
        for row in rows(cursor, f'SELECT * FROM sources WHERE {known} ORDER BY "offset"')
    }
    views = []
    for pair in pairs:
        contract = declared.get(pair[1], {})
        rule = rule_of(contract.get("rule"), contract.get("cardinality"))
        if mine := votes.get(pair):
            views.append(_truth(pair, mine, rule, weights))
    return views


def _votes(
    cursor: Cursor, pairs: list[tuple[str, str]], known: str, moment: datetime | None
) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the assertions that count: once each, not taken back, not superseded, valid at the moment."""
    if not pairs:
        return {}
    # What was just appended holds now, even if this clock is behind the broker's.
    instant = "greatest(now()::TIMESTAMP, a.log_time)" if moment is None else "?::TIMESTAMP"
    query = f"""SELECT a.* FROM (SELECT * FROM assertions WHERE {known}) AS a
      SEMI JOIN (SELECT unnest(?) AS s, unnest(?) AS p) AS wanted ON a.subject = s AND a.predicate = p
      ANTI JOIN (SELECT assertion_id AS r FROM retractions WHERE {known}) AS gone ON a.assertion_id = r
      ANTI JOIN (SELECT supersedes AS n FROM assertions WHERE {known} AND supersedes IS NOT NULL) AS newer ON a.assertion_id = n
      WHERE coalesce(a.valid_from, a.log_time) <= {instant} AND (a.valid_to IS NULL OR a.valid_to > {instant})
      QUALIFY row_number() OVER (PARTITION BY a.assertion_id ORDER BY a.topic, a.partition, a."offset") = 1"""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    parameters: list[Any] = [[s for s, _ in pairs], [p for _, p in pairs]]
    for row in rows(cursor, query, parameters if moment is None else [*parameters, moment, moment]):
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
