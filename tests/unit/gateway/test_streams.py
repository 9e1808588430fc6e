"""The ids of a live stream say exactly where to resume, and nothing else is taken for one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.events.catalog import TOPICS
from controlplane.gateway.streams import (
    ID_PATTERN,
    VECTOR_LIMIT_CHARACTERS,
    VectorInvalid,
    single_position,
    vector_from,
    vector_text,
)

PLACES = st.tuples(st.sampled_from(sorted(TOPICS)), st.integers(0, 99))


@given(st.dictionaries(PLACES, st.integers(0, 10**17), min_size=1, max_size=60))
def test_an_id_names_the_positions_that_it_was_made_of(positions: dict[tuple[str, int], int]) -> None:
    text = vector_text(positions)
    assert vector_from(text) == positions
    assert re.match(ID_PATTERN, text)
    assert single_position(text) is None
    assert vector_from(f"{text};end") == positions
    assert re.match(ID_PATTERN, f"{text};end")


@pytest.mark.parametrize("partitions", [1, 12, 64, 180])
def test_an_id_of_the_whole_log_is_short_enough_to_be_sent_back(partitions: int) -> None:
    positions = {(topic, number): 123_456_789 for topic in TOPICS for number in range(partitions)}
    text = vector_text(positions) + ";end"
    assert len(text) <= VECTOR_LIMIT_CHARACTERS
    assert re.match(ID_PATTERN, text)
    assert vector_from(text) == positions


def test_an_id_of_an_earlier_release_is_one_still() -> None:
    text = "jobs:0=12,1=345;truth:2=0"
    assert re.match(ID_PATTERN, text)
    jobs, truth = "controlplane.jobs", "controlplane.truth"
    assert vector_from(text) == {(jobs, 0): 12, (jobs, 1): 345, (truth, 2): 0}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "jobs",
        "jobs:1",
        "jobs:1=x",
        "jobs:1=2;",
        ";end",
        "jobs:1=1" + "0" * 18,
        "jobs:-=2",
        "jobs=",
        "jobs=1,,2",
        "jobs=1g",
    ],
)
def test_what_is_no_id_is_refused_in_words(text: str) -> None:
    with pytest.raises(VectorInvalid, match="Expected a position or the id of an earlier event, but found"):
        vector_from(text)


def test_a_position_is_an_id_too() -> None:
    assert single_position("controlplane.jobs/3/17") == ("controlplane.jobs", 3)
    with pytest.raises(VectorInvalid):
        single_position("controlplane.jobs/3/x")
