"""Objects of assertions: equal values have one text, and come back as what they were."""

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.events.codec import decode, encode
from controlplane.events.types import (
    Cardinality,
    EventHeader,
    FusionRule,
    PredicateDeclared,
    Producer,
    TypedValue,
    ValueKind,
)
from controlplane.events.values import Reference, ValueInvalid, canonical_json, json_value, plain_value, typed_value

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
# Above 2^53 the shortest decimal of a double is not its exact value: equal as doubles, not as Python compares them with integers.
MODEST = st.floats(-(2.0**53), 2.0**53, allow_nan=False)
INSTANTS = st.datetimes(
    min_value=datetime(1, 1, 3),  # noqa: DTZ001 -- the zone follows
    max_value=datetime(9999, 12, 29),  # noqa: DTZ001
    timezones=st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | MODEST | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


class Colour(StrEnum):
    RED = "red"


class Level(Enum):
    HIGH = 3


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ("", ValueKind.STRING, ""),
        ("true", ValueKind.STRING, "true"),
        (Colour.RED, ValueKind.STRING, "red"),
        (True, ValueKind.BOOLEAN, "true"),
        (False, ValueKind.BOOLEAN, "false"),
        (1, ValueKind.NUMBER, "1"),
        (1.0, ValueKind.NUMBER, "1"),
        (Decimal("1.00"), ValueKind.NUMBER, "1"),
        (Level.HIGH, ValueKind.NUMBER, "3"),
        (-0.0, ValueKind.NUMBER, "0"),
        (0.1, ValueKind.NUMBER, "0.1"),
        (Decimal("0.10"), ValueKind.NUMBER, "0.1"),
        (-1234.5, ValueKind.NUMBER, "-1234.5"),
        (1e21, ValueKind.NUMBER, "1e+21"),
        (10**21, ValueKind.NUMBER, "1e+21"),
        (10**20, ValueKind.NUMBER, "100000000000000000000"),
        (1.5e300, ValueKind.NUMBER, "1.5e+300"),
        (1e-6, ValueKind.NUMBER, "0.000001"),
        (1e-7, ValueKind.NUMBER, "1e-7"),
        (1.25e-7, ValueKind.NUMBER, "1.25e-7"),
        (2**53 + 1, ValueKind.NUMBER, "9007199254740993"),
        (5e-324, ValueKind.NUMBER, "5e-324"),
        (datetime(2026, 1, 31, 13, 5, 6, 500_000, timezone(timedelta(hours=1))), ValueKind.INSTANT, "2026-01-31T12:05:06.5Z"),
        (datetime(2026, 1, 31, tzinfo=UTC), ValueKind.INSTANT, "2026-01-31T00:00:00Z"),
        (Reference("module:json"), ValueKind.REFERENCE, "module:json"),
        (None, ValueKind.JSON, "null"),
        ([1.0, "é", None, True], ValueKind.JSON, '[1,"é",null,true]'),
        ((1, 2), ValueKind.JSON, "[1,2]"),
        ({"b": 1, "a": {"d": [], "c": {}}}, ValueKind.JSON, '{"a":{"c":{},"d":[]},"b":1}'),
        ({"\ue000": 1, "\U00010000": 2}, ValueKind.JSON, '{"\U00010000":2,"\ue000":1}'),
    ],
)  # fmt: skip
def test_a_value_has_one_kind_and_one_text(value: object, kind: ValueKind, text: str) -> None:
    typed = typed_value(value)
    assert (typed.kind, typed.text) == (kind, text)
    assert typed.number == (float(text) if kind is ValueKind.NUMBER else None)


