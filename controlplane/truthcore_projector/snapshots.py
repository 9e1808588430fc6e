"""Snapshots: a consistent copy of the file with its positions and digests, from which a new replica begins and folds only the tail.

A snapshot is believed when its bytes have the SHA-256, and its rows the digests, that its manifest names.
"""

import logging
import os
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Final
from uuid import uuid4

import duckdb
import fsspec
import httpx
from pydantic import ValidationError

from controlplane.api.replicas import Standing
from controlplane.api.snapshots import SnapshotFile, SnapshotManifest
from controlplane.truthcore_projector.archive import (
    ArchiveDamaged,
    archive_folder,
    archived,
    intact,
    reading,
    sha256_of,
)
from controlplane.truthcore_projector.digest import digest
from controlplane.truthcore_projector.shards import Shard
from controlplane.truthcore_projector.store import Store, positions_in
from controlplane.truthcore_projector.tables import LAYOUT

LATEST: Final = "latest.json"
PIECE_BYTES: Final = 4 * 1024 * 1024
REQUEST_SECONDS: Final = 600.0
"""A peer copies, and digests the copy, before it answers."""
PEERS: Final = "peers"

logger = logging.getLogger(__name__)


class SnapshotInvalid(ValueError):
    """Expected a snapshot as its manifest describes it, but found another."""


def examined(file: Path, name: str, archive: Path) -> SnapshotManifest:
    """Return the manifest of a copy and the archive that belongs to it, from both themselves.

    Raises:
        SnapshotInvalid: it is not a TruthCore's file, or the archive is not the one that it names.
    """
    try:
        with reading(file, archive) as database:
            files = archived(database)
            intact(files, archive)
            shard = database.execute("SELECT number, of FROM shard").fetchone()
            positions = positions_in(database)
            tables = digest(database, positions)
    except (duckdb.Error, ArchiveDamaged) as error:
        raise SnapshotInvalid(f"Expected a TruthCore's database, but: {str(error)[:300]}") from error
    if shard is None:
        raise SnapshotInvalid("Expected a database that says which shard it holds, but it does not.")
    by_topic: dict[str, dict[int, int]] = {}
    for (topic, partition), offset in sorted(positions.items()):
        by_topic.setdefault(topic, {})[partition] = offset
    return SnapshotManifest(
        layout=LAYOUT, archive=[SnapshotFile(name=one.name, sha256=one.sha256, size_bytes=one.size_bytes) for one in files], shard=shard[0], shards=shard[1], positions=by_topic, tables=tables, sha256=sha256_of(file), size_bytes=file.stat().st_size,
        made_by=name, made_at=datetime.now(UTC),
    )  # fmt: skip


class Snapshots:
    """The newest snapshot of one store, made when somebody asks for one."""

    def __init__(self, store: Store, folder: Path, name: str) -> None:
        """Keep snapshots in a folder of their own."""
        self._store = store
        self._folder = folder
        self._name = name
        self._lock = Lock()
        self._newest: SnapshotManifest | None = None

    def newest(self, max_age_seconds: float) -> SnapshotManifest:
        """Return the newest snapshot, a new one if it is older than that.

        1. The copy is made under a name of its own. A crash: a file that nobody names, removed with the next snapshot.
        2. It gets the name of its content, and is offered from then on.
        """
        with self._lock:
            newest = self._newest
            if newest is not None and (datetime.now(UTC) - newest.made_at).total_seconds() <= max_age_seconds:
                return newest
            self._folder.mkdir(parents=True, exist_ok=True)
            # Step 1.
            copy = self._folder / f"{uuid4()}.part"
            self._store.copy_to(copy)
            made = examined(copy, self._name, self._store.archive)
            # Step 2.
            copy.rename(self.file(made.file))
            for other in self._folder.iterdir():
                if other.name != made.file:
                    other.unlink()
            self._newest = made
            return made

    def file(self, name: str) -> Path:
        """Return where a file that a manifest names is, if it is still there."""
        return (self._folder if name.endswith(".duckdb") else self._store.archive) / name


# Where a snapshot comes from: its manifest, and the bytes of a file that it names.

Source = tuple[SnapshotManifest, Callable[[str], Iterator[bytes]]]


def from_peer(client: httpx.Client, url: str) -> Source:
    """Return the snapshot that a TruthCore offers.

    Raises:
        httpx.HTTPError: it does not answer.
        SnapshotInvalid: it answers something else.
    """
    answer = client.get(f"{url}/v1/snapshot").raise_for_status()
    manifest = read_manifest(answer.content)

    def pieces(name: str) -> Iterator[bytes]:
        with client.stream("GET", f"{url}/v1/snapshot/{name}") as body:
            yield from body.raise_for_status().iter_bytes(PIECE_BYTES)

    return manifest, pieces


def from_folder(url: str, shard: Shard) -> Source:
    """Return the newest snapshot of a shard in a folder at an fsspec URL.

    Raises:
        OSError: there is none, or it cannot be read.
        SnapshotInvalid: its manifest is none.
    """
    files, root = fsspec.core.url_to_fs(url)
    place = f"{str(root).rstrip('/')}/{shard.number}-of-{shard.of}"
    manifest = read_manifest(files.cat_file(f"{place}/{LATEST}"))

    def pieces(name: str) -> Iterator[bytes]:
        with files.open(f"{place}/{name}", "rb") as opened:
            while piece := opened.read(PIECE_BYTES):
                yield piece

    return manifest, pieces


