"""When a circuit breaker opens, tries again and closes."""

import pytest

from controlplane.events.identity import Instant
from controlplane.events.types import BreakerChanged
from controlplane.jobforge_agent.breakers import (
    CLOSED,
    HALF_OPEN,
    OPEN,
    Counted,
    is_gone,
    judge,
    of_runner,
    of_type,
)
from controlplane.jobforge_agent.state import SECOND
from tests.unit.jobforge_agent.test_decide import header

NOW = Instant(1_000 * SECOND)


def breaker(state: str, until: int | None = None) -> BreakerChanged:
    return BreakerChanged(
        header=header("BreakerChanged"), subject=of_runner("r1"), state=state, until=until, failures=5, successes=0,
        openings=1, reason="",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("before", "counted", "gone", "after"),
    [
        (None, Counted(failures=5), False, OPEN),
        (None, Counted(failures=4), False, None),
        (None, Counted(failures=5, successes=6), False, None),
        (breaker(OPEN, NOW + 1), Counted(), False, None),
        (breaker(OPEN, NOW + 1), Counted(), True, None),
        (breaker(OPEN, NOW), Counted(), False, HALF_OPEN),
        (breaker(HALF_OPEN), Counted(), False, None),
        (breaker(HALF_OPEN), Counted(), True, CLOSED),
        (breaker(HALF_OPEN), Counted(failures=1), False, OPEN),
        (breaker(HALF_OPEN), Counted(successes=2), False, CLOSED),
    ],
)
def test_a_breaker_follows_what_was_counted(
    before: BreakerChanged | None, counted: Counted, gone: bool, after: str | None
) -> None:
    change = judge(before, counted, NOW, gone=gone)
    assert (change.state if change else None) == after


def test_only_a_runner_can_be_gone() -> None:
    assert is_gone(of_runner("r1"), {"r2"})
    assert not is_gone(of_runner("r2"), {"r2"})
    assert not is_gone(of_type("r1"), {"r2"})
