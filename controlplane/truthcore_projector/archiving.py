"""Detail that has grown old leaves the database for its archive, and comes back from there where the log no longer has it."""

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import Final
from uuid import uuid4

import duckdb
import pyarrow.compute as pc
import pyarrow.dataset as ds

from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.log.positions import Partition
from controlplane.log.reader import LogReader
from controlplane.truthcore_projector.archive import (
    ArchivedFile,
    Range,
    archived,
    as_view,
    intact,
    read_manifest,
    sha256_of,
    synced,
    text,
    write_manifest,
)
from controlplane.truthcore_projector.moments import condition, naive
from controlplane.truthcore_projector.store import Store, positions_in
from controlplane.truthcore_projector.tables import DETAIL, DETAIL_TOPICS, stored

PART: Final = ".part"
FORM: Final = "FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 20480"
"""Who looks for one record reads a row group of each file that may hold it: a sixth of the usual size costs half of the time, and no space."""
LOOK_SECONDS: Final = 600.0
WORTH_ROWS: Final = 1_000_000
"""What is archived by itself comes in files that are worth opening: each is a moment more for every query that needs it."""

logger = logging.getLogger(__name__)


class HistoryGone(LogUnavailable):
    """Expected the log, or an archive, to have all records that a fold needs, but it has not."""


def archive(store: Store, before: datetime, *, least_rows: int = 1) -> list[ArchivedFile]:
    """Move rows of detail that were appended before a moment into files beside the database; returns the files, none where there is little.

    What goes follows from the log and the moment alone: of each partition the longest prefix appended before it.

    1. The rows are written into files that nobody names. A crash: files that may be removed, and nothing else.
    2. One transaction names the files and lets the rows go. A crash before its commit: as after step 1. After it: all is done.
    3. The manifest beside the files is written. A crash: the next opening of the database writes it.
    """
    with store.archiving:
        # Step 1.
        written = _written(store, before, least_rows)
        if not written:
            return []
        # Step 2.
        known = [*archived(store.connection), *(file for file, _ in written)]
        store.begin()
        try:
            store.settle()
            for file, which in written:
                _let_go(store, file, which)
                store.connection.execute(as_view(file.table, known, store.archive))
        except BaseException:
            store.rollback()
            raise
        store.commit()
        # Step 3.
        write_manifest(known, store.archive)
        return [file for file, _ in written]


def _written(store: Store, before: datetime, least_rows: int) -> list[tuple[ArchivedFile, str]]:
    """Write a file for each table that has rows to go; returns the files, each with the condition on its rows."""
    store.archive.mkdir(exist_ok=True)
    for left in store.archive.glob(f"*{PART}"):
        left.unlink()
    written = []
    with store.snapshot() as cursor:
        later = f'SELECT topic, partition, min("offset") FROM events WHERE topic IN {DETAIL_TOPICS} AND log_time >= ? GROUP BY ALL'
        first = {(topic, number): offset for topic, number, offset in cursor.execute(later, [naive(before)]).fetchall()}
        cut = {place: min(end, first.get(place, end)) for place, end in positions_in(cursor).items()}
        gone = f"topic IN {DETAIL_TOPICS} AND {condition(cut)}"
        (count,) = cursor.execute(
            f"SELECT count(*) FROM {stored('events')} WHERE {gone} AND {DETAIL['events']}"
        ).fetchall()[0]
        if count < least_rows:
            return []
        for table, detail in DETAIL.items():
            which, part = f"{gone} AND {detail}", store.archive / f"{uuid4()}{PART}"
            query = f"SELECT * FROM {stored(table)} WHERE {which}"
            (rows,) = cursor.execute(f"COPY ({query}) TO {text(part)} ({FORM})").fetchall()[0]
            if not rows:
                part.unlink()
                continue
            ranges = f'SELECT topic, partition, min("offset"), max("offset") FROM ({query}) GROUP BY ALL ORDER BY ALL'
            file = ArchivedFile(
                table=table, sha256=sha256_of(part), size_bytes=part.stat().st_size, rows=rows,
                ranges=[
                    Range(topic=topic, partition=number, first_offset=low, last_offset=high)
                    for topic, number, low, high in cursor.execute(ranges).fetchall()
                ],
            )  # fmt: skip
            synced(part)
            part.rename(store.archive / file.name)
            written.append((file, which))
    synced(store.archive)
    return written


