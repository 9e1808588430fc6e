"""Folding on a real log: the same rows as record by record, from wherever an earlier fold stopped."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pyarrow.dataset as ds
import pytest

from controlplane.demo.history import write_history
from controlplane.log.block_reader import BlockReader
from controlplane.log.connection import LogConnection
from controlplane.log.positions import Partition
from controlplane.log.reader import LogReader, PositionGone
from controlplane.log.topics import ensure_topics
from controlplane.settings import Settings
from controlplane.truthcore_projector.decode import Decoder
from controlplane.truthcore_projector.digest import digest
from controlplane.truthcore_projector.export import Export
from controlplane.truthcore_projector.fold import fold
from controlplane.truthcore_projector.store import Store
from controlplane.truthcore_projector.tables import TABLES, stored

EVENTS = 22_000
PROGRAM = """
import asyncio, sys
from controlplane.log.connection import LogConnection
from controlplane.truthcore_projector import fold as module
from controlplane.truthcore_projector.store import Store
module.CHUNK_RECORDS, module.TRANSACTION_RECORDS = 500, 2_000
until = {(topic, int(partition)): int(end) for topic, partition, end in (one.rsplit("/", 2) for one in sys.argv[3:])}
store = Store(sys.argv[2])
asyncio.run(module.fold(LogConnection(bootstrap=sys.argv[1]), store, until, lambda done, total, seconds: print(done, flush=True)))
"""

EXPORT_PROGRAM = """
import sys, typer
from controlplane.cli import history
from controlplane.truthcore_projector import export, fold
fold.CHUNK_RECORDS, fold.TRANSACTION_RECORDS = 500, 2_000
original = export.Export.add
def add(self, decoded, positions):
    original(self, decoded, positions)
    print("chunk", flush=True)
export.Export.add = add
app = typer.Typer()
history.add_to(app)
app(["export", sys.argv[1], "--follow", "--every", "1", "--json"])
"""
"""The command, in small transactions, which says of each chunk that it wrote it."""


async def end_of(connection: LogConnection) -> dict[Partition, int]:
    counts = await ensure_topics(connection, Settings(kafka_bootstrap=connection.bootstrap))
    async with LogReader(connection, client_id="test") as reader:
        return await reader.end_offsets([(topic, number) for topic, count in counts.items() for number in range(count)])


@pytest.fixture(scope="module")
def written(kafka_bootstrap: str) -> tuple[LogConnection, dict[Partition, int]]:
    """A log with a history, and its end."""
    connection = LogConnection(bootstrap=kafka_bootstrap)

    async def write() -> dict[Partition, int]:
        await end_of(connection)
        await write_history(connection, EVENTS, name=f"fold-{os.getpid()}")
        return await end_of(connection)

    return connection, asyncio.run(write())


@pytest.fixture(scope="module")
def record_by_record(written: tuple[LogConnection, dict[Partition, int]]) -> Store:
    """The same log read by aiokafka, one object per record."""
    connection, until = written

    async def read() -> Store:
        decoder, store = Decoder(), Store(":memory:")
        left = {one for one, end in until.items() if end}
        async with LogReader(connection, client_id="test") as reader:
            await reader.assign(dict.fromkeys(left, "earliest"))
            while left:
                for one, batch in (await reader.batch(timeout_seconds=0.5)).items():
                    records = [record for record in batch if record.offset < until[one]]
                    if records:
                        store.write(decoder.decode(records), {one: records[-1].offset + 1})
                    if batch[-1].offset + 1 >= until[one]:
                        left.discard(one)
        decoder.close()
        return store

    return asyncio.run(read())


def test_a_fold_gives_the_rows_that_reading_record_by_record_gives(
    written: tuple[LogConnection, dict[Partition, int]], record_by_record: Store, tmp_path: Path
) -> None:
    connection, until = written
    store = Store(tmp_path / "folded.duckdb", bulk=True)
    seen: list[tuple[int, int]] = []
    done = asyncio.run(fold(connection, store, until, lambda done, total, _: seen.append((done, total))))
    assert done == sum(until.values()) >= EVENTS
    assert seen[-1] == (done, done)
    assert store.positions() == {one: end for one, end in until.items() if end}
    assert digest(store.connection.cursor(), until) == digest(record_by_record.connection.cursor(), until)


def test_a_fold_stops_at_any_position_and_goes_on_from_there(
    written: tuple[LogConnection, dict[Partition, int]], record_by_record: Store, tmp_path: Path
) -> None:
    connection, until = written
    store = Store(tmp_path / "halves.duckdb")
    half = {one: end // 2 for one, end in until.items()}
    assert asyncio.run(fold(connection, store, half)) == sum(half.values())
    assert digest(store.connection.cursor(), half) == digest(record_by_record.connection.cursor(), half)
    assert asyncio.run(fold(connection, store, until)) == sum(until.values()) - sum(half.values())
    assert digest(store.connection.cursor(), until) == digest(record_by_record.connection.cursor(), until)


def test_a_fold_that_was_killed_goes_on_where_its_last_transaction_ended(
    written: tuple[LogConnection, dict[Partition, int]], record_by_record: Store, tmp_path: Path
) -> None:
    connection, until = written
    file = tmp_path / "killed.duckdb"
    places = [f"{topic}/{partition}/{end}" for (topic, partition), end in until.items()]
    for chunks in (6, 14):  # Behind at least one transaction each, and inside of another.
        command = [sys.executable, "-c", PROGRAM, connection.bootstrap, str(file), *places]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(chunks):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        assert process.wait(30) == -signal.SIGKILL
    store = Store(file)
    before = sum(store.positions().values())
    assert 0 < before < sum(until.values())
    assert asyncio.run(fold(connection, store, until)) == sum(until.values()) - before
    assert digest(store.connection.cursor(), until) == digest(record_by_record.connection.cursor(), until)


def exporting(connection: LogConnection, folder: Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "CONTROLPLANE_KAFKA_BOOTSTRAP": str(connection.bootstrap)}
    command = [sys.executable, "-c", EXPORT_PROGRAM, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)


def read_by_arrow(folder: Path) -> Store:
    """Return what Arrow's data sets find in the folder of each table."""
    store = Store(":memory:")
    for table, columns in TABLES.items():
        names = [column.strip().split(" ")[0].strip('"') for column in columns.split(",")]
        if (folder / table).is_dir():
            rows = ds.dataset(folder / table, partitioning="hive").to_table(columns=names)
            store.connection.from_arrow(rows).insert_into(stored(table))
    return store


