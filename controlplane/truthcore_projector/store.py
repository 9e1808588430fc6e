"""The projection's database: rows and positions in one transaction, so that a record has its effect once."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Final

import duckdb
import pyarrow as pa

from controlplane.log.positions import Partition
from controlplane.truthcore_projector.archive import (
    ARCHIVES,
    archive_folder,
    archived,
    as_view,
    intact,
    present,
    text,
    write_manifest,
)
from controlplane.truthcore_projector.cursors import FINDING, Cursor, tuples
from controlplane.truthcore_projector.decode import COORDINATES, Decoded, Refused
from controlplane.truthcore_projector.shards import WHOLE_LOG, Shard
from controlplane.truthcore_projector.tables import DETAIL, EVENT_COLUMNS, LAYOUT, POSITIONS, ROWS, TABLES, stored
from controlplane.truthcore_projector.views import VIEWS
from controlplane.truthcore_projector.visibility import restrict
from controlplane.truthcore_projector.whereabouts import Whereabouts

UNDECODABLE: Final = "UNDECODABLE"
MEMORY_LIMIT: Final = "1GB"
BULK_MEMORY_LIMIT: Final = "512MB"
"""While a log is folded the transactions on their way need memory as well; together they stay below 1.5 GiB."""
LIVE_CHECKPOINT: Final = "64MB"
"""Each checkpoint compresses again what the last rows of every table share a row group with: with DuckDB's 16 MB a live write took a sixth more CPU."""
BULK_CHECKPOINT: Final = "256MB"
"""Size of the write-ahead log at which a fold stops to put it into the file."""
BULK_THREADS: Final = 1
"""Several would each leave a row group that is not full, and the next checkpoint would compress all of them again: twice the work."""
WHOLE_RECORDS: Final = ("value BLOB", "value BLOB USING COMPRESSION zstd")
"""Records' bytes resemble each other: a fifth smaller and faster to write than with the compression chosen by itself."""


def positions_in(cursor: Cursor) -> dict[Partition, int]:
    """Return the next offset of each partition that the rows seen by a cursor reflect; of one that several shards read, what all have."""
    query = "SELECT topic, partition, next_offset AS next FROM positions"
    least = "SELECT topic, partition, min(next) FROM parts GROUP BY ALL"
    return {(topic, partition): offset for topic, partition, offset in tuples(cursor, query, gather=least)}


class ShardDiffers(ValueError):
    """A database holds another part of the log than the one it is opened for."""


class LayoutDiffers(ValueError):
    """A database is of a release that keeps its rows in another way; it is folded anew, never converted."""


