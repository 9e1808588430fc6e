"""Detail in the archive: no answer and no digest shows where a row lies, whatever is archived when, and wherever that is cut off."""

import asyncio
import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.api.models import SqlRequest
from controlplane.events.codec import encode
from controlplane.log.connection import LogConnection
from controlplane.log.positions import Partition
from controlplane.truthcore_projector import archiving
from controlplane.truthcore_projector.archive import (
    MANIFEST,
    ArchiveDamaged,
    archive_folder,
    archived,
    reading,
)
from controlplane.truthcore_projector.archiving import HistoryGone, archive, restore
from controlplane.truthcore_projector.comparison import of_files
from controlplane.truthcore_projector.decode import Decoder
from controlplane.truthcore_projector.digest import digest
from controlplane.truthcore_projector.http import create_app
from controlplane.truthcore_projector.moments import AsOf
from controlplane.truthcore_projector.projector import Projector
from controlplane.truthcore_projector.shards import WHOLE_LOG
from controlplane.truthcore_projector.snapshots import SnapshotInvalid, Snapshots, Source, fetch, from_folder, publish
from controlplane.truthcore_projector.sql import select
from controlplane.truthcore_projector.store import Store, positions_in
from controlplane.truthcore_projector.tables import DETAIL, stored
from controlplane.truthcore_projector.visibility import EVERYBODYS
from tests.golden.projection import ends
from tests.golden.records import golden_log
from tests.unit.truthcore_projector.stories import START_SECONDS
from tests.unit.truthcore_projector.test_past import QUESTIONS, Log, event, folded, logs, moments, places
from tests.unit.truthcore_projector.worlds import COUNTS

GOLDEN = golden_log()
UNTIL = ends(GOLDEN)
FOR_EVER = datetime(2200, 1, 1, tzinfo=UTC)
LINES: Partition = ("controlplane.joblogs", 0)
JOBS: Partition = ("controlplane.jobs", 0)


def folded_with_archive(file: Path, log: Log, chance: random.Random) -> Store:
    """Return a projection of a log of which detail was archived now and then, and which was opened anew now and then."""
    store, decoder = Store(file), Decoder()
    done = dict.fromkeys(log, 0)
    while going := [place for place in log if done[place] < len(log[place])]:
        place = chance.choice(going)
        end = chance.randint(done[place] + 1, len(log[place]))
        store.write(decoder.decode(log[place][done[place] : end]), {place: end})
        done[place] = end
        if chance.random() < 0.3:
            archive(store, datetime.fromtimestamp(START_SECONDS, UTC) + timedelta(seconds=chance.randint(-2, 40)))
        if chance.random() < 0.2:
            store.close()
            store = Store(file)
    decoder.close()
    return store


def rows(cursor: duckdb.DuckDBPyConnection, table: str) -> Any:
    return cursor.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall()


