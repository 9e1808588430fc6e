"""Two times against a model by definition: whatever order, repetition or restart, as of T is a fold that stopped at T."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.events import types
from controlplane.events.codec import encode
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant
from controlplane.events.types import Producer
from controlplane.truthcore_projector.decode import Decoder
from controlplane.truthcore_projector.differences import changes
from controlplane.truthcore_projector.moments import ALL, NOW, AsOf, Moment, moment, naive
from controlplane.truthcore_projector.store import Store
from controlplane.truthcore_projector.timeline import Axis, intervals, story
from controlplane.truthcore_projector.truths import Wanted, truth_cursor, truth_page
from tests.unit.truthcore_projector.naive import Record, prefix, truths

SECOND = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
START = 1_700_000_000 * SECOND
TOPIC = "controlplane.truth"
HOME = {"a": 0, "b": 1}
SYSTEM = Producer(service="test", version="0")


def at(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=micros)


def header(name: str, identity: str) -> types.EventHeader:
    return outside_header(name, identity, SYSTEM, Instant(0))


times = st.integers(-5, 25).map(lambda one: START + one * SECOND)
identities = st.sampled_from([f"id{number}" for number in range(4)])
assertion_ids = identities.map(lambda one: header("TruthAsserted", one).event_id)


@st.composite
def assertion(draw: st.DrawFn) -> types.TruthAsserted:
    # An id may come twice, about another subject or with another content: only the first of a subject is that assertion.
    since = draw(st.none() | times)
    until = None if since is None else draw(st.none() | st.integers(1, 20).map(lambda one: since + one * SECOND))
    kind = draw(st.sampled_from([types.ValueKind.STRING, types.ValueKind.STRING, types.ValueKind.REFERENCE]))
    return types.TruthAsserted(
        header=header("TruthAsserted", draw(identities)), subject=draw(st.sampled_from("ab")),
        predicate=draw(st.sampled_from(["free", "one", "many"])),
        object=types.TypedValue(kind=kind, text=f"{draw(st.sampled_from('xyz'))}-{kind}"),
        confidence=draw(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0])),
        source=types.Source(kind=types.SourceKind.CLIENT, name=draw(st.sampled_from(["eye", "ear", "hand"]))),
        valid_from=since, valid_to=until, evidence=types.Evidence(), supersedes=draw(st.none() | assertion_ids),
    )  # fmt: skip


@st.composite
def retraction(draw: st.DrawFn) -> types.TruthRetracted:
    return types.TruthRetracted(
        header=header("TruthRetracted", "r"), subject=draw(st.sampled_from("ab")), assertion_id=draw(assertion_ids),
        source=types.Source(kind=types.SourceKind.CLIENT, name="eye"),
    )  # fmt: skip


@st.composite
def declaration(draw: st.DrawFn) -> types.PredicateDeclared:
    name = draw(st.sampled_from(["one", "many"]))
    cardinality = types.Cardinality.SINGLE if name == "one" else types.Cardinality.MULTIPLE
    return types.PredicateDeclared(
        header=header("PredicateDeclared", name), subject=f"predicate:{name}", predicate=name, cardinality=cardinality,
        rule=types.FusionRule.DEFAULT, value_kind=draw(st.sampled_from([None, None, types.ValueKind.STRING])),
    )  # fmt: skip


@st.composite
def trust(draw: st.DrawFn) -> types.SourceDeclared:
    name = draw(st.sampled_from(["eye", "ear"]))
    return types.SourceDeclared(
        header=header("SourceDeclared", name), subject=f"source:{name}", source_name=name,
        reliability=draw(st.sampled_from([0.0, 0.3, 0.8])),
    )  # fmt: skip


@st.composite
def logs(draw: st.DrawFn) -> list[Record]:
    """A log of two partitions; append times may stand still or run backwards, as after a change of the broker's leader."""
    events = draw(
        st.lists(
            st.one_of(assertion(), assertion(), assertion(), retraction(), declaration(), trust()),
            min_size=6,
            max_size=25,
        )
    )
    if draw(st.booleans()):
        events.insert(draw(st.integers(0, len(events))), draw(st.sampled_from(events)))
    offsets, clock = {0: 0, 1: 0}, START
    log: list[Record] = []
    for event in events:
        clock += draw(st.sampled_from([-2, 0, 1, 1, 1, 3])) * SECOND
        partition = HOME.get(event.subject, 1)
        log.append(Record(partition, offsets[partition], clock, event))
        offsets[partition] += 1
    return log


