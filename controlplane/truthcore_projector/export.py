"""History as partitioned Parquet, for engines that know nothing of ControlPlane: every table in a folder of its own, by day of the log time.

Names that begin with an underscore are passed over by DuckDB, DataFusion, Spark and Trino; what has no such name was committed.
"""

import fcntl
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from controlplane.log.connection import LogConnection
from controlplane.log.positions import Partition
from controlplane.truthcore_projector.decode import Decoded
from controlplane.truthcore_projector.fold import Progress, fold
from controlplane.truthcore_projector.store import Store
from controlplane.truthcore_projector.tables import TABLES
from controlplane.truthcore_projector.worlds import ends_at

STAGING: Final = "_staging"
COMMITS: Final = "_commits"
LOCK: Final = "_lock"
DAY: Final = ds.partitioning(pa.schema([("day", pa.string())]), flavor="hive")
PARQUET: Final = ds.ParquetFileFormat()


class ExportBusy(RuntimeError):
    """Another process exports into this folder."""


class ExportInvalid(ValueError):
    """The folder holds something else than an export, or one of which a part is missing."""


class ExportedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a commit; its path is relative to the folder of the export."""

    table: str
    path: str
    rows: int


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """What one transaction added, and which positions the export reflects with it: (topic, partition, next offset)."""

    number: int
    positions: list[tuple[str, int, int]]
    files: list[ExportedFile]


def commits(folder: Path) -> list[Commit]:
    """Return the commits of an export, in order.

    Raises:
        ExportInvalid: one is missing or cannot be read.
    """
    files = sorted((folder / COMMITS).glob("*.json"))
    try:
        found = [msgspec.json.decode(file.read_bytes(), type=Commit) for file in files]
    except (OSError, msgspec.DecodeError) as error:
        raise ExportInvalid(f"Expected commits of an export in {folder / COMMITS}, but: {error}.") from error
    if [one.number for one in found] != list(range(1, len(found) + 1)):
        raise ExportInvalid(f"Expected the commits 1 to {len(found)} in {folder / COMMITS}, but found others.")
    return found


class Export:
    """A folder of Parquet that a fold writes into, as it would into a database: each row is there once, whatever crashes."""

    def __init__(self, folder: Path) -> None:
        """Open or begin an export; what the last process left unfinished is finished, or forgotten.

        Raises:
            ExportBusy: another process writes to it.
            ExportInvalid: it holds something else.
        """
        self._folder = folder
        (folder / STAGING).mkdir(parents=True, exist_ok=True)
        (folder / COMMITS).mkdir(exist_ok=True)
        self._lock = (folder / LOCK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise ExportBusy(
                f"Expected to be the only one that exports into {folder}, but another process does."
            ) from error
        try:
            self._resume()
        except BaseException:
            self._lock.close()
            raise
        self._rows = Store(":memory:", bulk=True)
        self._staged: list[ExportedFile] = []
        self._following = dict(self._positions)

    def _resume(self) -> None:
        known = commits(self._folder)
        self._number = len(known)
        self._positions = {(topic, number): end for topic, number, end in known[-1].positions} if known else {}
        self._publish(known[-1].files if known else [])
        self._forget()

    def close(self) -> None:
        """Let go of the folder."""
        self._rows.close()
        self._lock.close()

    def positions(self) -> dict[Partition, int]:
        """Return the next offset of each partition that the committed files reflect."""
        return dict(self._positions)

    def begin(self) -> None:
        """Begin a transaction."""
        self._staged, self._following = [], dict(self._positions)

    def add(self, decoded: Decoded, positions: Mapping[Partition, int]) -> None:
        """Write the rows of a batch into files that nobody sees yet."""
        self._rows.begin()
        try:
            self._rows.add(decoded, positions)
            tables = {name: self._rows.connection.sql(f"SELECT * FROM {name}").to_arrow_table() for name in TABLES}
        finally:
            self._rows.rollback()
        for name, table in tables.items():
            if table.num_rows:
                self._stage(name, table)
        self._following.update(positions)

    def _stage(self, name: str, table: pa.Table) -> None:
        days = pc.strftime(table["log_time"], "%Y-%m-%d")
        written: list[ds.WrittenFile] = []
        ds.write_dataset(
            table.append_column("day", days), self._folder / STAGING / name, format=PARQUET, partitioning=DAY,
            file_options=PARQUET.make_write_options(compression="zstd"), file_visitor=written.append,
            basename_template=f"{self._number + 1:08d}-{len(self._staged):05d}-{{i}}.parquet", existing_data_behavior="overwrite_or_ignore",
        )  # fmt: skip
        for one in written:
            path = Path(one.path).relative_to(self._folder / STAGING)
            self._staged.append(ExportedFile(table=name, path=str(path), rows=one.metadata.num_rows))

    def commit(self) -> None:
        """Make the files of this transaction part of the export.

        1. They are synced to disk where nobody sees them. A crash: they are forgotten. 2. A commit that names them and the positions after
        them gets its name. A crash: the next process finishes. 3. They move to their places, one by one.
        """
        if not self._staged:
            return
        # Step 1.
        _sync(self._folder / STAGING / one.path for one in self._staged)
        # Step 2.
        made = Commit(
            number=self._number + 1, files=self._staged,
            positions=sorted((topic, number, end) for (topic, number), end in self._following.items()),
        )  # fmt: skip
        draft = self._folder / STAGING / "commit.json"
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1))
        _sync([draft])
        draft.rename(self._folder / COMMITS / f"{made.number:08d}.json")
        _sync([self._folder / COMMITS])
        self._number, self._positions = made.number, dict(self._following)
        # Step 3.
        self._publish(made.files)
        self._forget()

    def rollback(self) -> None:
        """Forget the files of this transaction."""
        self._forget()

    def _publish(self, files: Iterable[ExportedFile]) -> None:
        for one in files:
            staged, place = self._folder / STAGING / one.path, self._folder / one.path
            if staged.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                staged.rename(place)
                _sync([place.parent])
            elif not place.exists():
                raise ExportInvalid(f"Expected {place}, which commit {self._number} names, but it is gone.")

    def _forget(self) -> None:
        for file in (self._folder / STAGING).rglob("*"):
            if file.is_file():
                file.unlink()


async def export_to_end(connection: LogConnection, target: Export, progress: Progress | None = None) -> int:
    """Export what the log has now and the folder has not; returns how many records that were.

    Raises:
        LogUnavailable: the log does not give the range.
    """
    return await fold(connection, target, await ends_at(connection, None), progress)


def _sync(paths: Iterable[Path]) -> None:
    for path in paths:
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
