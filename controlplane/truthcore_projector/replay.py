"""Folding the log again: into a fresh database, up to a position vector, and the comparison with a live projection."""

import asyncio
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from controlplane.api.models import DigestAnswer, TableDigest
from controlplane.log.connection import LogConnection
from controlplane.log.positions import Partition
from controlplane.truthcore_projector.digest import digest
from controlplane.truthcore_projector.fold import Progress, fold
from controlplane.truthcore_projector.store import Store


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
    store = Store(file, bulk=True)
    started = time.perf_counter()
    try:
        done = await fold(connection, store, until, progress)
        seconds = time.perf_counter() - started
        return await asyncio.to_thread(digest, store.connection.cursor(), until), done, seconds
    finally:
        store.close()


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
