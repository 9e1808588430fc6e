"""Current truth: the votes about each (subject, predicate) as the log knew them at a moment, fused by the rule in force."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec

from controlplane.api.models import Candidate, ContractView, IgnoredVote, TruthView, Vote
from controlplane.events.types import TypedValue, ValueKind
from controlplane.events.values import json_value
from controlplane.truthcore_projector.contracts import Contract, Value, in_unit, misfit
from controlplane.truthcore_projector.cursors import NEAR, Cursor, tuples
from controlplane.truthcore_projector.fusion import Ballot, fuse
from controlplane.truthcore_projector.moments import Moment, naive
from controlplane.truthcore_projector.votes import Pair, ballot, contracts, counting, reliabilities

ROWS_PER_PAIR: Final = 4
ROWS_LIMIT: Final = 100_000
CHUNKS_LIMIT: Final = 20
"""How many times a page is looked for further when filters leave little of what was found."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which truths: `*` in a text stands for anything; times are of the newest vote's append."""

    subject: str = "*"
    predicate: str = "*"
    value: str = "*"
    source: str = "*"
    min_confidence: float = 0.0
    max_confidence: float = 1.0
    conflict: bool | None = None
    since: datetime | None = None
    until: datetime | None = None
    tenant: str | None = None


def pattern(text: str) -> str:
    """Return a LIKE pattern, escaped with a backslash, for a text in which `*` stands for anything."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%")


def truth_cursor(text: str) -> Pair:
    """Return the subject and predicate that a page of truths ended with.

    Raises:
        ValueError: no page gave this cursor.
    """
    try:
        return msgspec.json.decode(urlsafe_b64decode(text.encode()), type=tuple[str, str])
    except (ValueError, msgspec.DecodeError) as error:
        raise ValueError(f"Expected a cursor of an earlier page, but found {text[:100]!r}.") from error


def page_end(pair: Pair) -> str:
    """Return the cursor of a page that ended with this pair."""
    return urlsafe_b64encode(msgspec.json.encode(pair)).decode()


def truth_page(
    cursor: Cursor, wanted: Wanted, at: Moment, limit: int, after: Pair | None = None
) -> tuple[list[TruthView], str | None]:
    """Return a page of truths in order of subject and predicate, and where the next begins.

    Filters that follow from fusion alone may leave a page short, even empty; while there is a cursor, there is more to ask for.
    """
    found: list[TruthView] = []
    for _ in range(CHUNKS_LIMIT):
        pairs = mentioned(cursor, wanted, at, limit + 1, after)
        for number, view in enumerate(fused(cursor, pairs[:limit], at)):
            if wanted_view(view, wanted):
                found.append(view)
            if len(found) == limit and (number < len(pairs) - 1):
                return found, page_end((view.subject, view.predicate))
        if len(pairs) <= limit:
            return found, None
        after = pairs[limit - 1]
    return found, page_end(after) if after else None


def mentioned(cursor: Cursor, wanted: Wanted, at: Moment, limit: int, after: Pair | None) -> list[Pair]:
    """Return the pairs, in order, about which some assertion says what is wanted; whether it counts is seen later."""
    if "*" not in wanted.subject + wanted.predicate and wanted.tenant is None:
        pair = (wanted.subject, wanted.predicate)
        return [pair] if after is None or pair > after else []
    conditions, parameters = [at.known], dict[str, Any]()
    for column, text in (
        ("subject", wanted.subject), ("predicate", wanted.predicate), ("source", wanted.source), ("text", wanted.value)
    ):  # fmt: skip
        if "*" not in text:
            conditions.append(f"{column} = ${column}")
            parameters[column] = text
        elif text != "*":
            conditions.append(f"{column} LIKE ${column} ESCAPE '\\'")
            parameters[column] = pattern(text)
    if wanted.since is not None:
        conditions.append("log_time >= $since")
        parameters["since"] = naive(wanted.since)
    if wanted.tenant is not None:
        conditions.append("tenant = $tenant")
        parameters["tenant"] = wanted.tenant
    if wanted.conflict:  # What was only ever said in one way is no conflict: it need not be fused to know that.
        about = [one for one in conditions if one.startswith(("subject ", "predicate "))]
        # By hashes it takes a fifth of the time; that two values of one pair have the same happens once in 10^19 pairs.
        conditions.append(
            f"hash(subject, predicate) IN (SELECT hash(subject, predicate) FROM assertions WHERE {' AND '.join(about) or 'true'}"
            " GROUP BY hash(subject, predicate) HAVING min(hash(kind, text, unit)) <> max(hash(kind, text, unit)))"
        )
    if "*" in wanted.subject:
        return first_pairs(cursor, conditions, parameters, limit, after)
    return first_pairs(cursor, [*conditions, NEAR], parameters, limit, after, about=[wanted.subject])


def first_pairs(
    cursor: Cursor, conditions: Sequence[str], parameters: Mapping[str, Any], limit: int, after: Pair | None, *, about: Sequence[str] = (),
) -> list[Pair]:  # fmt: skip
    """Return the first pairs, in order, that some assertion under these conditions is about.

    Looks at the first rows in order, and at more only where many are about one pair: to find all pairs that are different takes twenty times as long.
    """
    found: dict[Pair, None] = {}
    at_once = ROWS_PER_PAIR * limit
    while True:
        chosen, given = list(conditions), dict(parameters)
        if after is not None:
            chosen.append("(subject, predicate) > ($after_subject, $after_predicate)")
            given |= {"after_subject": after[0], "after_predicate": after[1]}
        query = f"SELECT subject, predicate FROM assertions WHERE {' AND '.join(chosen)}"
        some = tuples(cursor, query, given, tail=f"ORDER BY subject, predicate LIMIT {at_once}", about=about)
        found |= dict.fromkeys((subject, predicate) for subject, predicate in some)
        if len(found) >= limit or len(some) < at_once:
            return list(found)[:limit]
        after, at_once = (some[-1][0], some[-1][1]), min(at_once * 8, ROWS_LIMIT)


def wanted_view(view: TruthView, wanted: Wanted) -> bool:
    """Say whether a truth, as fused, is one of those asked for."""
    votes = [vote for candidate in view.candidates for vote in candidate.votes]
    newest = naive(max(vote.log_time for vote in votes))
    return (
        wanted.min_confidence <= view.confidence <= wanted.max_confidence
        and wanted.conflict in (None, view.conflict)
        and (wanted.value == "*" or any(matches(text, wanted.value) for text in true_texts(view)))
        and (wanted.source == "*" or any(matches(vote.source, wanted.source) for vote in votes))
        and (wanted.since is None or newest >= naive(wanted.since))
        and (wanted.until is None or newest < naive(wanted.until))
    )


def matches(text: str, wanted: str) -> bool:
    """Say whether a text is the wanted one, in which `*` stands for anything."""
    return fnmatchcase(text, wanted.replace("[", "[[]").replace("?", "[?]"))


def true_texts(view: TruthView) -> list[str]:
    """Return the canonical text of the value, or of each where many are true."""
    return [candidate.text for candidate in (view.candidates if view.contract.many else view.candidates[:1])]


class Doubted(msgspec.Struct, frozen=True, kw_only=True):
    """Votes that shall not count: those of a source, and single assertions."""

    source: str
    assertions: frozenset[str] = frozenset()


def fused(cursor: Cursor, pairs: Sequence[Pair], at: Moment, without: Doubted | None = None) -> list[TruthView]:
    """Return the truth of each (subject, predicate) that has a vote, in the order given; what is doubted does not count."""
    found = counting(cursor, pairs, at)
    if without is not None:
        found = {pair: [row for row in some if not _doubted(row, without)] for pair, some in found.items()}
    if not found:
        return []
    weights = reliabilities(cursor, [row["source"] for some in found.values() for row in some], at.known)
    declared = contracts(cursor, [predicate for _, predicate in found], at.known)
    views = (truth(pair, found[pair], declared[pair[1]], weights) for pair in pairs if pair in found)
    return [view for view in views if view is not None]


def _doubted(row: Mapping[str, Any], doubted: Doubted) -> bool:
    return row["source"] == doubted.source or row["assertion_id"] in doubted.assertions


def truth(
    pair: Pair, found: Sequence[Mapping[str, Any]], contract: Contract, weights: Mapping[str, float]
) -> TruthView | None:
    """Return what follows from the assertions that count, with what speaks for and against it; None if no vote is left."""
    ignored: list[IgnoredVote] = []
    newest: dict[Any, tuple[Ballot, Mapping[str, Any]]] = {}
    for row in sorted(found, key=lambda one: (one["source"], one["topic"], one["partition"], one["offset"])):
        vote = ballot(row, weights)
        if reason := misfit(contract, vote.value):
            ignored.append(IgnoredVote(vote=_vote(vote, row), value=plain(vote.value), reason=reason))
            continue
        vote = msgspec.structs.replace(vote, value=in_unit(contract, vote.value))
        # A source has one vote, its newest; where a predicate has many values, one per value.
        key = (vote.source, vote.value) if contract.many else vote.source
        if key not in newest or newest[key][0].order < vote.order:
            newest[key] = (vote, row)
    if not newest:
        return None
    ranked = fuse(contract, [vote for vote, _ in newest.values()])
    return _view(pair, contract, ranked, list(newest.values()), ignored)


def _view(
    pair: Pair, contract: Contract, ranked: Sequence[tuple[Value, float]], votes: Sequence[tuple[Ballot, Mapping[str, Any]]],
    ignored: list[IgnoredVote],
) -> TruthView:  # fmt: skip
    candidates = [
        Candidate(
            value=plain(value), kind=value[0], text=value[1], unit=value[2], probability=probability,
            votes=[_vote(vote, row) for vote, row in votes if vote.value == value],
            against=[] if contract.many else sorted({vote.source for vote, _ in votes if vote.value != value}),
        )
        for value, probability in ranked
    ]  # fmt: skip
    best = candidates[0]
    return TruthView(
        subject=pair[0], predicate=pair[1], value=[one.value for one in candidates] if contract.many else best.value,
        kind=best.kind, unit=best.unit, confidence=best.probability, rule=contract.rule,
        conflict=len(candidates) > 1 and not contract.many, candidates=candidates, ignored=ignored,
        contract=ContractView(
            value_kind=contract.value_kind, cardinality=contract.cardinality, rule=contract.rule, unit=contract.unit,
            many=contract.many, declared_at=contract.declared_at,
        ),
        explanation=explanation(contract, candidates),
    )  # fmt: skip


_BECAUSE: Final = {
    "LATEST": "the newest assertion counts, with its source's own confidence",
    "BAYES": "each vote weighs reliability times confidence; what it leaves goes to the other candidates and to something else",
    "NOISY_OR": "each value by itself: the chance that at least one of its sources is right",
    "MOST_TRUSTED": "the most reliable source counts; of equals the surest, then the newest",
}


def explanation(contract: Contract, candidates: Sequence[Candidate]) -> str:
    """Return in a sentence why the truth is what it is."""
    declared = f"declared at {contract.declared_at}" if contract.declared_at else "undeclared"
    best = candidates[0]
    against = sum(len(one.votes) for one in candidates[1:])
    votes = f"{len(best.votes)} for it, {against} against"
    if contract.many:
        votes = f"{len(candidates)} values, {len(best.votes) + against} votes"
    return f"{contract.rule} ({declared}): {_BECAUSE[contract.rule]}; {votes}."


def plain(value: Value) -> Any:
    """Return a value as JSON."""
    return json_value(TypedValue(kind=ValueKind(value[0]), text=value[1], unit=value[2]))


def _vote(vote: Ballot, row: Mapping[str, Any]) -> Vote:
    return Vote(
        assertion_id=row["assertion_id"], source=vote.source, source_kind=row["source_kind"], confidence=vote.confidence,
        reliability=vote.reliability, strength=vote.strength, log_time=row["log_time"],
        position=f"{row['topic']}/{row['partition']}/{row['offset']}", job_id=row["job_id"], attempt_id=row["attempt_id"],
        valid_from=row["valid_from"], valid_to=row["valid_to"],
    )  # fmt: skip
