"""The switch to a projection folded anew: whole before, whole behind, wherever it is cut off."""

import os
from pathlib import Path

import duckdb
import pytest

from controlplane.settings import Settings
from controlplane.truthcore_projector.rebuilding import next_file, ready_file, switch
from controlplane.truthcore_projector.service import _opened
from controlplane.truthcore_projector.shards import WHOLE_LOG
from controlplane.truthcore_projector.store import LayoutDiffers, Store
from controlplane.truthcore_projector.tables import LAYOUT

OLD, NEW = {("controlplane.jobs", 0): 5}, {("controlplane.jobs", 0): 7}


def write(file: Path, positions: dict[tuple[str, int], int]) -> None:
    store = Store(file)
    topic, number = next(iter(positions))
    store.connection.execute("INSERT INTO positions VALUES (?, ?, ?)", [topic, number, positions[topic, number]])
    store.close()


def read(file: Path) -> dict[tuple[str, int], int]:
    store = Store(file)
    try:
        return store.positions()
    finally:
        store.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "truthcore.duckdb"
    write(file, OLD)
    write(next_file(file), NEW)
    return file


def test_what_is_not_ready_stays_beside(file: Path) -> None:
    assert not switch(file)
    assert (read(file), read(next_file(file))) == (OLD, NEW)


def test_what_is_ready_takes_the_place_once(file: Path) -> None:
    ready_file(file).touch()
    assert switch(file)
    assert read(file) == NEW
    assert not next_file(file).exists()
    assert not switch(file)


def test_a_write_ahead_log_of_the_old_file_is_not_applied_to_the_new_one(file: Path) -> None:
    file.with_name(f"{file.name}.wal").write_bytes(b"of transactions that a killed process left")
    ready_file(file).touch()
    assert switch(file)
    assert read(file) == NEW


@pytest.mark.parametrize("step", ["replace", "unlink"])
def test_a_crash_within_the_switch_leaves_one_whole_projection(
    file: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready_file(file).touch()
    unlink = Path.unlink

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def crash_at_ready(path: Path, missing_ok: bool = False) -> None:
        return crash() if path == ready_file(file) else unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        if step == "replace":
            patch.setattr(os, "replace", crash)
        else:
            patch.setattr(Path, "unlink", crash_at_ready)
        with pytest.raises(KeyboardInterrupt):
            switch(file)
    assert read(file) == (OLD if step == "replace" else NEW)
    assert switch(file) is (step == "replace")
    assert read(file) == NEW
    assert not ready_file(file).exists()


@pytest.mark.parametrize("statement", ["UPDATE layout SET layout = 'other'", "DROP TABLE layout"])
def test_a_file_of_another_layout_is_refused_and_the_service_begins_another(file: Path, statement: str) -> None:
    with duckdb.connect(str(file)) as database:
        database.execute(statement)
    with pytest.raises(LayoutDiffers, match=f"Expected {file} to have the layout {LAYOUT}, but it has"):
        Store(file)
    store = _opened(Settings(), file, WHOLE_LOG, [], True)
    assert store.positions() == {}
    store.close()
    assert file.with_name(f"{file.name}.other-layout").exists()
