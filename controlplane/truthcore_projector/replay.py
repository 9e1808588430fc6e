"""Folding the log again: into a fresh database, up to a position vector, and the comparison with a live projection."""

import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from controlplane.api.models import DigestAnswer, TableDigest
from controlplane.log.connection import LogConnection
from controlplane.log.positions import Partition
from controlplane.log.reader import LogReader
from controlplane.truthcore_projector.decode import Decoder
from controlplane.truthcore_projector.digest import digest
from controlplane.truthcore_projector.store import Store

TRANSACTION_RECORDS: Final = 50_000
READ_AHEAD: Final = 2
"""Gathered transactions that may wait for the database: reading overlaps with writing, and memory is bounded."""

Progress = Callable[[int, int, float], None]
"""Called with (records done, records in all, seconds so far)."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What an audit found: each table's digest, live and folded again, and whether all agree."""

    agrees: bool
    records: int
    seconds: float
    tables: list[dict[str, Any]]


async def rebuild(
    connection: LogConnection, until: Mapping[Partition, int], file: Path | str, progress: Progress | None = None
) -> tuple[list[TableDigest], int, float]:
    """Fold the log from offset 0 up to a position vector into a database; returns digests, records and seconds."""
    reader = LogReader(connection, client_id="controlplane-audit")
    await reader.start()
    store, decoder = Store(file), Decoder()
    gathered: asyncio.Queue[list[Any] | None] = asyncio.Queue(READ_AHEAD)
    total = sum(until.values())
    started = time.perf_counter()

    async def write() -> int:
        done = 0
        while (records := await gathered.get()) is not None:
            await asyncio.to_thread(_write, store, decoder, records)
            done += len(records)
            if progress is not None:
                progress(done, total, time.perf_counter() - started)
        return done

    writing = asyncio.create_task(write())
    try:
        await _read(reader, until, gathered, writing)
        done = await writing
        seconds = time.perf_counter() - started
        return await asyncio.to_thread(digest, store.connection.cursor(), until), done, seconds
    finally:
        writing.cancel()
        decoder.close()
        store.close()
        await reader.stop()


async def _read(
    reader: LogReader,
    until: Mapping[Partition, int],
    gathered: "asyncio.Queue[list[Any] | None]",
    writing: asyncio.Task[int],
) -> None:
    left = {one for one, end in until.items() if end > 0}
    await reader.assign(dict.fromkeys(left, "earliest"))
    records: list[Any] = []
    while left and not writing.done():
        for one, batch in (await reader.batch(timeout_seconds=0.2)).items():
            end = until[one]
            records += batch if batch[-1].offset < end else [record for record in batch if record.offset < end]
            if batch[-1].offset + 1 >= end:
                left.discard(one)
        if len(records) >= TRANSACTION_RECORDS:
            await gathered.put(records)
            records = []
    if records:
        await gathered.put(records)
    await gathered.put(None)


def _write(store: Store, decoder: Decoder, records: list[Any]) -> None:
    following: dict[Partition, int] = {}
    for record in records:
        following[(record.topic, record.partition)] = record.offset + 1
    store.write(decoder.decode(records), following)


def positions_of(answer: DigestAnswer) -> dict[Partition, int]:
    """Return the position vector that a digest answer reflects."""
    return {
        (topic, number): offset for topic, some in answer.reflects.positions.items() for number, offset in some.items()
    }


async def verify(connection: LogConnection, live: DigestAnswer, progress: Progress | None = None) -> Verdict:
    """Fold the log again up to what a live projection reflects, and compare the digest of every table."""
    with tempfile.TemporaryDirectory(prefix="controlplane-audit-") as folder:
        file = Path(folder) / "replay.duckdb"
        tables, records, seconds = await rebuild(connection, positions_of(live), file, progress)
    again = {one.table: one for one in tables}
    compared = [
        {
            "table": one.table, "rows_live": one.rows, "rows_replayed": again[one.table].rows, "digest_live": one.digest,
            "digest_replayed": again[one.table].digest, "agrees": one == again[one.table],
        }
        for one in live.tables
    ]  # fmt: skip
    agrees = all(one["agrees"] for one in compared) and len(compared) == len(again)
    return Verdict(agrees=agrees, records=records, seconds=round(seconds, 3), tables=compared)
