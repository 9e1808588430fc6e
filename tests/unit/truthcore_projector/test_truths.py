"""What is true, asked of a projection: what counts, when it was known, when it held."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from controlplane.events import types
from controlplane.events.codec import encode
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant
from controlplane.events.types import Producer
from controlplane.truthcore_projector.decode import Decoder
from controlplane.truthcore_projector.moments import NOW, AsOf, as_of_text, moment
from controlplane.truthcore_projector.store import Store
from controlplane.truthcore_projector.truths import Wanted, truth_cursor, truth_page

START = datetime(2026, 1, 1, tzinfo=UTC)
HOME = ("controlplane.truth", 1)
SYSTEM = Producer(service="test", version="0")


def day(number: int) -> datetime:
    return START + timedelta(days=number)


def micros(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)


def says(source: str, value: str, identity: str, confidence: float = 0.8, **more: Any) -> types.TruthAsserted:
    return types.TruthAsserted(
        header=outside_header("TruthAsserted", identity, SYSTEM, Instant(0)), subject="house", predicate="colour",
        object=types.TypedValue(kind=types.ValueKind.STRING, text=value), confidence=confidence,
        source=types.Source(kind=types.SourceKind.CLIENT, name=source), evidence=types.Evidence(), **more,
    )  # fmt: skip


def retracts(one: types.TruthAsserted) -> types.TruthRetracted:
    return types.TruthRetracted(
        header=outside_header("TruthRetracted", one.header.event_id, SYSTEM, Instant(0)), subject="house",
        assertion_id=one.header.event_id, source=one.source,
    )  # fmt: skip


def declares(
    cardinality: types.Cardinality, rule: types.FusionRule = types.FusionRule.DEFAULT, **more: Any
) -> types.PredicateDeclared:
    return types.PredicateDeclared(
        header=outside_header("PredicateDeclared", cardinality, SYSTEM, Instant(0)), subject="predicate:colour",
        predicate="colour", cardinality=cardinality, rule=rule, **more,
    )  # fmt: skip


def measures(source: str, number: str, unit: str | None, identity: str) -> types.TruthAsserted:
    value = types.TypedValue(kind=types.ValueKind.NUMBER, text=number, number=float(number), unit=unit)
    return msgspec.structs.replace(says(source, "", identity), object=value)


def trusts(source: str, reliability: float) -> types.SourceDeclared:
    return types.SourceDeclared(
        header=outside_header("SourceDeclared", source, SYSTEM, Instant(0)), subject=f"source:{source}",
        source_name=source, reliability=reliability,
    )  # fmt: skip


class Told:
    """A projection to which one event is told per day; the first on day 0, at offset 0."""

    def __init__(self) -> None:
        self.store, self.decoder, self.offset = Store(":memory:"), Decoder(), 0

    def tell(self, *events: msgspec.Struct) -> None:
        for event in events:
            record = SimpleNamespace(
                topic="controlplane.truth", partition=1, offset=self.offset, value=encode(event), key=b"house",
                timestamp=int(day(self.offset).timestamp() * 1000),
            )  # fmt: skip
            self.offset += 1
            self.store.write(self.decoder.decode([record]), {("controlplane.truth", 1): self.offset})

    def truth(self, as_of: AsOf | None = None, valid_at: datetime | None = None) -> Any:
        with self.store.snapshot() as cursor:
            found, _ = truth_page(cursor, Wanted(subject="house"), moment(cursor, as_of, valid_at), 10)
        return found[0] if found else None

    def value(self, as_of: AsOf | None = None, valid_at: datetime | None = None) -> Any:
        truth = self.truth(as_of, valid_at)
        return truth and truth.value


@pytest.fixture
def told() -> Iterator[Told]:
    projection = Told()
    yield projection
    projection.decoder.close()
    projection.store.close()


def test_what_was_taken_back_no_longer_counts_but_was_known(told: Told) -> None:
    red = says("eye", "red", "1")
    told.tell(red, says("camera", "blue", "2"), retracts(says("camera", "blue", "2")))
    assert (told.value(), told.value(as_of=day(1)), told.value(as_of={HOME: 1})) == ("red", "blue", "blue")
    assert told.value(as_of=day(-1)) is None


def test_pages_of_truths_continue_each_other(told: Told) -> None:
    told.tell(*(msgspec.structs.replace(says("eye", "red", str(one)), predicate=f"p~{one}") for one in range(5)))
    seen: list[str] = []
    after = None
    while True:
        with told.store.snapshot() as cursor:
            page, following = truth_page(cursor, Wanted(subject="house", predicate="p~*"), NOW, 2, after)
        seen += [one.predicate for one in page]
        if following is None:
            break
        after = truth_cursor(following)
    assert seen == [f"p~{one}" for one in range(5)]


def test_what_was_superseded_no_longer_counts(told: Told) -> None:
    old = says("eye", "red", "1")
    told.tell(old, says("eye", "crimson", "2", supersedes=old.header.event_id))
    assert len(told.truth().candidates) == 1
    assert (told.value(), told.value(as_of={HOME: 0})) == ("crimson", "red")


def test_a_backdated_correction_changes_the_past_but_not_what_was_known_of_it(told: Told) -> None:
    told.tell(says("eye", "red", "1"), says("eye", "red", "2"), says("eye", "blue", "3", valid_from=micros(day(-10))))
    assert told.value(valid_at=day(-5)) == "blue"
    assert told.value(as_of=day(1), valid_at=day(-5)) is None


def test_what_ended_holds_until_its_end(told: Told) -> None:
    told.tell(says("eye", "red", "1", valid_from=micros(day(0)), valid_to=micros(day(3))))
    assert (told.value(valid_at=day(2)), told.value(valid_at=day(3)), told.value()) == ("red", None, None)


def test_append_times_that_run_backwards_do_not_reorder_what_was_known(told: Told) -> None:
    told.tell(says("eye", "red", "1"))
    told.offset = 1
    late, early = says("eye", "green", "2"), says("eye", "blue", "3")
    for event, appended in ((late, day(9)), (early, day(2))):
        record = SimpleNamespace(
            topic="controlplane.truth", partition=1, offset=told.offset, value=encode(event), key=b"house",
            timestamp=int(appended.timestamp() * 1000),
        )  # fmt: skip
        told.offset += 1
        told.store.write(told.decoder.decode([record]), {("controlplane.truth", 1): told.offset})
    assert told.value(as_of=day(5), valid_at=day(9)) == "red"  # The longest prefix ends before the record of day 9.


def test_an_event_published_twice_votes_once(told: Told) -> None:
    told.tell(says("eye", "red", "1"), says("eye", "red", "1"))
    assert [len(one.votes) for one in told.truth().candidates] == [1]


def test_declared_single_values_are_weighed_by_reliability(told: Told) -> None:
    told.tell(
        declares(types.Cardinality.SINGLE), trusts("eye", 0.5), says("camera", "blue", "1", 0.9), says("eye", "red", "2", 0.9)
    )  # fmt: skip
    truth = told.truth()
    # Candidates blue, red, other; e = 0.9 and 0.45. blue 0.9 * 0.275, red 0.05 * 0.45, other 0.05 * 0.275.
    wanted = 0.9 * 0.275 / (0.9 * 0.275 + 0.05 * 0.45 + 0.05 * 0.275)
    assert (truth.rule, truth.value, truth.conflict) == ("BAYES", "blue", True)
    assert truth.confidence == pytest.approx(wanted, rel=1e-12)


def test_declared_many_values_stand_beside_each_other(told: Told) -> None:
    told.tell(declares(types.Cardinality.MULTIPLE), says("eye", "red", "1", 0.5), says("camera", "red", "2", 0.5))
    told.tell(says("eye", "blue", "3", 0.3))
    truth = told.truth()
    assert (truth.rule, truth.value, truth.conflict) == ("NOISY_OR", ["red", "blue"], False)
    assert [one.probability for one in truth.candidates] == pytest.approx([0.75, 0.3])


def test_what_breaks_the_contract_is_kept_and_shown_and_does_not_count(told: Told) -> None:
    told.tell(declares(types.Cardinality.SINGLE, value_kind=types.ValueKind.NUMBER, unit="nm"))
    told.tell(says("eye", "red", "1"), measures("camera", "650", "m", "2"))
    assert told.truth() is None
    told.tell(measures("meter", "650", "nm", "3"), measures("gauge", "650", None, "4"))
    truth = told.truth()
    assert (truth.value, truth.unit, truth.conflict, len(truth.candidates[0].votes)) == (650, "nm", False, 2)
    assert {one.vote.source: one.reason for one in truth.ignored} == {
        "camera": "Expected the unit 'nm', as declared, but found 'm'.",
        "eye": "Expected a number, as declared, but found a string.",
    }


def test_an_answer_explains_itself(told: Told) -> None:
    told.tell(
        declares(types.Cardinality.SINGLE),
        trusts("eye", 0.5),
        says("camera", "blue", "1", 0.9),
        says("eye", "red", "2", 0.8),
    )
    truth = told.truth()
    blue, red = truth.candidates
    assert ([vote.source for vote in blue.votes], blue.against, red.against) == (["camera"], ["eye"], ["camera"])
    assert [(vote.reliability, vote.confidence, vote.strength) for vote in red.votes] == [(0.5, 0.8, 0.4)]
    assert (truth.contract.cardinality, truth.contract.declared_at) == ("SINGLE", "controlplane.truth/1/0")
    assert truth.explanation.startswith("BAYES (declared at controlplane.truth/1/0): each vote weighs")
    assert truth.explanation.endswith("; 1 for it, 1 against.")


@pytest.mark.parametrize(
    ("cardinality", "rule", "value", "confidence"),
    [
        (types.Cardinality.SINGLE, types.FusionRule.LATEST, "green", 0.3),
        (types.Cardinality.SINGLE, types.FusionRule.MOST_TRUSTED, "blue", 0.6),
        (types.Cardinality.SINGLE, types.FusionRule.NOISY_OR, "blue", 1 - 0.4 * 0.55),
        (types.Cardinality.MULTIPLE, types.FusionRule.LATEST, ["blue", "green"], 0.9),
        (types.Cardinality.MULTIPLE, types.FusionRule.MOST_TRUSTED, ["blue", "green"], 0.6),
        (types.Cardinality.MULTIPLE, types.FusionRule.BAYES, ["blue", "green"], 0.6 * 0.5 / (0.6 * 0.5 + 0.4 * 0.5)),
        (types.Cardinality.UNDECLARED, types.FusionRule.NOISY_OR, ["blue", "green"], 1 - 0.4 * 0.55),
    ],
)
def test_every_rule_goes_with_one_value_and_with_many(
    told: Told, cardinality: types.Cardinality, rule: types.FusionRule, value: Any, confidence: float
) -> None:
    told.tell(declares(cardinality, rule), trusts("eye", 0.5), trusts("ear", 0.1), says("camera", "blue", "1", 0.6))
    told.tell(says("eye", "blue", "2", 0.9), says("ear", "green", "3", 0.3))
    truth = told.truth()
    assert (truth.rule, truth.value) == (rule, value)
    assert truth.confidence == pytest.approx(confidence, rel=1e-12)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(value="red"), ["p1"]),
        (Wanted(value="*e*"), ["p1", "p2"]),
        (Wanted(value="[a-z]*"), []),
        (Wanted(source="camera"), ["p1", "p2"]),
        (Wanted(source="ear"), ["p3"]),
        (Wanted(source="e*"), ["p1", "p3"]),
        (Wanted(min_confidence=0.6, max_confidence=0.9), ["p1", "p2"]),
        (Wanted(conflict=True), ["p1"]),
        (Wanted(since=day(2)), ["p2", "p3"]),
        (Wanted(since=day(1), until=day(3)), ["p1", "p2"]),
        (Wanted(subject="h?use"), []),
        (Wanted(predicate="p*", value="[x]%_*"), ["p3"]),
    ],
)
def test_truths_are_chosen_by_value_source_confidence_and_time(told: Told, wanted: Wanted, found: list[str]) -> None:
    told.tell(
        msgspec.structs.replace(says("camera", "blue", "1", 0.5), predicate="p1"),
        msgspec.structs.replace(says("eye", "red", "2", 0.7), predicate="p1"),
        msgspec.structs.replace(says("camera", "blue", "3", 0.9), predicate="p2"),
        msgspec.structs.replace(says("ear", "[x]%_~", "4", 0.2), predicate="p3"),
    )
    with told.store.snapshot() as cursor:
        page, following = truth_page(cursor, wanted, NOW, 10)
    assert ([one.predicate for one in page], following) == (found, None)


def test_a_page_goes_on_where_filters_left_nothing(told: Told) -> None:
    told.tell(*(msgspec.structs.replace(says("eye", "red", str(n), n / 100), predicate=f"p{n:02}") for n in range(60)))
    seen: list[str] = []
    after = None
    while True:
        with told.store.snapshot() as cursor:
            page, following = truth_page(cursor, Wanted(min_confidence=0.5), NOW, 2, after)
        seen += [one.predicate for one in page]
        if following is None:
            break
        after = truth_cursor(following)
    assert seen == [f"p{number}" for number in range(50, 60)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2026-01-01T00:00:00Z", START),
        ("2026-01-01T00:00:00", START),
        ("2026-01-01T01:00:00+01:00", START),
        (
            "controlplane.truth/2/17,controlplane.truth/0/3",
            {("controlplane.truth", 2): 17, ("controlplane.truth", 0): 3},
        ),
        ("controlplane.jobs/2/17", {("controlplane.jobs", 2): 17}),
    ],
)
def test_as_of_is_a_time_or_positions(text: str, wanted: AsOf) -> None:
    assert as_of_text(text) == wanted


@pytest.mark.parametrize("text", ["yesterday", "controlplane.truth/2", "controlplane.truth/2/x", "a/1/1,"])
def test_other_texts_are_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="Expected a time like"):
        as_of_text(text)


@pytest.mark.parametrize("text", ["x", "bnVsbA==", "WzFd", "é"])
def test_cursors_of_no_page_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Expected a cursor"):
        truth_cursor(text)
