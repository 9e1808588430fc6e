"""Fusion against numbers worked by hand from the rule's definition (truth semantics; ACCU of Dong et al., VLDB 2009)."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.truthcore_projector.contracts import rule_of
from controlplane.truthcore_projector.fusion import RULES, Ballot, bayes, latest, most_trusted, noisy_or


def ballot(value: str, source: str, confidence: float, reliability: float = 1.0, at: int = 0) -> Ballot:
    return Ballot(
        value=("STRING", value, None),
        source=source,
        confidence=confidence,
        reliability=reliability,
        order=("t", 0, at),
    )


def exact(*votes: tuple[str, Fraction]) -> dict[str, Fraction]:
    """Return the posterior by the definition, in exact fractions: something else is one more candidate."""
    values = sorted({value for value, _ in votes})
    n = len(values) + 1
    weight = {value: Fraction(1) for value in [*values, "something else"]}
    for chosen, strength in votes:
        for value in weight:
            weight[value] *= strength if value == chosen else (1 - strength) / (n - 1)
    return {value: one / sum(weight.values()) for value, one in weight.items()}


def test_two_agree_against_one() -> None:
    found = bayes([ballot("A", "s1", 0.9), ballot("A", "s2", 0.6), ballot("B", "s3", 0.8)])
    wanted = exact(("A", Fraction(9, 10)), ("A", Fraction(6, 10)), ("B", Fraction(8, 10)))
    assert [value[1] for value, _ in found] == ["A", "B"]
    assert found[0][1] == pytest.approx(float(wanted["A"]), rel=1e-12)
    assert found[1][1] == pytest.approx(float(wanted["B"]), rel=1e-12)


def test_a_vote_below_chance_says_nothing() -> None:
    assert bayes([ballot("A", "s1", 0.1)])[0][1] == pytest.approx(0.5)


def test_noisy_or_takes_each_value_by_itself() -> None:
    found = {
        value[1]: one
        for value, one in noisy_or([ballot("A", "s1", 0.5), ballot("A", "s2", 0.5), ballot("B", "s1", 0.3)])
    }
    assert found == pytest.approx({"A": 0.75, "B": 0.3})


def test_latest_and_most_trusted_choose_one_vote() -> None:
    votes = [ballot("old", "s1", 0.9, reliability=0.9, at=1), ballot("new", "s2", 0.2, reliability=0.5, at=2)]
    assert (latest(votes)[0][0][1], latest(votes)[0][1]) == ("new", 0.2)
    assert most_trusted(votes)[0][0][1] == "old"


@pytest.mark.parametrize(
    ("rule", "cardinality", "wanted"),
    [
        (None, None, "LATEST"),
        ("DEFAULT", "SINGLE", "BAYES"),
        ("DEFAULT", "MULTIPLE", "NOISY_OR"),
        ("LATEST", "SINGLE", "LATEST"),
    ],
)
def test_the_default_rule_follows_from_the_declaration(rule: str | None, cardinality: str | None, wanted: str) -> None:
    assert rule_of(rule, cardinality) == wanted


@given(st.permutations(range(5)), st.lists(st.tuples(st.sampled_from("ABC"), st.floats(0, 1)), min_size=5, max_size=5))
def test_the_order_of_arrival_does_not_matter(order: list[int], votes: list[tuple[str, float]]) -> None:
    ballots = [ballot(value, f"s{number}", confidence, at=number) for number, (value, confidence) in enumerate(votes)]
    for rule in RULES.values():
        assert rule(ballots) == rule([ballots[number] for number in order])