def raw(one: Record) -> Any:
    return SimpleNamespace(
        topic=TOPIC, partition=one.partition, offset=one.offset, value=encode(one.event), key=b"k", timestamp=one.log_time // 1000
    )  # fmt: skip


@contextmanager
def projected(log: list[Record], chance: random.Random, file: Path | str = ":memory:") -> Iterator[Store]:
    """Yield a projection of a log: partitions interleaved and batches cut by chance, with a restart where there is a file."""
    store, decoder = Store(file), Decoder()
    by_partition = {number: [one for one in log if one.partition == number] for number in (0, 1)}
    done = {0: 0, 1: 0}
    while open_ones := [number for number in (0, 1) if done[number] < len(by_partition[number])]:
        number = chance.choice(open_ones)
        end = chance.randint(done[number] + 1, len(by_partition[number]))
        store.write(
            decoder.decode([raw(one) for one in by_partition[number][done[number] : end]]), {(TOPIC, number): end}
        )
        done[number] = end
        if file != ":memory:" and chance.random() < 0.3:
            store.close()
            store = Store(file)
            done = {one: store.positions().get((TOPIC, one), 0) for one in (0, 1)}
    try:
        yield store
    finally:
        decoder.close()
        store.close()


def answered(store: Store, as_of: AsOf | None, valid_at: int) -> dict[tuple[str, str], Any]:
    with store.snapshot() as cursor:
        found, following = truth_page(cursor, Wanted(), moment(cursor, as_of, at(valid_at)), 1000)
    assert following is None
    return {(one.subject, one.predicate): one for one in found}


def check(found: dict[tuple[str, str], Any], wanted: dict[tuple[str, str], tuple[Any, float]]) -> None:
    assert found.keys() == wanted.keys()
    for pair, (value, confidence) in wanted.items():
        one = found[pair]
        assert one.confidence == pytest.approx(confidence, abs=1e-9)
        if one.contract.many:
            assert {each.text: each.probability for each in one.candidates} == pytest.approx(value, abs=1e-9)
        else:
            assert one.candidates[0].text == value


as_ofs = st.none() | times | st.fixed_dictionaries({}, optional={0: st.integers(0, 15), 1: st.integers(0, 15)})


@given(log=logs(), as_of=as_ofs, valid_at=times, seed=st.integers(0, 2**32))
@settings(max_examples=60)
def test_every_moment_of_both_times_is_as_the_definition_says(
    log: list[Record], as_of: Any, valid_at: int, seed: int
) -> None:
    known = prefix(log, as_of)
    asked: AsOf | None = as_of
    if isinstance(as_of, int):
        asked = at(as_of)
    elif isinstance(as_of, dict):
        asked = {(TOPIC, partition): offset for partition, offset in as_of.items()}
    wanted = truths(known, valid_at)
    with projected(log, random.Random(seed)) as store:
        check(answered(store, asked, valid_at), wanted)
    # As of T is what a fold says that stopped at T.
    with projected(known, random.Random(seed + 1)) as store:
        check(answered(store, None, valid_at), wanted)


@given(log=logs(), valid_at=times, seed=st.integers(0, 2**32))
@settings(max_examples=6)
def test_restarts_change_no_answer(
    tmp_path_factory: pytest.TempPathFactory, log: list[Record], valid_at: int, seed: int
) -> None:
    file = tmp_path_factory.mktemp("truth") / "truth.duckdb"
    with projected(log, random.Random(seed), file) as store:
        check(answered(store, None, valid_at), truths(log, valid_at))


def series(store: Store, axis: Axis, at_: Moment, limit: int) -> list[Any]:
    """Return the whole history of a's `one`, gathered page by page."""
    found: list[Any] = []
    after = None
    while True:
        with store.snapshot() as cursor:
            page, after = intervals(story(cursor, "a", "one", ALL), axis, at_, limit, after)
        found += page
        if after is None:
            return found
        found[-1] = found[-1].model_copy(update={"until": after})


