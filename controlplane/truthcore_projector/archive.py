"""The archive of a projection: Parquet files beside the database that hold rows of detail, and are read in every answer.

Files never change: a file's name is the SHA-256 of its bytes, and the database names each with its size, in the transaction that let the rows
go. Digests of tables run over both, so they do not depend on where a row lies.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb
import msgspec

from controlplane.truthcore_projector.tables import DETAIL, DETAIL_TOPICS, stored

MANIFEST: Final = "manifest.json"
ARCHIVES: Final = (
    "CREATE TABLE IF NOT EXISTS archives (table_name VARCHAR, sha256 VARCHAR, size_bytes BIGINT, row_count BIGINT,"
    ' ranges STRUCT(topic VARCHAR, "partition" INTEGER, first_offset BIGINT, last_offset BIGINT)[])'
)
"""One row per file, in the order in which they were written."""


class ArchiveDamaged(Exception):
    """A file of the archive is missing, or is not the one that the database names."""


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """Records of one partition, both ends included; those in between that are no detail are not in the file."""

    topic: str
    partition: int
    first_offset: int
    last_offset: int


class ArchivedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the archive, of one table."""

    table: str
    sha256: str
    size_bytes: int
    rows: int
    ranges: list[Range]

    @property
    def name(self) -> str:
        """The file's name within the archive."""
        return f"{self.table}-{self.sha256}.parquet"


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def archive_folder(file: Path) -> Path:
    """Return where the archive of a projection file stands: beside it."""
    return file.absolute().with_name(f"{file.name}.archive")


def text(value: Path | str) -> str:
    """Return a text as it is written in SQL."""
    return "'" + str(value).replace("'", "''") + "'"


def as_view(table: str, files: Iterable[ArchivedFile], folder: Path, kind: str = "VIEW") -> str:
    """Return the definition of a table with detail: the rows in the database, and those in the archive.

    The condition says again what the files hold, so that a query for anything else does not open them.
    """
    query = f"CREATE OR REPLACE {kind} {table} AS SELECT * FROM {stored(table)}"
    places = ", ".join(text(folder / one.name) for one in files if one.table == table)
    if not places:
        return query
    return (
        f"{query} UNION ALL SELECT * FROM read_parquet([{places}]) WHERE topic IN {DETAIL_TOPICS} AND {DETAIL[table]}"
    )


def archived(database: duckdb.DuckDBPyConnection) -> list[ArchivedFile]:
    """Return the files that a database names."""
    query = 'SELECT table_name AS "table", sha256, size_bytes, row_count AS rows, ranges FROM archives ORDER BY rowid'
    cursor = database.cursor()
    try:
        return msgspec.convert(cursor.sql(query).to_arrow_table().to_pylist(), list[ArchivedFile])
    finally:
        cursor.close()


def present(files: Iterable[ArchivedFile], folder: Path) -> None:
    """Return if every file is there with its size, which costs nothing to see.

    Raises:
        ArchiveDamaged: one is not.
    """
    for one in files:
        file = folder / one.name
        found = file.stat().st_size if file.is_file() else None
        if found != one.size_bytes:
            what = "there is none" if found is None else f"it has {found:,}"
            raise ArchiveDamaged(
                f"Expected {file} with {one.size_bytes:,} bytes, the archive of {one.rows:,} rows of {one.table}, but {what}: put it back."
            )


def intact(files: Sequence[ArchivedFile], folder: Path) -> None:
    """Return if every file has the bytes that the database names.

    Raises:
        ArchiveDamaged: one is missing or has others.
    """
    present(files, folder)
    for one in files:
        if (found := sha256_of(folder / one.name)) != one.sha256:
            raise ArchiveDamaged(
                f"Expected {folder / one.name}, the archive of {one.rows:,} rows of {one.table}, with SHA-256 {one.sha256}, but found {found}."
            )


@contextmanager
def reading(file: Path, folder: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a projection file that nobody has open, to read; its archive is that beside it, or in a folder that is named.

    Raises:
        ArchiveDamaged: the archive is not the one that the file names.
        duckdb.Error: it is no projection.
    """
    with duckdb.connect(str(file), read_only=True) as database:
        database.execute("SET TimeZone = 'UTC'")
        files, place = archived(database), folder or archive_folder(file)
        present(files, place)
        # The views in the file name the folder in which it was written, which may be another machine's.
        for table in DETAIL if files else ():
            database.execute(as_view(table, files, place, "TEMP VIEW"))
        yield database


def write_manifest(files: Sequence[ArchivedFile], folder: Path) -> None:
    """Write what the archive holds for those who read the folder without the database."""
    draft = folder / f"{MANIFEST}.part"
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(files), indent=1))
    synced(draft)
    draft.replace(folder / MANIFEST)
    synced(folder)


def read_manifest(folder: Path) -> list[ArchivedFile]:
    """Return the files of an archive, by its manifest.

    Raises:
        ArchiveDamaged: there is none, or it cannot be read.
    """
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=list[ArchivedFile])
    except (OSError, msgspec.DecodeError) as error:
        raise ArchiveDamaged(f"Expected an archive in {folder}, but: {error}.") from error


def synced(path: Path) -> None:
    """Return when the disk has a file, or the names in a folder."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
