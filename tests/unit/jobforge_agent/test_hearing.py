"""What counts as heard."""

from controlplane.jobforge_agent.hearing import GAP_MICROS, NOTHING, Heard, heard_on


def test_hearing_goes_on_without_a_gap_and_begins_anew_after_one() -> None:
    first = heard_on(NOTHING, 100 * GAP_MICROS)
    assert first == Heard(100 * GAP_MICROS, 100 * GAP_MICROS)
    second = heard_on(first, first.until + GAP_MICROS)
    assert second == Heard(first.since, first.until + GAP_MICROS)
    assert heard_on(second, second.until + GAP_MICROS + 1) == Heard(*[second.until + GAP_MICROS + 1] * 2)


def test_what_was_heard_is_not_unheard() -> None:
    assert heard_on(Heard(5, 9), 7) == Heard(5, 9)