@pytest.mark.timeout(300)
def test_an_export_that_follows_has_each_record_once_however_often_it_is_killed(
    written: tuple[LogConnection, dict[Partition, int]], tmp_path: Path
) -> None:
    connection, until = written
    folder = tmp_path / "lake"
    process = exporting(connection, folder)
    assert process.stdout is not None
    for _ in range(9):  # Behind two transactions, and inside of another.
        assert process.stdout.readline() == "chunk\n"
    process.kill()
    process.stdout.close()
    assert process.wait(30) == -signal.SIGKILL
    process = exporting(connection, folder)
    assert process.stdout is not None
    said = [json.loads(line) for line in iter_until(process.stdout, sum(until.values()))]
    assert 0 < said[0]["records"] < said[0]["reflects"]
    asyncio.run(write_history(connection, 200, name=f"more-{os.getpid()}"))
    said = [json.loads(line) for line in iter_until(process.stdout, said[-1]["reflects"] + 200)]
    process.kill()
    process.stdout.close()
    assert process.wait(30) == -signal.SIGKILL
    target = Export(folder)
    ends = target.positions()
    target.close()
    assert sum(ends.values()) >= sum(until.values()) + 200
    store = Store(tmp_path / "folded.duckdb", bulk=True)
    asyncio.run(fold(connection, store, ends))
    assert digest(read_by_arrow(folder).connection, ends) == digest(store.connection, ends)


def iter_until(lines: IO[str], records: int) -> list[str]:
    """Return what an export says until it reflects so many records."""
    found: list[str] = []
    while not found or json.loads(found[-1])["reflects"] < records:
        line = lines.readline()
        assert line, "Expected the export to follow the log, but it ended."
        if line != "chunk\n":
            found.append(line)
    return found


async def test_a_range_that_the_log_does_not_have_is_refused(
    written: tuple[LogConnection, dict[Partition, int]],
) -> None:
    connection, _ = written
    until = await end_of(connection)  # As it is now: other tests write to the same log.
    place = max(until, key=lambda one: until[one])
    async with BlockReader(connection, client_id="test") as reader:
        blocks = reader.blocks({place: until[place] + 10}, {place: until[place] + 20})
        with pytest.raises(PositionGone, match=place[0]):
            await anext(blocks)
