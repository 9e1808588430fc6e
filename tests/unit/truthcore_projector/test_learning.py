"""Learned reliability: the papers' definitions in plain Python, the affiliations of five researchers, and agreement in a projection."""

from math import exp, log, prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.events import types
from controlplane.truthcore_projector.agreement import frozen_range, lesson
from controlplane.truthcore_projector.learning import (
    ACCU_FALSE_VALUES,
    FINDER_DAMPENING,
    METHODS,
    MOST_ACCURACY,
    Votes,
    accu_probability,
    finder_probability,
    learn,
)
from controlplane.truthcore_projector.moments import NOW, Moment, as_of_text, moment
from controlplane.truthcore_projector.truths import Wanted
from tests.unit.truthcore_projector.stories import projection

Said = list[tuple[str, str, str, float]]
"""Source, item, value, confidence."""

# Where five researchers worked, by five sources; the fourth and fifth took theirs from the third (Dong et al., VLDB 2009, example 1.1).
AFFILIATIONS = {
    "Stonebraker": ("MIT", "Berkeley", "MIT", "MIT", "MS"),
    "Dewitt": ("MSR", "MSR", "UWisc", "UWisc", "UWisc"),
    "Bernstein": ("MSR", "MSR", "MSR", "MSR", "MSR"),
    "Carey": ("UCI", "AT&T", "BEA", "BEA", "BEA"),
    "Halevy": ("Google", "Google", "UW", "UW", "UW"),
}
RESEARCHERS: Said = [
    (f"S{n + 1}", item, value, 1.0) for item, row in AFFILIATIONS.items() for n, value in enumerate(row)
]


def columns(said: Said) -> tuple[Votes, list[str], list[tuple[str, str]]]:
    sources, items = sorted({one[0] for one in said}), sorted({one[1] for one in said})
    values = sorted({one[1:3] for one in said})
    votes = Votes(
        source=np.array([sources.index(one[0]) for one in said]), item=np.array([items.index(one[1]) for one in said]),
        value=np.array([values.index(one[1:3]) for one in said]), confidence=np.array([one[3] for one in said]),
    )  # fmt: skip
    return votes, sources, values


def accu(said: Said, accuracy: dict[str, float]) -> dict[tuple[str, str], float]:
    """The paper's equations 8 and 9: P(v) = e^C(v) / sum over the domain, C(v) = sum of ln(n A / (1 - A)); the domain has n false values and a true one."""
    found: dict[tuple[str, str], float] = {}
    for item in {one[1] for one in said}:
        named = {one[2] for one in said if one[1] == item}
        count = {
            value: sum(log(ACCU_FALSE_VALUES * accuracy[s] * c / (1 - accuracy[s] * c)) for s, i, v, c in said if (i, v) == (item, value)) for value in named
        }  # fmt: skip
        whole = sum(exp(one) for one in count.values()) + (ACCU_FALSE_VALUES + 1 - len(named))
        found |= {(item, value): exp(one) / whole for value, one in count.items()}
    return found


def finder(said: Said, trust: dict[str, float]) -> dict[tuple[str, str], float]:
    """The paper's equation 8 without implication: 1 / (1 + e^(-gamma sigma)), e^-sigma being the product of 1 - t."""
    return {
        (item, value): 1
        / (1 + prod(1 - trust[s] * c for s, i, v, c in said if (i, v) == (item, value)) ** FINDER_DAMPENING)
        for _, item, value, _ in said
    }


DEFINITIONS: dict[str, Any] = {"accu": accu, "truthfinder": finder}

claims = st.dictionaries(
    st.tuples(st.sampled_from(["s", "t", "u", "v"]), st.sampled_from(["a", "b", "c"])),
    st.tuples(st.sampled_from(["x", "y", "z"]), st.sampled_from([0.3, 0.8, 1.0])), min_size=1,
).map(lambda some: [(source, item, value, confidence) for (source, item), (value, confidence) in some.items()])  # fmt: skip


@given(said=claims, accuracy=st.lists(st.floats(0.05, 0.95), min_size=4, max_size=4))
@settings(max_examples=30)
def test_a_round_is_as_the_papers_define_it(said: Said, accuracy: list[float]) -> None:
    votes, _, values = columns(said)
    given_ = dict(zip(["s", "t", "u", "v"], accuracy, strict=True))
    strength = np.array([given_[one[0]] * one[3] for one in said])
    for name, probability_of in (("accu", accu_probability), ("truthfinder", finder_probability)):
        wanted = DEFINITIONS[name](said, given_)
        assert probability_of(votes, strength) == pytest.approx([wanted[value] for value in values], rel=1e-9), name


@pytest.mark.parametrize("method", METHODS)
@given(said=claims, seed=st.randoms(use_true_random=False))
@settings(max_examples=10)
def test_what_was_learned_is_a_fixed_point_whatever_the_order_of_the_votes(method: str, said: Said, seed: Any) -> None:
    votes, sources, _ = columns(said)
    learned = learn(votes, method)
    if learned.settled:
        trust = {name: float(learned.accuracy[number]) for number, name in enumerate(sources)}
        again = DEFINITIONS[method](said, {name: min(one, MOST_ACCURACY) for name, one in trust.items()})
        for name in sources:
            mine = [(again[(item, value)], c) for source, item, value, c in said if source == name]
            mean = sum(p for p, _ in mine) / sum(c for _, c in mine)
            assert trust[name] == pytest.approx(min(max(mean, 0.01), MOST_ACCURACY), abs=1e-4)
    shuffled = list(said)
    seed.shuffle(shuffled)
    assert learn(columns(shuffled)[0], method).accuracy.tolist() == learned.accuracy.tolist()


