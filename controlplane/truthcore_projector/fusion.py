"""What is true, given what was said: fusion rules as pure functions of votes, with every sum in a fixed order.

`bayes` is ACCU without copying: Dong, Berti-Equille, Srivastava, "Integrating conflicting data: the role of source dependence",
VLDB 2009. `noisy_or` treats each value on its own. `latest` and `most_trusted` choose one vote.
"""

from collections.abc import Callable, Sequence
from math import exp, log
from typing import Final

import msgspec

from controlplane.truthcore_projector.contracts import Contract, Value

LARGEST_STRENGTH: Final = 0.999


class Ballot(msgspec.Struct, frozen=True, kw_only=True):
    """One source's newest assertion about one (subject, predicate); `order` is its place in the log, later is larger."""

    value: Value
    source: str
    confidence: float
    reliability: float
    order: tuple[str, int, int]

    @property
    def strength(self) -> float:
        """Return how strongly the vote counts: the source's reliability times its own confidence."""
        return self.reliability * self.confidence


Fused = list[tuple[Value, float]]
"""Values with their probabilities, the truth first."""


def _ordered(ballots: Sequence[Ballot]) -> list[Ballot]:
    return sorted(ballots, key=lambda ballot: (ballot.source, ballot.order))


def _ranked(ballots: Sequence[Ballot], probability: dict[Value, float]) -> Fused:
    newest = {value: max(b.order for b in ballots if b.value == value) for value in probability}
    return sorted(probability.items(), key=lambda item: (item[1], newest[item[0]]), reverse=True)


def bayes(ballots: Sequence[Ballot]) -> Fused:
    """Return the posterior of each observed value; "something else" is one more candidate, the prior is uniform."""
    values = list(dict.fromkeys(ballot.value for ballot in _ordered(ballots)))
    candidates = len(values) + 1
    logs = dict.fromkeys(values, 0.0)
    other = 0.0
    for ballot in _ordered(ballots):
        strength = min(max(ballot.strength, 1 / candidates), LARGEST_STRENGTH)
        against = log((1 - strength) / (candidates - 1))
        for value in values:
            logs[value] += log(strength) if value == ballot.value else against
        other += against
    most = max(*logs.values(), other)
    total = sum(exp(one - most) for one in (*logs.values(), other))
    return _ranked(ballots, {value: exp(one - most) / total for value, one in logs.items()})


def noisy_or(ballots: Sequence[Ballot]) -> Fused:
    """Return for each value the probability that at least one of its sources is right."""
    doubt: dict[Value, float] = {}
    for ballot in _ordered(ballots):
        doubt[ballot.value] = doubt.get(ballot.value, 1.0) * (1 - ballot.strength)
    return _ranked(ballots, {value: 1 - one for value, one in doubt.items()})


def _chosen(ballots: Sequence[Ballot], best: Ballot) -> Fused:
    by_value = {ballot.value: ballot.confidence for ballot in sorted(ballots, key=lambda ballot: ballot.order)}
    rest = _ranked(ballots, {value: one for value, one in by_value.items() if value != best.value})
    return [(best.value, best.confidence), *rest]


def latest(ballots: Sequence[Ballot]) -> Fused:
    """Return the newest assertion's value first, with its own confidence."""
    return _chosen(ballots, max(ballots, key=lambda ballot: ballot.order))


def most_trusted(ballots: Sequence[Ballot]) -> Fused:
    """Return the value of the most reliable source first; then the surest, then the newest."""
    return _chosen(ballots, max(ballots, key=lambda ballot: (ballot.reliability, ballot.confidence, ballot.order)))


RULES: Final[dict[str, Callable[[Sequence[Ballot]], Fused]]] = {
    "BAYES": bayes, "NOISY_OR": noisy_or, "LATEST": latest, "MOST_TRUSTED": most_trusted,
}  # fmt: skip


def fuse(contract: Contract, ballots: Sequence[Ballot]) -> Fused:
    """Return the values by the contract's rule: together, or, where many are true at once, each by itself."""
    rule = RULES[contract.rule]
    if not contract.many:
        return rule(ballots)
    alone: dict[Value, list[Ballot]] = {}
    for ballot in ballots:
        alone.setdefault(ballot.value, []).append(ballot)
    return _ranked(ballots, {value: rule(some)[0][1] for value, some in alone.items()})
