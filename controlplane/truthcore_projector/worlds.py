"""Projections kept as files: the world as of then, with a manifest of its positions and digests that says whether it still is what was written."""

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import duckdb
import msgspec

from controlplane.api.models import TableDigest
from controlplane.log.connection import LogConnection
from controlplane.log.positions import Partition
from controlplane.log.reader import LogReader
from controlplane.log.topics import partition_counts
from controlplane.truthcore_projector.archive import ArchiveDamaged, archive_folder, archived, intact, reading
from controlplane.truthcore_projector.archiving import take_up
from controlplane.truthcore_projector.digest import digest
from controlplane.truthcore_projector.fold import Progress, fold
from controlplane.truthcore_projector.moments import AsOf
from controlplane.truthcore_projector.store import Store, positions_in
from controlplane.truthcore_projector.tables import LAYOUT


class WorldInvalid(Exception):
    """A file is not the projection that its manifest describes, or not one that can be gone on with."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a projection file holds: up to where, and the digest of each table."""

    layout: str
    positions: list[tuple[str, int, int]]
    """Topic, partition, and the first offset that is not reflected."""
    tables: list[tuple[str, int, str]]
    """Table, rows, digest."""

    @property
    def fingerprint(self) -> str:
        """Return one digest of all that is stated: to be written down where nobody can change it."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()

    @property
    def ends(self) -> dict[Partition, int]:
        """Return the position vector that the file reflects."""
        return {(topic, partition): offset for topic, partition, offset in self.positions}


def manifest_file(file: Path) -> Path:
    """Return where the manifest of a projection file stands: beside it."""
    return file.with_name(f"{file.name}.manifest.json")


def write_manifest(file: Path, ends: Mapping[Partition, int], tables: list[TableDigest]) -> Manifest:
    """Write and return the manifest of a projection file."""
    made = Manifest(
        layout=LAYOUT, positions=sorted((topic, partition, end) for (topic, partition), end in ends.items()),
        tables=[(one.table, one.rows, one.digest) for one in tables],
    )  # fmt: skip
    text = {"fingerprint": made.fingerprint, **msgspec.to_builtins(made)}
    manifest_file(file).write_text(json.dumps(text, indent=1) + "\n")
    return made


def checked(file: Path, fingerprint: str | None = None) -> Manifest:
    """Return the manifest of a projection file whose rows have exactly the digests that it states.

    Raises:
        WorldInvalid: there is none, its fingerprint is not the one expected, or the file differs from it.
    """
    try:
        said = msgspec.json.decode(manifest_file(file).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise WorldInvalid(f"Expected a manifest beside {file}, but: {error}.") from error
    if fingerprint is not None and said.fingerprint != fingerprint:
        raise WorldInvalid(f"Expected the fingerprint {fingerprint}, but {manifest_file(file)} has {said.fingerprint}.")
    if said.layout != LAYOUT:
        raise WorldInvalid(f"Expected a projection of layout {LAYOUT}, but {file} has {said.layout}: fold it again.")
    try:
        with reading(file) as database:
            intact(archived(database), archive_folder(file))
            found = {(one.table, one.rows, one.digest) for one in digest(database, said.ends)}
            there = positions_in(database)
    except (duckdb.Error, ArchiveDamaged) as error:
        raise WorldInvalid(f"Expected a projection in {file}, but: {str(error)[:300]}") from error
    if there != {one: end for one, end in said.ends.items() if end}:
        raise WorldInvalid(f"Expected {file} to reflect the positions of its manifest, but it reflects others.")
    if differing := [f"{name} ({rows:,} rows)" for name, rows, one in said.tables if (name, rows, one) not in found]:
        raise WorldInvalid(
            f"Expected the digests of the manifest, but {file} differs from it in: {', '.join(differing)}."
        )
    return said


async def ends_at(connection: LogConnection, as_of: AsOf | None) -> dict[Partition, int]:
    """Return where the log ended at a moment: per partition the first offset that it did not know yet.

    Raises:
        LogUnavailable: the brokers did not answer.
        ValueError: the log does not have a position that is named.
    """
    places = [
        (topic, number) for topic, count in (await partition_counts(connection)).items() for number in range(count)
    ]
    async with LogReader(connection, client_id="controlplane-audit") as reader:
        ends = await reader.end_offsets(places)
        match as_of:
            case None:
                return ends
            case datetime():
                # Append times are whole milliseconds: the first one after the moment ends the prefix.
                after = int(as_of.timestamp() * 1000) + 1
                return await reader.offsets_at(dict.fromkeys(places, after))
    for (topic, number), offset in as_of.items():
        if offset >= ends.get((topic, number), 0):
            raise ValueError(
                f"Expected a record of the log, but found {topic}/{number}/{offset}: it has {ends.get((topic, number), 0):,} there."
            )
    return ends | {place: offset + 1 for place, offset in as_of.items()}


def digest_of(file: Path | str, until: Mapping[Partition, int]) -> list[TableDigest]:
    """Return the digests of a projection file that nobody has open, with all threads: a fold has one."""
    with reading(Path(file)) as database:
        return digest(database, until)


class World(msgspec.Struct, frozen=True, kw_only=True):
    """A projection that was folded into a file."""

    manifest: Manifest
    records: int
    seconds: float
    archived_records: int
    """Records that the log no longer has, taken from an archive."""


async def write_world(
    connection: LogConnection, until: Mapping[Partition, int], file: Path, progress: Progress | None = None, archive: Path | None = None
) -> World:  # fmt: skip
    """Fold the log up to a position vector into a file, on from where it is, and write its manifest.

    What the log no longer has is taken from an archive, if one is named.

    Raises:
        HistoryGone: neither the log nor the archive has all of the range.
        ArchiveDamaged: a file of the archive is not the one that it names.
        LogUnavailable: the log does not give the range.
    """
    started = time.perf_counter()
    taken = await take_up(connection, file, until, archive)
    store = Store(file, bulk=True)
    try:
        records = await fold(connection, store, until, progress)
    finally:
        store.close()
    tables = await asyncio.to_thread(digest_of, file, until)
    return World(
        manifest=write_manifest(file, until, tables), records=records, archived_records=taken,
        seconds=round(time.perf_counter() - started, 3),
    )  # fmt: skip
