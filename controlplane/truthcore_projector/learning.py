"""How reliable sources are, learned from their agreement: accuracy of sources and probability of values, each from the other, to a fixed point.

`accu` is ACCU of Dong, Berti-Equille, Srivastava, "Integrating conflicting data: the role of source dependence", VLDB 2009, without copying;
`truthfinder` is that of Yin, Han, Yu, "Truth discovery with multiple conflicting information providers on the web", KDD 2007, without implication between
values. Both take a vote's own confidence as a factor of its source's accuracy; with confidence 1 they are those of the papers.

Sums run over votes in the order of item, value and source, so that the same votes give the same numbers.
"""

from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

LEAST_ACCURACY: Final = 0.01
MOST_ACCURACY: Final = 0.99
"""An accuracy of 0 or 1 could never be learned away from again."""
SETTLED: Final = 1e-6
ROUNDS_LIMIT: Final = 100

ACCU_BEGIN: Final = 0.8
ACCU_FALSE_VALUES: Final = 100
"""How many false values there are to choose from, as in the paper's experiments: agreement on one of them is then no accident."""

FINDER_BEGIN: Final = 0.9
FINDER_DAMPENING: Final = 0.3
"""Sources are not as independent as the product of their doubts supposes."""


class Votes(msgspec.Struct, frozen=True, kw_only=True):
    """Who says what, as columns: numbers of the source, the item, and the value (each value belongs to one item), and the confidence."""

    source: Numbers
    item: Numbers
    value: Numbers
    confidence: Floats

    def ordered(self) -> "Votes":
        """Return the votes in the order in which they are added up."""
        order = np.lexsort((self.source, self.value, self.item))
        return Votes(
            source=self.source[order], item=self.item[order], value=self.value[order], confidence=self.confidence[order]
        )


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """What was learned: the accuracy of each source, the probability of each value, and how it came about."""

    accuracy: Floats
    probability: Floats
    rounds: int
    settled: bool


def accu_probability(votes: Votes, strength: Floats, false_values: int = ACCU_FALSE_VALUES) -> Floats:
    """Return the probability of each value: its vote count is the sum of ln(n e / (1 - e)); a value that nobody names counts 0."""
    values = int(votes.value.max()) + 1
    count = np.bincount(votes.value, np.log(false_values * strength / (1 - strength)), values)
    home = np.zeros(values, np.int64)
    home[votes.value] = votes.item
    items = int(votes.item.max()) + 1
    most = np.zeros(items)  # Values that nobody names have the count 0.
    np.maximum.at(most, home, count)
    weight = np.exp(count - most[home])
    named = np.bincount(home, minlength=items)
    unnamed = np.maximum(false_values + 1 - named, 0) * np.exp(-most)
    probability: Floats = weight / (np.bincount(home, weight, items) + unnamed)[home]
    return probability


def finder_probability(votes: Votes, strength: Floats) -> Floats:
    """Return the confidence of each value: the logistic of the dampened sum of -ln(1 - t) of its sources."""
    doubts = np.bincount(votes.value, -np.log1p(-strength), int(votes.value.max()) + 1)
    probability: Floats = 1 / (1 + np.exp(-FINDER_DAMPENING * doubts))
    return probability


METHODS: Final[dict[str, tuple[float, Callable[[Votes, Floats], Floats]]]] = {
    "accu": (ACCU_BEGIN, accu_probability), "truthfinder": (FINDER_BEGIN, finder_probability)
}  # fmt: skip
"""By name: the accuracy that every source begins with, and how values get their probability."""


def learn(votes: Votes, method: str) -> Learned:
    """Return the fixed point: each source's accuracy is the mean probability of what it says."""
    begin, probability_of = METHODS[method]
    votes = votes.ordered()
    sources = int(votes.source.max()) + 1
    said = np.bincount(votes.source, votes.confidence, sources)
    accuracy, probability = np.full(sources, begin), np.zeros(0)
    for done in range(1, ROUNDS_LIMIT + 1):
        strength = np.clip(accuracy[votes.source] * votes.confidence, LEAST_ACCURACY / 2, MOST_ACCURACY)
        probability = probability_of(votes, strength)
        agreed = np.bincount(votes.source, probability[votes.value], sources)
        found = np.clip(agreed / np.where(said > 0, said, 1.0), LEAST_ACCURACY, MOST_ACCURACY)
        moved = float(np.max(np.abs(found - accuracy)))
        accuracy = found
        if moved < SETTLED:
            return Learned(accuracy=accuracy, probability=probability, rounds=done, settled=True)
    return Learned(accuracy=accuracy, probability=probability, rounds=ROUNDS_LIMIT, settled=False)
