"""The change feed tells every change once, wherever its reader goes on, and each as the definition of truth has it."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from controlplane.api.models import TruthView
from controlplane.events import types
from controlplane.events.codec import decode
from controlplane.truthcore_projector.cursors import Cursor, Gathered, Snapshot
from controlplane.truthcore_projector.feed import Place, Told, place_of, told
from controlplane.truthcore_projector.shards import WHOLE_LOG, Shard
from controlplane.truthcore_projector.truths import Wanted
from tests.unit.truthcore_projector import naive
from tests.unit.truthcore_projector.worlds import COUNTS, World, _filled

TRUTH = "controlplane.truth"
BEGIN = Place(vector=dict.fromkeys(range(COUNTS[TRUTH]), 0))
ALL = Wanted()


def truth_log(world: World) -> list[naive.Record]:
    """Return the records of the truth topic in the order in which the feed takes them."""
    some = [one for one in world.records if one.topic == TRUTH]
    newest: dict[int, int] = {}
    order: list[tuple[int, int, int, Any]] = []
    for one in some:
        newest[one.partition] = max(newest.get(one.partition, 0), one.timestamp)
        order.append((newest[one.partition], one.partition, one.offset, one))
    return [
        naive.Record(p, o, at * 1000, decode(one.value)) for at, p, o, one in sorted(order, key=lambda found: found[:3])
    ]


@contextmanager
def cursor_of(world: World, shards: int = 1, chance: random.Random | None = None) -> Iterator[Cursor]:
    made = [_filled(world, Shard(number=n, of=shards) if shards > 1 else WHOLE_LOG, chance) for n in range(shards)]
    try:
        if shards == 1:
            with made[0][0].snapshot() as cursor:
                yield cursor
        else:
            yield Gathered([Snapshot(store.connection.cursor()) for store, _ in made])
    finally:
        for store, projector in made:
            projector.close()
            store.close()


def whole(cursor: Cursor, limit: int, begin: Place = BEGIN, wanted: Wanted = ALL) -> list[Told]:
    """Read the feed to its end, going on each time with nothing but the text of the last place."""
    found: list[Told] = []
    text = str(begin)
    while True:
        some = told(cursor, place_of(text), wanted, limit)
        assert len([one for one in some if one.change]) <= limit
        found += [one for one in some if one.change]
        if str(some[-1].place) == text:
            return found
        text = str(some[-1].place)


def shape(view: TruthView | None) -> Any:
    if view is None:
        return None
    if view.contract.many:
        return {one.text: round(one.probability, 9) for one in view.candidates}, pytest.approx(view.confidence)
    return view.candidates[0].text, pytest.approx(view.confidence, abs=1e-9)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_change_is_what_the_definition_of_truth_says_of_one_record(seed: int) -> None:
    world = World(seed, 60)
    log = truth_log(world)
    with cursor_of(world) as cursor:
        found = whole(cursor, 1000)
    by_cause: dict[str, dict[tuple[str, str], Told]] = {}
    for one in found:
        assert one.change is not None
        by_cause.setdefault(str(one.cause), {})[(one.change.subject, one.change.predicate)] = one
    for number, record in enumerate(log):
        told_of = by_cause.pop(f"{TRUTH}/{record.partition}/{record.offset}", {})
        before, after = (naive.truths(log[:end], record.log_time) for end in (number, number + 1))
        differ = {pair for pair in before.keys() | after.keys() if before.get(pair) != after.get(pair)}
        assert differ <= told_of.keys()
        for pair, one in told_of.items():
            assert one.change is not None
            assert (shape(one.change.before), shape(one.change.after)) == (before.get(pair), after.get(pair))
            assert (one.change.change == "otherwise") == (pair not in differ)
    assert by_cause == {}
    assert len(found) == len({(one.cause, one.change.subject, one.change.predicate) for one in found if one.change})


def test_any_place_to_go_on_and_anybody_who_answers_gives_the_same_feed() -> None:
    world = World(5, 60)

    def told_by(some: list[Told]) -> list[Any]:
        return [(str(one.place), one.cause, one.change) for one in some]

    with cursor_of(world) as cursor:
        expected = told_by(whole(cursor, 1000))
        assert len(expected) > 20
        within = [number for number, one in enumerate(expected) if "~" in one[0]]
        assert within, "Expected a record that changes several truths."
        assert told_by(whole(cursor, 7)) == expected
        for number in (within[0], within[-1], len(expected) // 2):
            assert told_by(whole(cursor, 50, place_of(expected[number][0]))) == expected[number + 1 :]
    with cursor_of(world, chance=random.Random(1)) as replica:
        assert told_by(whole(replica, 50)) == expected
    with cursor_of(world, shards=2) as shards:
        assert told_by(whole(shards, 50)) == expected


def test_a_growing_log_is_told_without_gap_or_repetition() -> None:
    world = World(9, 60)
    chance, records = random.Random(9), list(world.records)
    causes: list[tuple[Any, ...]] = []
    text = str(BEGIN)
    # The log of a moment is a prefix of each partition, whatever the other partitions have.
    seen = dict.fromkeys(range(COUNTS[TRUTH]), 0)
    for _ in range(6):
        seen = {one: chance.randint(end, world.ends[(TRUTH, one)]) for one, end in seen.items()}
        if _ == 5:
            seen = {one: world.ends[(TRUTH, one)] for one in seen}
        world.records = [one for one in records if one.topic == TRUTH and one.offset < seen[one.partition]]
        with cursor_of(world) as cursor:
            for one in whole(cursor, 4, place_of(text)):
                assert one.change is not None
                text = str(one.place)
                causes.append((one.cause, one.change.subject, one.change.predicate))
    assert len(causes) == len(set(causes))
    assert {cause for cause, *_ in causes} >= {
        f"{TRUTH}/{one.partition}/{one.offset}"
        for one in truth_log(world)
        if isinstance(one.event, types.TruthAsserted) and not is_silent(one, world)
    }


def test_in_the_middle_of_a_record_nobody_goes_on_who_has_not_read_it() -> None:
    world = World(9, 60)
    with cursor_of(world) as cursor:
        place = next(one.place for one in whole(cursor, 1) if one.place.within is not None)
    assert place.within is not None
    partition, offset = place.within[0], place.vector[place.within[0]]
    world.records = [
        one for one in world.records if one.topic == TRUTH and (one.partition != partition or one.offset < offset)
    ]
    with cursor_of(world) as behind:
        assert told(behind, place, ALL, 50) == [Told(place=place)]


def is_silent(record: naive.Record, world: World) -> bool:
    """Say whether an assertion may change nothing: it was retracted or replaced before, or repeats what its source said."""
    same = [one for one in truth_log(world) if one.partition == record.partition and one.offset < record.offset]
    return any(
        isinstance(one.event, types.TruthAsserted) and (one.event.subject, one.event.predicate, one.event.object, one.event.source.name)
        == (record.event.subject, record.event.predicate, record.event.object, record.event.source.name)
        for one in same
    )  # fmt: skip


def test_patterns_and_confidence_choose_and_the_place_moves_on_all_the_same() -> None:
    world = World(5, 60)
    with cursor_of(world) as cursor:
        every = [one.change for one in whole(cursor, 1000) if one.change]
        chosen = [one.change for one in whole(cursor, 2, wanted=Wanted(subject="thing:1*", min_confidence=0.9))]
        nothing = told(cursor, BEGIN, Wanted(subject="nobody"), 10)
    sure = [one for one in every if max(side.confidence for side in (one.before, one.after) if side) >= 0.9]
    assert chosen == [one for one in sure if one.subject.startswith("thing:1")]
    assert [one.change for one in nothing] == [None]
    assert nothing[0].place.vector == {one: world.ends[(TRUTH, one)] for one in range(COUNTS[TRUTH])}


@pytest.mark.parametrize(
    "text", ["", "a", "0", "0:", "0:-1", "-1:0", "0:1~", "0:1~0", "0:1~0~!", "0:99999999999999999999"]
)
def test_a_place_that_the_feed_did_not_give_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Expected a place that the feed gave"):
        place_of(text)