def test_the_five_sources_of_the_paper() -> None:
    """Without looking for copies ACCU believes the three that agree, as the paper says it does; what they disagree on tells them apart all the same."""
    votes, sources, values = columns(RESEARCHERS)
    learned = learn(votes, "accu")
    accuracy = dict(zip(sources, learned.accuracy.tolist(), strict=True))
    probability = dict(zip(values, learned.probability.tolist(), strict=True))
    assert learned.settled
    best = {
        item: max((one for one in values if one[0] == item), key=lambda one: probability[one])[1]
        for item in AFFILIATIONS
    }
    assert best == {"Stonebraker": "MIT", "Dewitt": "UWisc", "Bernstein": "MSR", "Carey": "BEA", "Halevy": "UW"}
    assert accuracy["S3"] == accuracy["S4"] > accuracy["S5"] > accuracy["S1"] > accuracy["S2"]
    assert learn(votes, "truthfinder").settled


def test_the_first_round_by_hand() -> None:
    """Accuracy 0.8 and n = 100: one vote counts ln 400, so three against two is 400 to 1."""
    votes, _, values = columns(RESEARCHERS)
    found = dict(zip(values, accu_probability(votes, np.full(len(RESEARCHERS), 0.8)).tolist(), strict=True))
    assert found[("Halevy", "UW")] == pytest.approx(400**3 / (400**3 + 400**2 + 99))
    assert found[("Carey", "UCI")] == pytest.approx(400 / (400**3 + 400 + 400 + 98))


def test_lessons_come_from_what_counts_and_can_be_had_again() -> None:
    with projection() as made:
        made.declares("width", types.Cardinality.SINGLE)
        made.declares("tags", types.Cardinality.MULTIPLE)
        for number in range(12):
            for source in ("ruler", "laser"):
                made.says(f"image:{number}", "width", number, source)
            made.says(f"image:{number}", "width", number if number < 3 else -1, "guess")
            made.says(f"image:{number}", "tags", "blue", "guess")
            made.says(f"image:{number}", "height", 1, "alone")
        with made.store.snapshot() as cursor:
            first = lesson(cursor, Wanted(), NOW, "accu")
            known = frozen_range(made.ends, {})
        reliability = {one.source: one.reliability for one in first.sources}
        assert (first.truths, first.votes, first.settled, set(reliability)) == (
            12,
            36,
            True,
            {"ruler", "laser", "guess"},
        )
        assert reliability["ruler"] == reliability["laser"] > 0.95
        assert reliability["guess"] == pytest.approx(3 / 12 / 0.9, abs=0.02)
        # What is said later changes nothing about the range.
        made.says("image:1", "width", 99, "ruler")
        made.says("image:2", "width", 99, "laser")
        with made.store.snapshot() as cursor:
            at = moment(cursor, as_of_text(known), None)
            assert lesson(cursor, Wanted(), at, "accu") == first
            assert lesson(cursor, Wanted(), Moment(known="true"), "accu") != first
            assert lesson(cursor, Wanted(predicate="tags"), NOW, "accu").sources == []


# Table 1 of Dawid and Skene, "Maximum likelihood estimation of observer error-rates using the EM algorithm", Applied Statistics 28, 1979: the class (1 to 4)
# of 45 patients by five anaesthetists, of whom the first looked three times.
READINGS = (
    "111 1111|333 4334|112 2122|222 3121|222 3222|222 3322|122 2111|333 3433|222 2223|232 2223|444 4444|222 3343|111 1111|222 3212|121 1111|111 2111|111 1111|111 1111"
    "|222 2221|222 1322|222 2222|222 2221|222 3222|221 2222|111 1111|111 1111|232 2222|111 1111|111 1111|112 1121|111 1111|333 3233|111 1111|222 2222|222 3232|433 434"
    "3|221 2232|232 3233|333 3432|111 1111|111 1111|121 2111|232 2222|121 1111|222 2222"
)
# Their results: how frequent each class is, and how often each observer gives a patient of a class that class (Table 2).
FREQUENT = (0.40, 0.42, 0.11, 0.07)
RIGHT = (
    (0.89, 0.88, 0.66, 0.44),
    (0.83, 0.63, 1.0, 1.0),
    (1.0, 0.79, 0.20, 0.33),
    (0.94, 0.84, 0.80, 0.67),
    (1.0, 0.73, 0.79, 0.67),
)
CLASSES = "142222132243121111222222112111131224233111212"


@pytest.mark.parametrize("method", METHODS)
def test_the_anaesthetists_of_dawid_and_skene(method: str) -> None:
    """Of the first observer the newest look counts. One accuracy per source comes to their classes but where it is the kind of an observer's error that decides."""
    said = [
        (f"observer {n + 1}", str(patient), value, 1.0)
        for patient, row in enumerate(READINGS.split("|"), 1)
        for n, value in enumerate(row[2] + row[4:])
    ]
    votes, sources, values = columns(said)
    learned = learn(votes, method)
    assert learned.settled
    probability = dict(zip(values, learned.probability.tolist(), strict=True))
    best: dict[str, str] = {}
    for item, value in values:
        if item not in best or probability[item, value] > probability[item, best[item]]:
            best[item] = value
    differs = {item: (best[item], CLASSES[int(item) - 1]) for item in best if best[item] != CLASSES[int(item) - 1]}
    assert differs == {"2": ("3", "4"), "36": ("3", "4")}
    if method == "accu":  # TruthFinder's trust is no probability: its dampening keeps sources close to each other.
        theirs = [sum(p * right for p, right in zip(FREQUENT, rates, strict=True)) for rates in RIGHT]
        assert learned.accuracy.tolist() == pytest.approx(theirs, abs=0.06)
        assert sources[int(learned.accuracy.argmin())] == "observer 2" == sources[int(np.argmin(np.round(theirs, 3)))]