class Store:
    """One DuckDB file, written by one thread; queries take a cursor of their own."""

    def __init__(self, file: Path | str, *, bulk: bool = False, shard: Shard = WHOLE_LOG) -> None:
        """Open or make the database of a shard; `bulk` is for folding a long stretch of the log while nobody asks.

        Raises:
            duckdb.IOException: another process owns the file.
            ShardDiffers: it holds another part of the log.
            LayoutDiffers: it is of a release that keeps rows in another way.
            ArchiveDamaged: a file that it names is missing.
        """
        self._file = Path(file)
        self.archive = archive_folder(self._file)
        """Folder of the files that hold what left the database."""
        self._writing = Lock()
        self.archiving = Lock()
        self.connection = duckdb.connect(str(file))
        try:
            self._open(bulk, shard)
        except BaseException:
            self.connection.close()
            raise

    def _open(self, bulk: bool, shard: Shard) -> None:
        self._hold_layout()
        self.connection.execute(f"SET memory_limit = '{BULK_MEMORY_LIMIT if bulk else MEMORY_LIMIT}'")
        if bulk:
            self.connection.execute(f"SET threads = {BULK_THREADS}")
        self.connection.execute(f"SET checkpoint_threshold = '{BULK_CHECKPOINT if bulk else LIVE_CHECKPOINT}'")
        self.connection.execute("SET TimeZone = 'UTC'")
        # Else a snapshot would begin with its first statement.
        self.connection.execute("SET immediate_transaction_mode = true")
        self.connection.execute(POSITIONS)
        self._keep(shard)
        for name, columns in TABLES.items():
            self.connection.execute(f"CREATE TABLE IF NOT EXISTS {stored(name)} ({columns.replace(*WHOLE_RECORDS)})")
        self._open_archive()
        for view in VIEWS:
            self.connection.execute(view)
        self._whereabouts = Whereabouts(self.connection)
        self.connection.execute("SET enable_external_access = false")
        self.connection.execute("SET lock_configuration = true")

    def _hold_layout(self) -> None:
        """Write into an empty database how it keeps its rows; one that has some is of this layout or is refused."""
        query = "SELECT table_name FROM duckdb_tables() WHERE table_name IN ('layout', 'positions')"
        there = {name for (name,) in self.connection.execute(query).fetchall()}
        if not there:
            self.connection.execute(f"CREATE TABLE layout AS SELECT '{LAYOUT}' AS layout")
            return
        (found,) = self.connection.execute("FROM layout").fetchall()[0] if "layout" in there else ("an earlier one",)
        if found != LAYOUT:
            raise LayoutDiffers(
                f"Expected {self._file} to have the layout {LAYOUT}, but it has {found}: fold the log again."
            )

    def _open_archive(self) -> None:
        """See that all of the archive is there, and put the rows of both together in views."""
        self.connection.execute(ARCHIVES)
        files = archived(self.connection)
        present(files, self.archive)
        for table in DETAIL:
            self.connection.execute(as_view(table, files, self.archive))
        if files:
            write_manifest(files, self.archive)
        if str(self._file) != ":memory:":
            self.connection.execute(f"SET allowed_directories = [{text(self.archive)}]")

    def _keep(self, shard: Shard) -> None:
        """Write into an empty database which part of the log it holds."""
        self.connection.execute("CREATE TABLE IF NOT EXISTS shard (number INTEGER, of INTEGER)")
        known = self.connection.execute("SELECT number, of FROM shard").fetchone()
        if known is None:
            known = (shard.number, shard.of)
            self.connection.execute("INSERT INTO shard VALUES (?, ?)", known)
        if known != (shard.number, shard.of):
            raise ShardDiffers(
                f"Expected {self._file} to hold shard {shard}, but it holds {known[0]}/{known[1]}: use another file, or remove it."
            )

    def close(self) -> None:
        """Close the database; everything committed is in the file."""
        self.connection.close()

    def positions(self) -> dict[Partition, int]:
        """Return the next offset of each partition that the rows reflect."""
        with self.snapshot() as cursor:
            return positions_in(cursor)

    @contextmanager
    def snapshot(self, tenants: Sequence[str] | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a cursor that sees one committed state while the block runs, of these tenants (none: of all), and cannot write."""
        cursor = self.connection.cursor()
        try:
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            if tenants is not None:
                restrict(cursor, tenants)
            # Where names are is asked once the snapshot has begun, and once: nothing that it holds is missing then, and it stays as it is.
            FINDING[cursor] = cache(self._whereabouts.condition)
            yield cursor
        except (duckdb.IOException, duckdb.InvalidInputException):
            present(archived(self.connection), self.archive)  # Says more of a file that went away than the query can.
            raise
        finally:
            cursor.close()

    def see_archive(self) -> None:
        """Read all of the archive.

        Raises:
            ArchiveDamaged: a file is missing, or has other bytes than those that were written.
        """
        intact(archived(self.connection), self.archive)

    def begin(self) -> None:
        """Begin a transaction for what `add` writes; it ends with `commit` or `rollback`."""
        self._writing.acquire()
        self.connection.begin()
        self._whereabouts.begin()

    def commit(self) -> None:
        """Commit everything that was added since `begin`; what cannot be committed is forgotten."""
        try:
            self.connection.commit()
            self._whereabouts.saved()
        finally:
            self._writing.release()

    def rollback(self) -> None:
        """Forget everything that was added since `begin`."""
        try:
            self.connection.rollback()
        finally:
            self._writing.release()

    def write(self, decoded: Decoded, positions: Mapping[Partition, int]) -> None:
        """Write a batch and the positions after it, all or nothing (G4).

        1. Rows and positions are written in one transaction. A crash before its commit: the batch comes again. After: it
        is skipped, because reading goes on at the stored positions.
        """
        self.begin()
        try:
            self.add(decoded, positions)
        except BaseException:
            self.rollback()
            raise
        self.commit()

    def copy_to(self, target: Path) -> None:
        """Copy the database as it is after the last transaction; reading goes on meanwhile, writing waits.

        Another process copies: closing the file in this one would let go of the lock that keeps others out of it.
        """
        with self._writing:
            self.connection.execute("CHECKPOINT")
            subprocess.run(["cp", "--", str(self._file), str(target)], check=True, capture_output=True)  # noqa: S607 -- POSIX

    def add(self, decoded: Decoded, positions: Mapping[Partition, int]) -> None:
        """Write a batch and the positions after it within the transaction that is open."""
        self._whereabouts.note(decoded)
        if decoded.tables:
            common = ["header", *COORDINATES.names]
            headers = [table.select(common) for table in decoded.tables.values()]
            self._insert("events", EVENT_COLUMNS, pa.concat_tables(headers, promote_options="permissive"))
        for name, table in decoded.tables.items():
            if name in ROWS:
                self._insert(*ROWS[name], table)
        if decoded.refused:
            self._insert_refused(decoded.refused)
        self._advance(positions)
        self._whereabouts.save()

    def advance(self, positions: Mapping[Partition, int]) -> None:
        """Say within the transaction that is open which positions the rows reflect with it that came by another way than `add`."""
        self._whereabouts.lose()
        self._advance(positions)

    def settle(self) -> None:
        """Write within the transaction that is open where all names are, so that rows which leave the database are found."""
        self._whereabouts.save(all_of_it=True)

    def _advance(self, positions: Mapping[Partition, int]) -> None:
        self.connection.execute(
            "INSERT OR REPLACE INTO positions SELECT unnest(?::VARCHAR[]), unnest(?::INTEGER[]), unnest(?::BIGINT[])",
            [[one[0] for one in positions], [one[1] for one in positions], list(positions.values())],
        )

    def _insert(self, table: str, columns: str, batch: pa.Table) -> None:
        # Not as a registered view: the transaction would keep every batch until it ends.
        self.connection.from_arrow(batch).project(columns).insert_into(stored(table))

    def _insert_refused(self, refused: Sequence[Refused]) -> None:
        rows: list[tuple[Any, ...]] = [
            (one.record.topic, one.record.partition, one.record.offset, one.record.timestamp, one.record.key, UNDECODABLE, one.record.value)
            for one in refused
        ]  # fmt: skip
        self.connection.executemany(
            f'INSERT INTO {stored("events")} (topic, partition, "offset", log_time, key, event_type, value)'
            " VALUES (?, ?, ?, epoch_ms(?::BIGINT), ?, ?, ?)",
            rows,
        )
