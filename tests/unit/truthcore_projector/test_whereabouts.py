"""Whatever speaks of a name is found where the stretches say, after crashes, rollbacks and in any order of writing."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from controlplane.truthcore_projector import whereabouts
from controlplane.truthcore_projector.archiving import archive
from controlplane.truthcore_projector.cursors import FINDING
from controlplane.truthcore_projector.decode import Decoder
from controlplane.truthcore_projector.store import Store, positions_in
from controlplane.truthcore_projector.whereabouts import EVERYWHERE, NAMES, NOWHERE, SPANS_LIMIT
from tests.unit.truthcore_projector.worlds import START_SECONDS, World


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    one = Decoder()
    yield one
    one.close()


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whereabouts, "STRETCH_RECORDS", 7)


def project(file: Path, world: World, decoder: Decoder, chance: random.Random) -> None:
    """Write a log in batches of any size, partitions in any order; now and then a batch is rolled back, detail is archived, or the process ends."""
    log: dict[tuple[str, int], list[Any]] = {}
    for record in world.records:
        log.setdefault((record.topic, record.partition), []).append(record)
    store = Store(file)
    done = dict.fromkeys(log, 0)
    while going := [place for place in log if done[place] < len(log[place])]:
        place = chance.choice(going)
        end = chance.randint(done[place] + 1, len(log[place]))
        between = range(done[place] + 1, end)
        parts = [done[place], *sorted(chance.sample(between, min(len(between), chance.randint(0, 3)))), end]
        if chance.random() < 0.2:
            store.begin()
            add(store, log[place], place, parts, decoder)
            store.rollback()
        if chance.random() < 0.1:
            archive(store, datetime.fromtimestamp(START_SECONDS + chance.randint(0, 60), UTC))
        if chance.random() < 0.2:
            store.close()
            store = Store(file)
        store.begin()
        add(store, log[place], place, parts, decoder)
        store.commit()
        done[place] = end
    store.close()


def add(store: Store, records: list[Any], place: tuple[str, int], parts: list[int], decoder: Decoder) -> None:
    """Add records of a partition in several batches within one transaction, as a replay does."""
    for start, end in pairwise(parts):
        store.add(decoder.decode(records[start:end]), {place: end})


@pytest.mark.parametrize("seed", range(8))
def test_every_row_about_a_name_is_where_the_stretches_say(seed: int, decoder: Decoder, tmp_path: Path) -> None:
    world, file = World(seed, 60), tmp_path / "core.duckdb"
    project(file, world, decoder, random.Random(seed))
    store = Store(file)
    narrowed = 0
    with store.snapshot() as cursor:
        for table, column in NAMES:
            every = cursor.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL").fetchall()
            for (name,) in every:
                text = name.decode() if isinstance(name, bytes) else name
                near = FINDING[cursor]((text,))
                narrowed += near != EVERYWHERE
                count = f"SELECT count(*), count(*) FILTER ({near}) FROM {table} WHERE {column} = ?"
                (row,) = cursor.execute(count, [name]).fetchall()
                assert row[0] == row[1] > 0, (table, name, near)
        assert FINDING[cursor](("nobody speaks of this",)) == NOWHERE
        assert cursor.execute("SELECT count(*) FROM stretches").fetchall()[0][0] > 3
    assert narrowed > 20
    store.close()


def test_each_stretch_of_a_long_transaction_is_written_once(decoder: Decoder, tmp_path: Path) -> None:
    world, store = World(1, 60), Store(tmp_path / "core.duckdb")
    log: dict[tuple[str, int], list[Any]] = {}
    for record in world.records:
        log.setdefault((record.topic, record.partition), []).append(record)
    store.begin()
    for place, records in log.items():
        add(store, records, place, [*range(0, len(records), 5), len(records)], decoder)
    store.commit()
    count = "SELECT count(*), count(DISTINCT (since, until, names)) FROM stretches"
    (stretches,) = store.connection.execute(count).fetchall()
    assert stretches[0] == stretches[1] > 10
    store.close()


def test_a_snapshot_is_of_the_moment_in_which_it_was_taken(decoder: Decoder, tmp_path: Path) -> None:
    """Whatever is written before its first statement is not in it: where names are was found out before that, too."""
    world, store = World(1, 20), Store(tmp_path / "core.duckdb")
    first = world.records[0]
    with store.snapshot() as cursor:
        store.write(decoder.decode([first]), {(first.topic, first.partition): first.offset + 1})
        assert positions_in(cursor) == {}
    assert store.positions() == {(first.topic, first.partition): first.offset + 1}
    store.close()


def test_a_file_from_before_there_were_stretches_is_read_whole(
    decoder: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, file = World(1, 20), tmp_path / "core.duckdb"
    project(file, world, decoder, random.Random(1))
    store = Store(file)
    store.connection.execute("DROP TABLE stretches; DROP TABLE stretched")
    store.close()
    monkeypatch.setattr(whereabouts, "RECOVERED_LIMIT", 10)
    store = Store(file)
    with store.snapshot() as cursor:
        assert FINDING[cursor](("job-1",)) == EVERYWHERE
    store.close()


def test_many_spans_become_few_that_cover_them() -> None:
    begun = datetime(2026, 1, 1)  # noqa: DTZ001 -- as the tables hold it
    chance = random.Random(1)
    spans = []
    for _ in range(100):
        since = begun + timedelta(seconds=chance.randint(0, 10_000))
        spans.append((since, since + timedelta(seconds=chance.randint(0, 5))))
    condition = whereabouts._within(spans)
    assert condition.count("BETWEEN") == SPANS_LIMIT
    few = [
        tuple(datetime.fromisoformat(part) for part in one.split("'")[1::2]) for one in condition.strip("()").split(" OR ")
    ]  # fmt: skip
    assert all(any(first <= since and until <= last for first, last in few) for since, until in spans)
    assert few == sorted(few)
