"""A bucket for each client: so many at once, then as many as the rate allows; who is silent gets it back."""

from hypothesis import given
from hypothesis import strategies as st

from controlplane.gateway.pace import BURST_SECONDS, Pace


def test_a_client_may_ask_at_its_rate_and_for_a_moment_more() -> None:
    pace = Pace(10)
    assert [pace.wait_seconds("a", 0.0) for _ in range(20)] == [0.0] * 20
    assert 0 < pace.wait_seconds("a", 0.0) <= 0.1
    assert pace.wait_seconds("b", 0.0) == 0.0
    assert pace.wait_seconds("a", 0.11) == 0.0


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 2), max_size=200))
def test_no_more_is_served_than_the_rate_allows(rate: float, pauses: list[float]) -> None:
    pace, now, served = Pace(rate), 0.0, 0
    for pause in pauses:
        now += pause
        served += pace.wait_seconds("a", now) == 0.0
    assert served <= max(1.0, rate * BURST_SECONDS) + rate * now + 1