def _let_go(store: Store, file: ArchivedFile, which: str) -> None:
    ranges = [[one.topic, one.partition, one.first_offset, one.last_offset] for one in file.ranges]
    store.connection.execute(
        "INSERT INTO archives SELECT ?, ?, ?, ?, list({'topic': t, 'partition': p, 'first_offset': f, 'last_offset': l})"
        " FROM (SELECT unnest(?::VARCHAR[]) AS t, unnest(?::INTEGER[]) AS p, unnest(?::BIGINT[]) AS f, unnest(?::BIGINT[]) AS l)",
        [file.table, file.sha256, file.size_bytes, file.rows, *(list(column) for column in zip(*ranges, strict=True))],
    )
    (gone,) = store.connection.execute(f"DELETE FROM {stored(file.table)} WHERE {which}").fetchall()[0]
    if gone != file.rows:
        raise RuntimeError(f"Expected {file.rows:,} rows of {file.table} to go into {file.name}, but {gone:,} would.")


async def archive_by_itself(store: Store, days: float) -> None:
    """Archive what is older than so many days for as long as this runs, whenever there is enough of it."""
    while True:
        before = datetime.now(UTC) - timedelta(days=days)
        try:
            files = await asyncio.to_thread(archive, store, before, least_rows=WORTH_ROWS)
        except (duckdb.Error, OSError) as error:  # A full disk, or memory that a query needs; nothing has moved.
            logger.warning("Expected old detail to be archived, but: %s", error)
            files = []
        if files:
            logger.info("Archived %d rows from before %s.", sum(one.rows for one in files), before.isoformat())
        await asyncio.sleep(LOOK_SECONDS)


async def take_up(connection: LogConnection, file: Path, until: Mapping[Partition, int], folder: Path | None) -> int:
    """Put into a file what the log no longer has of a range that is about to be folded into it, from an archive; returns how many records that is.

    Raises:
        HistoryGone: there is no archive, or it does not have all of them.
        ArchiveDamaged: a file of it is not the one that it names.
        LogUnavailable: the brokers did not answer.
    """
    store = await asyncio.to_thread(Store, file, bulk=True)
    try:
        gone = await _gone(connection, store.positions(), until)
        return await asyncio.to_thread(restore, store, gone, folder) if gone else 0
    finally:
        await asyncio.to_thread(store.close)


async def _gone(
    connection: LogConnection, known: Mapping[Partition, int], until: Mapping[Partition, int]
) -> dict[Partition, tuple[int, int]]:
    """Return the ranges behind these positions that the log no longer has."""
    wanted = {place: end for place, end in until.items() if end > known.get(place, 0)}
    async with LogReader(connection, client_id="controlplane-archive") as reader:
        begins = await reader.beginning_offsets(list(wanted))
    return {
        place: (known.get(place, 0), min(begins[place], end))
        for place, end in wanted.items()
        if begins[place] > known.get(place, 0)
    }


def restore(store: Store, gone: Mapping[Partition, tuple[int, int]], folder: Path | None) -> int:
    """Put the records of these ranges, the second end excluded, from an archive into a store, all or nothing; returns how many that is.

    Raises:
        HistoryGone: there is no archive, or it does not have all of them.
        ArchiveDamaged: a file of it is not the one that it names.
    """
    where = ", ".join(f"{topic}/{number} from {low:,} to {high - 1:,}" for (topic, number), (low, high) in gone.items())
    if folder is None:
        raise HistoryGone(
            f"Expected the log to have all records, but it has no longer: {where}. An archive may have them."
        )
    files = read_manifest(folder)
    intact(files, folder)
    chosen = reduce(
        lambda one, other: one | other,
        (
            (pc.field("topic") == topic) & (pc.field("partition") == number) & (pc.field("offset") >= low) & (pc.field("offset") < high)
            for (topic, number), (low, high) in gone.items()
        ),
    )  # fmt: skip
    store.begin()
    try:
        for file in files:
            rows = ds.dataset(folder / file.name, format="parquet").scanner(filter=chosen).to_reader()
            store.connection.from_arrow(rows).insert_into(stored(file.table))
        query = f'SELECT count(*) FROM {stored("events")} WHERE topic = ? AND partition = ? AND "offset" >= ? AND "offset" < ?'
        for place, (low, high) in gone.items():
            (found,) = store.connection.execute(query, [*place, low, high]).fetchall()[0]
            if found != high - low:
                raise HistoryGone(
                    f"Expected the log or the archive in {folder} to have all of {place[0]}/{place[1]}, but the log begins at {high:,},"
                    f" and of the {high - low:,} records before that the archive has {found:,}."
                )
        store.advance({place: high for place, (_, high) in gone.items()})
    except BaseException:
        store.rollback()
        raise
    store.commit()
    return sum(high - low for low, high in gone.values())
