"""A new replica begins with a snapshot and folds the tail alone; what is not as its manifest says is not believed."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest

from controlplane.api.snapshots import SnapshotManifest
from controlplane.truthcore_projector.archive import sha256_of
from controlplane.truthcore_projector.shards import WHOLE_LOG, Shard
from controlplane.truthcore_projector.snapshots import (
    SnapshotInvalid,
    Snapshots,
    Source,
    fetch,
    from_folder,
    from_peer,
    publish,
)
from controlplane.truthcore_projector.store import Store
from tests.integration.truthcore_projector.test_service import Log, TruthCore, running

TAIL_JOBS = 3


def records(positions: dict[str, dict[Any, int]]) -> int:
    return sum(n for some in positions.values() for n in some.values())


def test_a_replica_that_begins_with_a_snapshot_folds_only_the_tail(
    kafka_bootstrap: str, tmp_path: Path, namespace: str
) -> None:
    log, shelf = Log(kafka_bootstrap), (tmp_path / "shelf").as_uri()
    last = [log.job(f"{namespace}-{number}")[-1] for number in range(5)][-1]
    with running(kafka_bootstrap, tmp_path / "first") as first:
        first.get("/v1/jobs", last)
        url = f"http://127.0.0.1:{first.port}"
        with httpx.Client(timeout=60) as client:
            source = from_peer(client, url)
            publish(source, shelf)
        before = records(source[0].positions)
        last = [log.job(f"{namespace}-tail-{number}")[-1] for number in range(TAIL_JOBS)][-1]
        digests = first.get("/v1/digest", last)
        for name, place in (("of-a-peer", url), ("of-a-folder", shelf), ("of-peers", "peers")):
            new = TruthCore(kafka_bootstrap, tmp_path / name)
            new.environment |= {"CONTROLPLANE_TRUTHCORE_SNAPSHOT": place, "CONTROLPLANE_TRUTHCORE_URLS": url}
            try:
                new.start()
                found = new.get("/v1/digest", last)
                standing = new.get("/v1/standing")
                # What it folded is what the snapshot did not have: a record folded again would make this less.
                begun = records(standing["reflects"]["positions"]) - standing["folded_records"]
                assert begun >= before > standing["folded_records"]
                assert [one["table"] for one in found["tables"]] == [one["table"] for one in digests["tables"]]
                if found["reflects"]["positions"] == digests["reflects"]["positions"]:
                    assert found["tables"] == digests["tables"]
            finally:
                new.client.close()
                assert new.stop(signal.SIGTERM) == 0


@pytest.fixture
def store(tmp_path: Path) -> Any:
    made = Store(tmp_path / "core.duckdb")
    made.connection.execute(
        "INSERT INTO assertions (topic, partition, \"offset\", subject) VALUES ('controlplane.truth', 0, 0, 's')"
    )
    made.connection.execute("INSERT INTO positions VALUES ('controlplane.truth', 0, 1)")
    yield made
    made.close()


def shelved(store: Store, tmp_path: Path) -> tuple[Snapshots, Source]:
    snapshots = Snapshots(store, tmp_path / "snapshots", "core")
    manifest = snapshots.newest(0)
    return snapshots, (manifest, lambda name: iter([snapshots.file(name).read_bytes()]))


def test_a_snapshot_is_reused_while_it_is_young_and_replaced_by_the_next(store: Store, tmp_path: Path) -> None:
    snapshots, (manifest, _) = shelved(store, tmp_path)
    assert snapshots.newest(60) is manifest
    store.connection.execute("INSERT INTO positions VALUES ('controlplane.truth', 1, 0)")
    again = snapshots.newest(0)
    assert again.positions == {"controlplane.truth": {0: 1, 1: 0}}
    assert [one.name for one in (tmp_path / "snapshots").iterdir()] == [f"{again.sha256}.duckdb"]


def test_the_original_stays_locked_while_and_after_it_is_copied(store: Store, tmp_path: Path) -> None:
    shelved(store, tmp_path)
    program = f"import duckdb; duckdb.connect({str(tmp_path / 'core.duckdb')!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "lock" in done.stderr.lower()


def changed_row(source: Source, tmp_path: Path) -> Source:
    """Return a snapshot with another row, whose manifest has the SHA-256 of the changed file."""
    file = tmp_path / "changed.duckdb"
    file.write_bytes(b"".join(source[1](source[0].file)))
    with duckdb.connect(str(file)) as database:
        database.execute("UPDATE assertions SET subject = 't'")
    return source[0].model_copy(update={"sha256": sha256_of(file)}), lambda name: iter([file.read_bytes()])


def test_what_is_not_as_the_manifest_says_is_not_begun_with(store: Store, tmp_path: Path) -> None:
    _, source = shelved(store, tmp_path)
    manifest, pieces = source
    new = tmp_path / "new.duckdb"
    cases: list[tuple[Source, Shard, str]] = [
        ((manifest, lambda name: iter([*pieces(name), b"more"])), WHOLE_LOG, "duckdb with SHA-256"),
        (
            changed_row(source, tmp_path),
            WHOLE_LOG,
            "Expected the digests of the manifest, but found others of: assertions",
        ),
        (source, Shard(number=1, of=2), "Expected a snapshot of shard 1/2, but found one of 0/1"),
    ]
    for one, shard, words in cases:
        with pytest.raises(SnapshotInvalid, match=words):
            fetch(one, new, shard)
        assert not list(tmp_path.glob("new*"))
    fetch(source, new, WHOLE_LOG)
    begun = Store(new)
    assert begun.positions() == store.positions()
    begun.close()


def test_a_folder_without_a_snapshot_is_said(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"latest\.json"):
        from_folder(tmp_path.as_uri(), WHOLE_LOG)
    (tmp_path / "0-of-1").mkdir()
    (tmp_path / "0-of-1" / "latest.json").write_text("{}")
    with pytest.raises(SnapshotInvalid, match="Expected the manifest of a snapshot"):
        from_folder(tmp_path.as_uri(), WHOLE_LOG)


def test_a_manifest_is_read_as_it_was_written(store: Store, tmp_path: Path) -> None:
    _, source = shelved(store, tmp_path)
    publish(source, (tmp_path / "shelf").as_uri())
    manifest, pieces = from_folder((tmp_path / "shelf").as_uri(), WHOLE_LOG)
    assert manifest == source[0]
    assert isinstance(manifest, SnapshotManifest)
    assert b"".join(pieces(manifest.file)) == b"".join(source[1](source[0].file))
