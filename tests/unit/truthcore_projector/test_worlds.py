"""Projection files held to their manifests, compared with each other, and searched for what a log must not have."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from controlplane.events import types
from controlplane.truthcore_projector.comparison import between, of_files
from controlplane.truthcore_projector.digest import digest
from controlplane.truthcore_projector.findings import findings
from controlplane.truthcore_projector.worlds import WorldInvalid, checked, manifest_file, write_manifest
from controlplane.truthcore_projector.worlds_truths import write_truths
from tests.unit.truthcore_projector.stories import START_SECONDS, Projection, header


def when(seconds: float) -> datetime:
    return datetime.fromtimestamp(START_SECONDS, UTC) + timedelta(seconds=seconds)


def told(file: Path | None = None) -> Projection:
    """Return a projection of a job and of two truths of which one is corrected; at second 5 the correction is not yet known."""
    made = Projection(file)
    made.runs("job", "r")  # Seconds 0 to 2.
    made.says("image:9", "width", 640, "camera")
    made.says("image:9", "height", 480, "camera")
    made.says("image:9", "width", 800, "ruler", 0.95)
    return made


def kept(made: Projection, file: Path) -> None:
    write_manifest(file, made.ends, digest(made.store.connection.cursor(), made.ends))
    made.close()


def test_a_file_is_what_its_manifest_says_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "world.duckdb"
    kept(told(file), file)
    said = checked(file)
    assert checked(file, said.fingerprint) == said
    with pytest.raises(WorldInvalid, match="Expected the fingerprint 00"):
        checked(file, "00")
    with duckdb.connect(str(file)) as database:
        database.execute("UPDATE assertions SET confidence = 0.1 WHERE source = 'ruler'")
    with pytest.raises(WorldInvalid, match=r"differs from it in: assertions \(3 rows\)"):
        checked(file)
    manifest_file(file).unlink()
    with pytest.raises(WorldInvalid, match="Expected a manifest beside"):
        checked(file)


def test_a_file_that_was_changed_along_with_its_manifest_has_another_fingerprint(tmp_path: Path) -> None:
    files = [tmp_path / "honest.duckdb", tmp_path / "forged.duckdb"]
    for file in files:
        made = told(file)
        if file == files[1]:
            made.store.connection.execute("DELETE FROM assertions WHERE source = 'ruler'")
        kept(made, file)
    honest, forged = (checked(file).fingerprint for file in files)
    with pytest.raises(WorldInvalid, match="Expected the fingerprint"):
        checked(files[1], honest)
    assert forged != honest


def test_a_file_of_another_layout_is_not_gone_on_with(tmp_path: Path) -> None:
    file = tmp_path / "world.duckdb"
    kept(told(file), file)
    manifest_file(file).write_text(manifest_file(file).read_text().replace('"layout": "', '"layout": "x'))
    with pytest.raises(WorldInvalid, match="Expected a projection of layout"):
        checked(file)


def test_the_difference_of_two_moments(tmp_path: Path) -> None:
    made = told()
    with made.store.snapshot() as cursor:
        found = between(cursor, when(1), when(4.5), 10)
        assert {one.table: (one.only_before, one.only_after) for one in found.tables if one.only_before or one.only_after} == {
            "events": (0, 3), "attempt_events": (0, 1), "assertions": (0, 2)
        }  # fmt: skip
        assert [(one.job_id, one.before and one.before.attempts[0].phase, one.after and one.after.attempts[0].phase) for one in found.jobs] == [
            ("job", "STARTED", "SUCCEEDED")
        ]  # fmt: skip
        assert [(one.predicate, one.change) for one in found.truths] == [("height", "appeared"), ("width", "appeared")]
        found = between(cursor, when(4.5), None, 10)
        assert [(one.predicate, one.change, one.after and one.after.value) for one in found.truths] == [
            ("width", "changed", 800)
        ]
        back = between(cursor, None, when(4.5), 10)
        assert [(one.only_before, one.only_after) for one in back.tables if one.table == "assertions"] == [(1, 0)]
        assert between(cursor, when(0), None, 1).complete is False
    made.close()


def test_the_difference_of_two_files(tmp_path: Path) -> None:
    files = [tmp_path / "a.duckdb", tmp_path / "b's.duckdb"]
    for file in files:
        made = told(file)
        if file == files[1]:
            made.store.connection.execute("UPDATE assertions SET text = '801', number = 801 WHERE source = 'ruler'")
            made.store.connection.execute("UPDATE live_attempt_events SET stage = 'FAILED' WHERE stage = 'SUCCEEDED'")
        made.close()
    assert [one for one in of_files(files[0], files[0], 10).tables if one.only_before or one.only_after] == []
    found = of_files(files[0], files[1], 10)
    assert {one.table: (one.only_before, one.only_after) for one in found.tables if one.only_before} == {
        "attempt_events": (1, 1), "assertions": (1, 1)
    }  # fmt: skip
    (assertions,) = [one for one in found.tables if one.table == "assertions"]
    assert assertions.positions == ["controlplane.truth/0/2"]
    assert [one.job_id for one in found.jobs] == ["job"]
    assert [(one.change, one.before and one.before.value, one.after and one.after.value) for one in found.truths] == [
        ("changed", 800, 801)
    ]


def test_truths_are_kept_as_a_table_as_of_the_end_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "world.duckdb"
    made = told(file)
    made.says("image:9", "width", 12, "future", valid=(when(100), None))
    made.close()
    assert write_truths(file, when(50)) == 2
    with duckdb.connect(str(file), read_only=True) as database:
        rows = database.execute("SELECT predicate, value, conflict, sources FROM truths ORDER BY predicate").fetchall()
    assert rows == [("height", "480", False, ["camera"]), ("width", "800", True, ["camera", "ruler"])]
    assert write_truths(file, when(200)) == 2
    with duckdb.connect(str(file), read_only=True) as database:
        assert database.execute("SELECT value FROM truths WHERE predicate = 'width'").fetchall() == [("12",)]


def concluded(name: str, cause: Any) -> types.JobCompleted:
    return types.JobCompleted(
        header=header("JobCompleted", name, cause), job_id="job", attempt_id="job-a", attempt_number=1, runner_id="r", result=types.Content(data=b"1")
    )  # fmt: skip


def test_two_conclusions_are_found_and_one_that_was_published_twice_is_one(tmp_path: Path) -> None:
    made = told()
    first, second = (made.tell(made_here) for made_here in (submitted_like(made), submitted_like(made)))
    once = concluded("a", first)
    made.tell(once)
    made.tell(once)
    with made.store.snapshot() as cursor:
        assert findings(cursor, made.ends) == []
    made.tell(concluded("b", second))
    with made.store.snapshot() as cursor:
        (found,) = findings(cursor, made.ends)
    assert (found.kind, found.subject, len(found.positions)) == ("concluded_twice", "job", 3)
    made.close()


def submitted_like(made: Projection) -> types.JobAccepted:
    return types.JobAccepted(
        header=header("JobAccepted", f"{made.seconds}"), job_id="job", job_type="m", pool="default", priority=5
    )


def test_a_cause_that_the_log_does_not_have_is_found() -> None:
    made = told()
    place = types.LogPosition(topic="controlplane.jobs", partition=0, offset=77)
    made.tell(concluded("a", place))
    with made.store.snapshot() as cursor:
        (found,) = findings(cursor, made.ends)
    assert (found.kind, "controlplane.jobs/0/77" in found.message) == ("cause_missing", True)
    made.close()