@given(log=logs(), as_of=st.none() | moments | places, seed=st.integers(0, 2**32))
@settings(max_examples=6)
def test_no_answer_shows_what_was_archived_when(log: Log, as_of: AsOf | None, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder, folded(log, random.Random(seed)) as whole:
        store = folded_with_archive(Path(folder) / "core.duckdb", log, random.Random(seed))
        try:
            with store.snapshot() as cursor:
                assert digest(cursor, positions_in(cursor)) == digest(whole, positions_in(whole))
                for name, ask in QUESTIONS.items():
                    assert ask(cursor, as_of) == ask(whole, as_of), name
            with store.snapshot(["default"]) as cursor:
                for table in DETAIL:
                    mine = "" if table in EVERYBODYS else " WHERE tenant = 'default'"
                    assert rows(cursor, table) == rows(whole, table + mine)
        finally:
            store.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A projection of every kind of event."""
    made, decoder = Store(tmp_path / "core.duckdb"), Decoder()
    made.write(decoder.decode(GOLDEN), UNTIL)
    decoder.close()
    yield made
    made.close()


def detail(store: Store) -> int:
    """Return how many rows of detail the database itself holds."""
    counts = [f"(SELECT count(*) FROM {stored(table)} WHERE {which})" for table, which in DETAIL.items()]
    return int(store.connection.cursor().execute(f"SELECT {' + '.join(counts)}").fetchall()[0][0])


def test_what_was_archived_is_out_of_the_database_and_named_with_its_records(store: Store) -> None:
    before, there = digest(store.connection, UNTIL), detail(store)
    assert there > 0
    files = archive(store, FOR_EVER)
    assert (detail(store), sum(one.rows for one in files)) == (0, there)
    assert digest(store.connection, UNTIL) == before
    assert archive(store, FOR_EVER) == []
    assert archived(store.connection) == files
    told = json.loads((store.archive / MANIFEST).read_text())
    assert {one["sha256"] for one in told} == {one.sha256 for one in files}
    for one in files:
        query = f"SELECT count(*), min(\"offset\") FROM read_parquet('{store.archive / one.name}')"
        found = duckdb.execute(query).fetchall()
        assert found == [(one.rows, min(part.first_offset for part in one.ranges))]
    assert {one.name for one in files} | {MANIFEST} == {one.name for one in store.archive.iterdir()}


def test_little_is_left_where_it_is(store: Store) -> None:
    assert archive(store, datetime.fromtimestamp(0, UTC)) == []
    assert archive(store, FOR_EVER, least_rows=1_000_000) == []
    assert detail(store) > 0


@pytest.mark.parametrize(
    ("step", "gone"), [("a file is named", False), ("the commit", False), ("the manifest", True), ("nothing", True)]
)
def test_cut_off_anywhere_it_is_as_before_or_done(
    store: Store, step: str, gone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is copied in the midst of it is what a power cut leaves."""
    before, left = digest(store.connection, UNTIL), tmp_path / "left"

    def cut(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def first(*arguments: Any, **named: Any) -> Any:
            if not left.exists():
                copied(store, left)
            return original(*arguments, **named)

        monkeypatch.setattr(owner, name, first)

    match step:
        case "a file is named":
            cut(Path, "rename")
        case "the commit":
            cut(store, "commit")
        case "the manifest":
            cut(archiving, "write_manifest")
    files = archive(store, FOR_EVER)
    if not left.exists():
        copied(store, left)
    again = Store(left / "core.duckdb")
    try:
        assert digest(again.connection, UNTIL) == before
        assert (detail(again) == 0) is gone
        assert (again.archive / MANIFEST).exists() is gone
        assert [one.sha256 for one in archive(again, FOR_EVER)] == ([] if gone else [one.sha256 for one in files])
        assert digest(again.connection, UNTIL) == before
        assert list(again.archive.glob("*.part")) == []
    finally:
        again.close()


def copied(store: Store, place: Path) -> None:
    shutil.copytree(store.archive.parent, place, ignore=lambda _, names: [one for one in names if one == place.name])


def test_a_file_that_is_missing_or_changed_is_said(store: Store, tmp_path: Path) -> None:
    one = archive(store, FOR_EVER)[0]
    file = store.archive / one.name
    whole = file.read_bytes()
    file.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(ArchiveDamaged, match=f"with SHA-256 {one.sha256}, but found [0-9a-f]{{64}}"):
        store.see_archive()
    file.unlink()
    with (
        pytest.raises(ArchiveDamaged, match=f"Expected {file} with .* bytes, .* but there is none"),
        store.snapshot() as cursor,
    ):
        cursor.execute(f"SELECT * FROM {one.table} ORDER BY topic").fetchall()
    copied(store, tmp_path / "left")
    with pytest.raises(ArchiveDamaged, match="but there is none: put it back"):
        Store(tmp_path / "left" / "core.duckdb")
    file.write_bytes(whole)
    store.see_archive()


async def test_over_http_damage_ends_the_digest_and_what_needs_the_file(store: Store) -> None:
    projector = Projector(LogConnection(bootstrap="127.0.0.1:1"), store, COUNTS)
    app = create_app(store, projector, {}, snapshots=Snapshots(store, store.archive / "none", "core"))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://core") as http:
        digests = (await http.get("/v1/digest")).json()["tables"]
        said = (await http.post("/v1/archive", json={"before": FOR_EVER.isoformat()})).json()
        assert (said["rows"], said["folder"]) == (
            sum(one.rows for one in archived(store.connection)),
            str(store.archive),
        )
        assert (await http.get("/v1/digest")).json()["tables"] == digests
        one = next(one for one in archived(store.connection) if one.table == "events")
        file = store.archive / one.name
        file.write_bytes(file.read_bytes()[:-1] + b"?")
        refused = (await http.get("/v1/digest")).json()
        assert (refused["code"], one.sha256 in refused["message"]) == ("content_corrupt", True)
        file.unlink()
        refused = (await http.get("/v1/events")).json()
        assert (refused["code"], f"Expected {file}" in refused["message"]) == ("content_corrupt", True)
        assert (await http.get("/v1/truths")).status_code == 200
    projector.close()


async def test_what_is_old_enough_leaves_by_itself(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "WORTH_ROWS", 1)
    monkeypatch.setattr(archiving, "LOOK_SECONDS", 0.01)
    store.archive.write_text("in the way")
    archives = asyncio.create_task(archiving.archive_by_itself(store, 1.0))
    await asyncio.sleep(0.2)
    assert not archives.done()  # What it cannot write it tries again.
    store.archive.unlink()
    async with asyncio.timeout(60):
        while detail(store):  # noqa: ASYNC110 -- a thread archives
            await asyncio.sleep(0.02)
    archives.cancel()
    store.see_archive()


def test_files_are_read_and_compared_with_their_archives_wherever_they_are(store: Store, tmp_path: Path) -> None:
    archive(store, FOR_EVER)
    copied(store, tmp_path / "left")
    place = tmp_path / "left" / "core.duckdb"
    shutil.move(archive_folder(place), tmp_path / "elsewhere")
    with reading(place, tmp_path / "elsewhere") as database:
        assert digest(database, UNTIL) == digest(store.connection, UNTIL)
    shutil.move(tmp_path / "elsewhere", archive_folder(place))
    found = of_files(place, place, 10)
    assert {one.table: one.rows_before for one in found.tables}["job_logs"] > 0
    assert not any(one.only_before or one.only_after for one in found.tables)


def test_a_snapshot_takes_the_archive_along(store: Store, tmp_path: Path) -> None:
    files, shelf = archive(store, FOR_EVER), (tmp_path / "shelf").as_uri()
    snapshots = Snapshots(store, tmp_path / "snapshots", "core")
    manifest = snapshots.newest(0)
    source: Source = (manifest, lambda name: iter([snapshots.file(name).read_bytes()]))
    publish(source, shelf)
    shelved = from_folder(shelf, WHOLE_LOG)
    new = tmp_path / "new" / "core.duckdb"
    new.parent.mkdir()

    def changed(name: str) -> Iterator[bytes]:
        return iter([b"other"]) if name == files[0].name else source[1](name)

    with pytest.raises(SnapshotInvalid, match=f"Expected {files[0].name} with SHA-256 {files[0].sha256}"):
        fetch((manifest, changed), new, WHOLE_LOG)
    fetch(shelved, new, WHOLE_LOG)
    begun = Store(new)
    try:
        assert digest(begun.connection, UNTIL) == digest(store.connection, UNTIL)
        assert detail(begun) == 0
        assert {one.name for one in files} < {one.name for one in begun.archive.iterdir()}
    finally:
        begun.close()
    with pytest.raises(SnapshotInvalid, match="but found an earlier one"):
        fetch((manifest.model_copy(update={"layout": "an earlier one"}), source[1]), new, WHOLE_LOG)


def records(place: Partition, kind: str, count: int) -> list[Any]:
    return [
        SimpleNamespace(topic=place[0], partition=place[1], offset=number, timestamp=1000, key=b"a", value=encode(event(kind, "a", number, None)))
        for number in range(count)
    ]  # fmt: skip


def test_what_the_log_no_longer_has_comes_back_from_the_archive_or_is_said_to_be_gone(tmp_path: Path) -> None:
    old, fresh, decoder = Store(tmp_path / "old.duckdb"), Store(tmp_path / "fresh.duckdb"), Decoder()
    lines, jobs = records(LINES, "logged", 5), records(JOBS, "accepted", 3)
    everything = {LINES: 5, JOBS: 3}
    try:
        old.write(decoder.decode([*lines, *jobs]), everything)
        archive(old, FOR_EVER)
        with pytest.raises(HistoryGone, match=r"no longer: controlplane\.joblogs/0 from 0 to 3"):
            restore(fresh, {LINES: (0, 4)}, None)
        words = "controlplane.jobs/0, but the log begins at 2, and of the 2 records before that the archive has 0"
        with pytest.raises(HistoryGone, match=words):
            restore(fresh, {LINES: (0, 4), JOBS: (0, 2)}, old.archive)
        assert (fresh.positions(), detail(fresh)) == ({}, 0)
        assert restore(fresh, {LINES: (0, 4)}, old.archive) == 4
        assert fresh.positions() == {LINES: 4}
        fresh.write(decoder.decode([*lines[4:], *jobs]), everything)
        assert digest(fresh.connection, everything) == digest(old.connection, everything)
        (old.archive / MANIFEST).unlink()
        with pytest.raises(ArchiveDamaged, match="Expected an archive in"):
            restore(fresh, {LINES: (0, 4)}, old.archive)
    finally:
        decoder.close()
        old.close()
        fresh.close()


def test_strangers_reach_no_file_but_the_archive(store: Store, tmp_path: Path) -> None:
    archive(store, FOR_EVER)
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with store.snapshot() as cursor:
        assert select(cursor, SqlRequest(sql="SELECT count(*) FROM job_logs"))[1] != [[0]]
        for sql in (
            f"FROM read_csv('{tmp_path}/secret.csv')", f"FROM read_text('{store.archive}/../secret.csv')", f"FROM glob('{tmp_path}/*')",
            f"COPY events TO '{tmp_path}/stolen.parquet'",
        ):  # fmt: skip
            with pytest.raises(Exception, match="Expected"):
                select(cursor, SqlRequest(sql=sql))