@pytest.mark.parametrize(
    ("value", "given_kind", "message"),
    [
        (math.nan, None, "finite"),
        (math.inf, None, "finite"),
        (Decimal("NaN"), None, "finite"),
        (10**309, None, "finite"),
        (Decimal("0." + "1" * 401), None, "at most 400 digits"),
        (datetime(2026, 1, 31), None, "with its zone"),  # noqa: DTZ001 -- that it has none is the point
        (b"bytes", None, "found bytes"),
        ({1: 2}, None, "members as text, but found int"),
        ([object()], None, "but found object"),
        ("\ud800", None, "valid Unicode"),
        (["\ud800"], None, "valid Unicode"),
        ("x" * 65_537, None, "at most 65536 characters"),
        (Reference("x" * 513), None, "at most 512 characters"),
        (Reference(""), None, "Expected a reference"),
        ("yesterday", ValueKind.INSTANT, "Expected a time like"),
        ("2026-01-31T12:00:00", ValueKind.INSTANT, "with its zone"),
        ("5", ValueKind.NUMBER, "Expected a number, but found str"),
        (True, ValueKind.NUMBER, "Expected a number, but found bool"),
        (1, ValueKind.BOOLEAN, "Expected a boolean, but found int"),
        (5, ValueKind.STRING, "Expected a string, but found int"),
        (5, ValueKind.REFERENCE, "Expected a reference, but found int"),
    ],
)
def test_what_is_no_value_is_refused_in_words(value: object, given_kind: ValueKind | None, message: str) -> None:
    with pytest.raises(ValueInvalid, match=message):
        typed_value(value, kind=given_kind)


def test_no_long_number_is_written_out_to_be_refused() -> None:
    with pytest.raises(ValueInvalid, match="at most 400 digits"):
        typed_value(1 << 100_000)


def test_nesting_is_bounded() -> None:
    value: list[Any] = []
    for _ in range(10_000):
        value = [value]
    with pytest.raises(ValueInvalid, match="nested at most 32 deep"):
        typed_value(value)


@pytest.mark.parametrize(("value", "unit"), [("5", "m"), (5, ""), (5, "m" * 65), (True, "m")])
def test_a_unit_belongs_to_a_number(value: object, unit: str) -> None:
    with pytest.raises(ValueInvalid, match="Expected a unit"):
        typed_value(value, unit=unit)
    assert typed_value(5, unit="m").unit == "m"


def test_what_came_as_json_takes_the_kind_that_was_asked_for() -> None:
    assert typed_value("2026-01-31T12:00:00+01:00", kind=ValueKind.INSTANT).text == "2026-01-31T11:00:00Z"
    assert typed_value("module:json", kind=ValueKind.REFERENCE) == typed_value(Reference("module:json"))
    assert typed_value("five", kind=ValueKind.JSON).text == '"five"'


@given(TEXT | st.booleans() | st.integers(-(10**21) + 1, 10**21 - 1) | INSTANTS | JSON)
def test_a_value_comes_back(value: Any) -> None:
    back = plain_value(typed_value(value))
    assert back == value
    assert type(back) is type(value) or isinstance(value, float)


@given(FINITE)
def test_a_number_comes_back_to_the_last_bit(number: float) -> None:
    back = plain_value(typed_value(number))
    assert isinstance(back, int | float)
    assert float(back) == number


@given(st.integers(-(10**308), 10**308) | FINITE | st.decimals(-(10**300), 10**300, places=10))
def test_a_text_is_canonical(number: float | Decimal) -> None:
    typed = typed_value(number)
    assert typed_value(plain_value(typed)) == typed
    assert Decimal(typed.text) == (Decimal(repr(number)) if isinstance(number, float) else number)


@given(JSON)
def test_canonical_json_is_json_and_depends_on_the_value_alone(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    shuffled = dict(reversed(value.items())) if isinstance(value, dict) else value
    assert canonical_json(shuffled) == text


@given(FINITE)
def test_numbers_are_written_with_the_shortest_digits(number: float) -> None:
    text = canonical_json(number)
    assert float(json.loads(text)) == number
    assert sum(map(str.isdigit, text.partition("e")[0].strip("-0.").rstrip("0"))) <= 17


@given(TEXT | st.booleans() | FINITE | INSTANTS | JSON | TEXT.filter(bool).map(Reference))
def test_what_goes_into_an_answer_is_json(value: Any) -> None:
    typed = typed_value(value)
    assert json.loads(json.dumps(json_value(typed))) == json_value(typed)


@given(TEXT | FINITE | JSON)
def test_a_value_survives_the_log(value: Any) -> None:
    typed: TypedValue = typed_value(value)
    header = EventHeader(
        event_id="e", occurred_at=1, correlation_id="c", producer=Producer(service="gateway", version="1")
    )
    event = PredicateDeclared(
        header=header, subject="s", predicate="p", value_kind=typed.kind, description=typed.text,
        cardinality=Cardinality.SINGLE, rule=FusionRule.DEFAULT,
    )  # fmt: skip
    assert decode(encode(event)) == event