def among(found: list[Any], when: datetime) -> tuple[Any, float] | None:
    """Return what a series says of a moment."""
    for one in found:
        if one.since <= when and (one.until is None or when < one.until):
            return (one.value, one.confidence) if one.rule is not None else None
    return None


def same(one: tuple[Any, float] | None, other: tuple[Any, float] | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(one[0] == other[0] and abs(one[1] - other[1]) < 1e-9)


@given(log=logs(), fixed=st.none() | times, seed=st.integers(0, 2**32))
@settings(max_examples=25)
def test_the_series_of_beliefs_says_at_every_moment_what_the_answer_as_of_it_said(
    log: list[Record], fixed: int | None, seed: int
) -> None:
    with projected(log, random.Random(seed)) as store:
        found = series(store, "believed", NOW if fixed is None else Moment(instant=naive(at(fixed))), 3)
        assert all(one.until == following.since for one, following in pairwise(found))
        for second in range(-4, 30):
            when = START + second * SECOND
            wanted = truths(prefix(log, when), when if fixed is None else fixed).get(("a", "one"))
            assert same(among(found, at(when)), wanted), (second, found)


@given(log=logs(), seed=st.integers(0, 2**32))
@settings(max_examples=15)
def test_the_series_of_the_world_says_for_every_moment_what_holds_then(log: list[Record], seed: int) -> None:
    with projected(log, random.Random(seed)) as store:
        found = series(store, "valid", NOW, 3)
        for second in range(-8, 50, 2):
            when = START + second * SECOND
            assert same(among(found, at(when)), truths(log, when).get(("a", "one"))), (second, found)


@given(
    log=logs(), one=times, other=times, valid_at=st.none() | times, limit=st.integers(1, 4), seed=st.integers(0, 2**32)
)
@settings(max_examples=25)
def test_the_difference_is_what_two_answers_do_not_share(
    log: list[Record], one: int, other: int, valid_at: int | None, limit: int, seed: int
) -> None:
    sides = [truths(prefix(log, when), when if valid_at is None else valid_at) for when in (one, other)]
    wanted = {pair for pair in sides[0].keys() | sides[1].keys() if not same(sides[0].get(pair), sides[1].get(pair))}
    found: list[Any] = []
    with projected(log, random.Random(seed)) as store:
        begin = None
        while True:
            with store.snapshot() as cursor:
                before, after = (
                    moment(cursor, at(when), None if valid_at is None else at(valid_at)) for when in (one, other)
                )
                page, following = changes(cursor, Wanted(), before, after, limit, begin)
            found += page
            if following is None:
                break
            begin = truth_cursor(following)
    assert {(each.subject, each.predicate) for each in found if each.change != "otherwise"} == wanted
    assert [(each.subject, each.predicate) for each in found] == sorted(
        {(each.subject, each.predicate) for each in found}
    )


@given(
    log=logs(), conflict=st.none() | st.booleans(), predicate=st.sampled_from(["*", "o*", "many"]), limit=st.integers(1, 3),
    as_of=st.none() | times, seed=st.integers(0, 2**32),
)  # fmt: skip
@settings(max_examples=20)
def test_pages_hold_what_the_whole_holds(
    log: list[Record], conflict: bool | None, predicate: str, limit: int, as_of: int | None, seed: int
) -> None:
    with projected(log, random.Random(seed)) as store, store.snapshot() as cursor:
        then = moment(cursor, None if as_of is None else at(as_of), at(START + 30 * SECOND))
        everything = truth_page(cursor, Wanted(), then, 1000)[0]
        wanted = [
            one for one in everything if conflict in (None, one.conflict) and fnmatchcase(one.predicate, predicate)
        ]
        found: list[Any] = []
        after = None
        while True:
            page, following = truth_page(cursor, Wanted(conflict=conflict, predicate=predicate), then, limit, after)
            found += page
            if following is None:
                break
            after = truth_cursor(following)
        assert found == wanted
