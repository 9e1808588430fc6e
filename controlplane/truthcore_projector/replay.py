"""Folding the log again: into a fresh database, up to a position vector, and the comparison with a live projection."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from controlplane.api.models import DigestAnswer, TableDigest
from controlplane.log.connection import LogConnection
from controlplane.log.positions import Partition
from controlplane.truthcore_projector.archive import reading
from controlplane.truthcore_projector.findings import Finding, findings
from controlplane.truthcore_projector.fold import Progress, fold
from controlplane.truthcore_projector.store import Store
from controlplane.truthcore_projector.worlds import WorldInvalid, checked, digest_of, ends_at, write_world


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What an audit found: each table's digest, live and folded again, and whether all agree."""

    agrees: bool
    """The digests are equal; what the log should not have is among `findings`, whether they agree or not."""
    records: int
    """Folded again in this audit, beside those of the snapshot."""
    seconds: float
    tables: list[dict[str, Any]]
    findings: list[Finding] = []
    snapshot_records: int = 0
    archived_records: int = 0
    """Taken from an archive, because the log no longer has them; held to the digests of its manifest, not to the log."""
    fingerprint: str = ""
    """Of the manifest of what was folded: what an audit that goes on from it may be held to."""


async def rebuild(
    connection: LogConnection, until: Mapping[Partition, int], file: Path | str, progress: Progress | None = None
) -> tuple[list[TableDigest], int, float]:
    """Fold the log from offset 0 up to a position vector into a database; returns digests, records and seconds."""
    store = Store(file, bulk=True)
    started = time.perf_counter()
    try:
        done = await fold(connection, store, until, progress)
        seconds = time.perf_counter() - started
    finally:
        store.close()
    return await asyncio.to_thread(digest_of, file, until), done, seconds


def positions_of(answer: DigestAnswer) -> dict[Partition, int]:
    """Return the position vector that a digest answer reflects."""
    return {
        (topic, number): offset for topic, some in answer.reflects.positions.items() for number, offset in some.items()
    }


async def verify(
    connection: LogConnection, live: DigestAnswer, progress: Progress | None = None, *, snapshot: Path | None = None,
    fingerprint: str | None = None, keep: Path | None = None, archive: Path | None = None,
) -> Verdict:  # fmt: skip
    """Fold the log again up to what a live projection reflects, compare the digest of every table, and look for broken guarantees.

    From offset 0, or on from a snapshot: a file of `write_world` whose rows are first held to its manifest, and that to a fingerprint.
    What the log no longer has is taken from an archive, if one is named. With `keep` what was folded stays there, as the snapshot of the next audit.

    Raises:
        WorldInvalid: the snapshot is not what its manifest says, or it is ahead of the live projection.
        HistoryGone: neither the log nor the archive has all of the range.
        ArchiveDamaged: a file of the archive is not the one that it names.
        LogUnavailable: the log does not give the range.
    """
    until = positions_of(live)
    with tempfile.TemporaryDirectory(prefix="controlplane-audit-") as folder:
        file = keep or Path(folder) / "replay.duckdb"
        begun = 0
        if snapshot is not None:
            begun = await asyncio.to_thread(_taken_up, snapshot, fingerprint, file, until)
        made = await write_world(connection, until, file, progress, archive)
        with reading(file) as database:
            found = await asyncio.to_thread(findings, database, await ends_at(connection, None))
    again = {name: (rows, one) for name, rows, one in made.manifest.tables}
    compared = [
        {
            "table": one.table, "rows_live": one.rows, "rows_replayed": again[one.table][0], "digest_live": one.digest,
            "digest_replayed": again[one.table][1], "agrees": (one.rows, one.digest) == again[one.table],
        }
        for one in live.tables
    ]  # fmt: skip
    agrees = all(one["agrees"] for one in compared) and len(compared) == len(again)
    return Verdict(
        agrees=agrees, records=made.records, seconds=made.seconds, tables=compared, findings=found, snapshot_records=begun,
        archived_records=made.archived_records, fingerprint=made.manifest.fingerprint,
    )  # fmt: skip


def _taken_up(snapshot: Path, fingerprint: str | None, file: Path, until: Mapping[Partition, int]) -> int:
    """Copy a snapshot that is what its manifest says; returns how many records it holds."""
    ends = checked(snapshot, fingerprint).ends
    for (topic, number), end in ends.items():
        if end > until.get((topic, number), 0):
            raise WorldInvalid(
                f"Expected a snapshot from before what the live projection reflects, but it is ahead of it at {topic}/{number}/{end}."
            )
    if file != snapshot:
        shutil.copyfile(snapshot, file)
    return sum(ends.values())
