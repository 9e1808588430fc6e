"""Answers as tables: a column has one type, and nothing is lost where the values have several."""

import importlib.util
from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.api.models import Candidate, ContractView, Reflects, TruthView, Vote
from controlplane.client import LibraryMissing, Rows, Truths

REFLECTS = Reflects(positions={}, lag_records=0, lag_seconds=0)


def truth(value: Any, kind: str, *sources: str, unit: str | None = None) -> TruthView:
    votes = [
        Vote(
            assertion_id="a", source=source, confidence=1, reliability=1, strength=1, log_time=datetime(2026, 1, 1, tzinfo=UTC),
            position="t/0/1", job_id=None,
        )
        for source in sources
    ]  # fmt: skip
    other = Candidate(value="another", kind=kind, text="another", unit=None, probability=0.1, votes=votes[:1])
    chosen = Candidate(value=value, kind=kind, text=str(value), unit=unit, probability=0.9, votes=votes)
    return TruthView(
        subject="s", predicate="p", value=value, kind=kind, unit=unit, confidence=0.9, rule="BAYES", conflict=True,
        candidates=[other, chosen], explanation="",
        contract=ContractView(
            value_kind=None, cardinality="SINGLE", rule="BAYES", unit=None, many=isinstance(value, list), declared_at=None
        ),
    )  # fmt: skip


def test_truths_are_a_list_and_a_table() -> None:
    found = Truths(
        [
            truth(5, "NUMBER", "b", "a", "b", unit="px"),
            truth("x", "STRING"),
            truth(True, "BOOLEAN"),
            truth({"a": [1]}, "JSON"),
        ],
        REFLECTS,
    )
    assert len(found) == 4
    table = found.to_arrow()
    assert table.column("value").to_pylist() == ["5", "x", "true", '{"a":[1]}']
    assert table.column("number").to_pylist() == [5.0, None, None, None]
    assert table.column("sources").to_pylist() == [["a", "b"], [], [], []]
    assert table.column("unit").to_pylist() == ["px", None, None, None]
    assert Truths([], REFLECTS).to_arrow().schema == table.schema


def test_rows_keep_the_types_of_their_values() -> None:
    rows = Rows(
        columns=["n", "text", "mixed", "none"],
        rows=[[1, "a", 1, None], [None, "b", "two", None]],
        truncated=False,
        reflects=REFLECTS,
    )
    table = rows.to_arrow()
    assert table.column_names == ["n", "text", "mixed", "none"]
    assert table.to_pydict() == {"n": [1, None], "text": ["a", "b"], "mixed": ["1", "two"], "none": [None, None]}
    assert str(table.schema.field("n").type) == "int64"
    empty = Rows(columns=["n"], rows=[], truncated=False, reflects=REFLECTS).to_arrow()
    assert (empty.num_rows, empty.column_names) == (0, ["n"])


@pytest.mark.parametrize(
    ("values", "kind", "found"),
    [
        ([2**64 - 1, None, 0], "uint64", [2**64 - 1, None, 0]),
        ([2**63 - 1, -(2**63)], "int64", [2**63 - 1, -(2**63)]),
        ([-1, 2**63], "string", ["-1", "9223372036854775808"]),
        ([2**70, None], "string", ["1.180591620717411303424e+21", None]),
        ([2**63, True], "string", ["9223372036854775808", "true"]),
        ([[2**63]], "string", ["[9223372036854775808]"]),
    ],
)
def test_integers_are_kept_however_large_they_are(values: list[Any], kind: str, found: list[Any]) -> None:
    rows = Rows(columns=["n"], rows=[[value] for value in values], truncated=False, reflects=REFLECTS)
    column = rows.to_arrow().column("n")
    assert (str(column.type), column.to_pylist()) == (kind, found)


def test_sources_are_those_of_every_value_that_is_true() -> None:
    many = truth(["another", "x"], "STRING", "b", "a")
    assert Truths([many], REFLECTS).to_arrow().column("sources").to_pylist() == [["a", "b"]]
    flag = truth(1, "NUMBER", "y", "z")
    flag.candidates[0] = flag.candidates[0].model_copy(update={"value": True, "kind": "BOOLEAN", "votes": flag.candidates[1].votes[:1]})  # fmt: skip
    flag.candidates[1].votes.pop(0)
    assert Truths([flag], REFLECTS).to_arrow().column("sources").to_pylist() == [["z"]]


def test_a_dataframe_needs_pandas_and_says_so() -> None:
    rows = Rows(columns=["n"], rows=[[1], [2]], truncated=False, reflects=REFLECTS)
    if importlib.util.find_spec("pandas") is None:
        with pytest.raises(LibraryMissing, match="Expected pandas to be installed"):
            rows.to_dataframe()
    else:
        assert rows.to_dataframe()["n"].tolist() == [1, 2]
