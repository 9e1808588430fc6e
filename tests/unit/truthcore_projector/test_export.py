"""An export holds each record once, whatever crashes, and a second engine reads from it what the projection has."""

import random
from pathlib import Path
from typing import Any

import datafusion
import pyarrow as pa
import pytest

from controlplane.truthcore_projector.decode import Decoder
from controlplane.truthcore_projector.digest import digest
from controlplane.truthcore_projector.export import COMMITS, STAGING, Export, ExportBusy, ExportInvalid, commits
from controlplane.truthcore_projector.store import Store
from controlplane.truthcore_projector.tables import TABLES, stored
from tests.golden.projection import ends
from tests.golden.records import golden_log

LOG = golden_log()
UNTIL = ends(LOG)


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture(scope="module")
def expected() -> Any:
    store, decoder = Store(":memory:"), Decoder()
    store.write(decoder.decode(LOG), UNTIL)
    decoder.close()
    found = digest(store.connection, UNTIL)
    store.close()
    return found


def fold_into(target: Export, chance: random.Random) -> None:
    """Write what the export lacks, in transactions of several batches."""
    decoder = Decoder()
    try:
        while left := [one for one in LOG if one.offset >= target.positions().get((one.topic, one.partition), 0)]:
            target.begin()
            some = left[: chance.randint(1, len(left))]
            middle = chance.randint(0, len(some))
            for part in (some[:middle], some[middle:]):
                if part:
                    target.add(decoder.decode(part), ends(part))
            target.commit()
    finally:
        decoder.close()


def read_by_datafusion(folder: Path) -> Any:
    """Return the digest of what another engine finds in the folder of each table."""
    store, engine = Store(":memory:"), datafusion.SessionContext()
    for table, columns in TABLES.items():
        if not (folder / table).is_dir():
            continue
        engine.register_parquet(table, str(folder / table), table_partition_cols=[("day", pa.string())])
        names = ", ".join(column.strip().split(" ")[0] for column in columns.split(","))
        rows = engine.sql(f"SELECT {names} FROM {table}").to_arrow_table()
        store.connection.from_arrow(rows).insert_into(stored(table))
    found = digest(store.connection, UNTIL)
    store.close()
    return found


def test_another_engine_reads_the_rows_of_the_projection(tmp_path: Path, expected: Any) -> None:
    target = Export(tmp_path)
    fold_into(target, random.Random(1))
    target.close()
    assert read_by_datafusion(tmp_path) == expected
    files = [one for commit in commits(tmp_path) for one in commit.files]
    assert {one.path for one in files} == {str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*.parquet")}
    assert sum(one.rows for one in files if one.table == "events") == len(LOG)


@pytest.mark.parametrize("step", ["before the commit", "behind the commit", "between two files"])
def test_a_crash_at_any_step_leaves_each_record_once(
    tmp_path: Path, expected: Any, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(step)
    target = Export(tmp_path)
    original, moved = Path.rename, 0

    def rename(self: Path, place: Path) -> Path:
        nonlocal moved
        if step == "before the commit" and self.name == "commit.json":
            raise Crash
        if self.suffix == ".parquet":
            moved += 1
            if step == "behind the commit" or (step == "between two files" and moved > 1):
                raise Crash
        return original(self, place)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(Crash):
            fold_into(target, chance)
    target.close()
    again = Export(tmp_path)
    assert bool(again.positions()) is (step != "before the commit")
    fold_into(again, chance)
    again.close()
    assert read_by_datafusion(tmp_path) == expected
    assert [file for file in (tmp_path / STAGING).rglob("*") if file.is_file()] == []


def test_one_process_exports_into_a_folder_and_a_lost_file_or_commit_is_said(tmp_path: Path) -> None:
    target = Export(tmp_path)
    with pytest.raises(ExportBusy, match="another process"):
        Export(tmp_path)
    for _ in range(2):
        target.begin()
        decoder = Decoder()
        target.add(decoder.decode(LOG[:2]), ends(LOG[:2]))
        decoder.close()
        target.commit()
    target.close()
    lost = tmp_path / commits(tmp_path)[-1].files[0].path
    lost.unlink()
    with pytest.raises(ExportInvalid, match=lost.name):
        Export(tmp_path)
    (tmp_path / COMMITS / "00000001.json").unlink()
    with pytest.raises(ExportInvalid, match="commits 1 to 1"):
        Export(tmp_path)