def publish(source: Source, url: str) -> str:
    """Put a snapshot into a folder at an fsspec URL, as its newest; returns where its file is.

    1. The files; of the archive, those that no earlier snapshot put there. A crash: files that nothing names. 2. The manifest that names them.
    """
    manifest, pieces = source
    files, root = fsspec.core.url_to_fs(url)
    place = f"{str(root).rstrip('/')}/{manifest.shard}-of-{manifest.shards}"
    files.makedirs(place, exist_ok=True)
    # Step 1.
    there = {one["name"].rsplit("/", 1)[-1]: one["size"] for one in files.ls(place, detail=True)}
    missing = [one.name for one in manifest.archive if there.get(one.name) != one.size_bytes]
    for name in (*missing, manifest.file):
        with files.open(f"{place}/{name}", "wb") as opened:
            for piece in pieces(name):
                opened.write(piece)
    # Step 2.
    files.pipe_file(f"{place}/{LATEST}", manifest.model_dump_json(indent=1).encode())
    return f"{place}/{manifest.file}"


def read_manifest(content: bytes) -> SnapshotManifest:
    """Return a manifest.

    Raises:
        SnapshotInvalid: the bytes are none.
    """
    try:
        return SnapshotManifest.model_validate_json(content)
    except ValidationError as error:
        raise SnapshotInvalid(f"Expected the manifest of a snapshot, but: {str(error)[:300]}") from error


def fetch(source: Source, file: Path, shard: Shard) -> SnapshotManifest:
    """Put a snapshot where a shard's database is to be, once its bytes and its rows are what the manifest says.

    1. The archive, file by file, under the names of their content. A crash: what is there is not fetched again. 2. The database. A crash: as
    before. 3. It gets its name.

    Raises:
        SnapshotInvalid: they are not, or it is another shard's.
        httpx.HTTPError: the peer went away.
        OSError: the folder cannot be read.
    """
    manifest, pieces = source
    if (manifest.shard, manifest.shards) != (shard.number, shard.of):
        raise SnapshotInvalid(
            f"Expected a snapshot of shard {shard}, but found one of {manifest.shard}/{manifest.shards}."
        )
    if manifest.layout != LAYOUT:
        raise SnapshotInvalid(f"Expected a snapshot of layout {LAYOUT}, but found {manifest.layout}.")
    # Step 1.
    archive = archive_folder(file)
    for one in manifest.archive:
        archive.mkdir(exist_ok=True)
        if not (archive / one.name).exists():
            part = _fetched(pieces, one.name, one.sha256, archive / f"{one.name}.part")
            part.rename(archive / one.name)
    # Step 2.
    part = _fetched(pieces, manifest.file, manifest.sha256, file.with_name(f"{file.name}.part"))
    try:
        here = examined(part, manifest.made_by, archive)
        if (here.tables, here.positions) != (manifest.tables, manifest.positions):
            differing = [one.table for one, other in zip(here.tables, manifest.tables, strict=False) if one != other]
            raise SnapshotInvalid(
                f"Expected the digests of the manifest, but found others of: {', '.join(differing) or 'tables'}."
            )
        # Step 3.
        part.rename(file)
    finally:
        part.unlink(missing_ok=True)
    return manifest


def _fetched(pieces: Callable[[str], Iterator[bytes]], name: str, sha256: str, part: Path) -> Path:
    """Write the bytes of a file under a name that is not yet its own; returns where."""
    try:
        with part.open("wb") as opened:
            for piece in pieces(name):
                opened.write(piece)
            opened.flush()
            os.fsync(opened.fileno())
        if (found := sha256_of(part)) != sha256:
            raise SnapshotInvalid(f"Expected {name} with SHA-256 {sha256}, but found {found}.")
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return part


def begin(
    place: str, file: Path, shard: Shard, peers: list[str], verify: ssl.SSLContext | bool = True
) -> SnapshotManifest | None:
    """Fetch a snapshot for a replica that has no file yet; None when there is none to be had: then it folds from the beginning.

    `place` is `peers`, the URL of a TruthCore, or the fsspec URL of a folder.
    """
    with httpx.Client(timeout=REQUEST_SECONDS, verify=verify) as client:
        urls = _furthest_first(client, peers, shard) if place == PEERS else [place]
        for url in urls:
            try:
                by_http = place == PEERS or url.startswith(("http://", "https://"))
                source = from_peer(client, url.rstrip("/")) if by_http else from_folder(url, shard)
                return fetch(source, file, shard)
            except (httpx.HTTPError, SnapshotInvalid, OSError) as error:
                logger.warning("No snapshot from %s: %s", url, error)
    return None


def _furthest_first(client: httpx.Client, peers: list[str], shard: Shard) -> list[str]:
    standings: list[tuple[int, str]] = []
    for url in peers:
        try:
            standing = Standing.model_validate_json(
                client.get(f"{url}/v1/standing", timeout=2.0).raise_for_status().content
            )
        except (httpx.HTTPError, ValidationError):
            continue  # Itself, or one that is down.
        if (standing.shard, standing.shards) == (shard.number, shard.of):
            standings.append((sum(n for some in standing.reflects.positions.values() for n in some.values()), url))
    return [url for _, url in sorted(standings, reverse=True)]
