"""Truth by its definition, record by record in plain Python: slow, obvious, and sharing nothing with the code under test."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from controlplane.events import types

Known = Sequence["Record"]


class Record(NamedTuple):
    """One record of the truth topic; times are microseconds."""

    partition: int
    offset: int
    log_time: int
    event: Any


def prefix(log: Known, as_of: int | dict[int, int] | None) -> list[Record]:
    """Return what was known: per partition the longest prefix up to a time, or up to an offset that is included."""
    known: list[Record] = []
    closed: set[int] = set()
    for one in sorted(log, key=lambda record: (record.partition, record.offset)):
        if isinstance(as_of, int) and one.log_time > as_of:
            closed.add(one.partition)
        if isinstance(as_of, dict) and one.offset > as_of.get(one.partition, one.offset):
            closed.add(one.partition)
        if one.partition not in closed:
            known.append(one)
    return known


def truths(known: Known, instant: int) -> dict[tuple[str, str], tuple[Any, float]]:
    """Return each truth that holds at an instant: its value, or its values with their probabilities, and how sure it is."""
    contracts = {one.event.predicate: one.event for one in known if isinstance(one.event, types.PredicateDeclared)}
    weights = {
        one.event.source_name: one.event.reliability for one in known if isinstance(one.event, types.SourceDeclared)
    }
    found: dict[tuple[str, str], dict[Any, Record]] = {}
    seen: set[tuple[str, str]] = set()
    for one in known:
        event = one.event
        if not isinstance(event, types.TruthAsserted) or (event.subject, event.header.event_id) in seen:
            continue
        seen.add((event.subject, event.header.event_id))
        if _withdrawn(one, known) or not _holds(one, instant):
            continue
        contract = contracts.get(event.predicate)
        if contract is not None and contract.value_kind not in (None, event.object.kind):
            continue
        many = contract is not None and contract.cardinality == types.Cardinality.MULTIPLE
        key = (event.source.name, event.object.text) if many else event.source.name
        found.setdefault((event.subject, event.predicate), {})[key] = one
    return {pair: _fused(list(votes.values()), contracts.get(pair[1]), weights) for pair, votes in found.items()}


def _withdrawn(one: Record, known: Known) -> bool:
    def withdraws(event: Any) -> bool:
        name = event.assertion_id if isinstance(event, types.TruthRetracted) else getattr(event, "supersedes", None)
        return bool(name == one.event.header.event_id and event.subject == one.event.subject)

    return any(
        later.partition == one.partition and later.offset > one.offset and withdraws(later.event) for later in known
    )


def _holds(one: Record, instant: int) -> bool:
    since = one.log_time if one.event.valid_from is None else one.event.valid_from
    return since <= instant and (one.event.valid_to is None or instant < one.event.valid_to)


def _fused(votes: list[Record], contract: Any, weights: dict[str, float]) -> tuple[Any, float]:
    values = {one.event.object.text for one in votes}
    strength = {one: weights.get(one.event.source.name, 1.0) * one.event.confidence for one in votes}
    newest = {value: max(one.offset for one in votes if one.event.object.text == value) for value in values}
    if contract is None:
        best = max(votes, key=lambda one: one.offset)
        return best.event.object.text, best.event.confidence
    if contract.cardinality == types.Cardinality.MULTIPLE:
        doubt = dict.fromkeys(values, 1.0)
        for one in votes:
            doubt[one.event.object.text] *= 1 - strength[one]
        sure = {value: 1 - left for value, left in doubt.items()}
        return {value: round(one, 9) for value, one in sure.items()}, max(sure.values())
    n = len(values) + 1
    likely = {}
    for candidate in [*values, None]:
        product = 1.0
        for one in votes:
            e = min(max(strength[one], 1 / n), 0.999)
            product *= e if one.event.object.text == candidate else (1 - e) / (n - 1)
        likely[candidate] = product
    chance = {value: round(likely[value] / sum(likely.values()), 12) for value in values}
    best_value = max(values, key=lambda value: (chance[value], newest[value]))
    return best_value, chance[best_value]
