"""Any order between partitions, any repetition, any place to stop: the projection is the same set of rows."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.events import types
from controlplane.events.catalog import EVENT_TYPES, record_key
from controlplane.events.codec import encode
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant
from controlplane.events.types import LogPosition, Producer
from controlplane.log.positions import Partition
from controlplane.truthcore_projector.decode import Decoder
from controlplane.truthcore_projector.digest import digest
from controlplane.truthcore_projector.queries import job_views
from controlplane.truthcore_projector.store import UNDECODABLE, Store

PRODUCER = Producer(service="test", version="0")


def header(name: str, identity: str) -> types.EventHeader:
    cause = LogPosition(topic="controlplane.submissions", partition=0, offset=0)
    return outside_header(name, identity, PRODUCER, Instant(1), causation=cause)


def job_story(job: str) -> list[Any]:
    attempt: dict[str, Any] = {"job_id": job, "attempt_id": f"{job}-a", "attempt_number": 1, "runner_id": "r"}
    return [
        types.JobSubmitted(header=header("JobSubmitted", job), job_id=job, job_type="noop", payload=types.Content(data=b"{}")),
        types.JobAccepted(header=header("JobAccepted", job), job_id=job, job_type="noop", pool="default", priority=5),
        types.AttemptStarted(header=header("AttemptStarted", job), **attempt),
        types.AttemptProgressed(header=header("AttemptProgressed", job), **attempt, fraction=0.5, message="half"),
        types.JobCompleted(header=header("JobCompleted", job), **attempt, result=types.Content(data=b'{"ok":true}')),
        types.TruthAsserted(
            header=header("TruthAsserted", job), subject=f"job:{job}", predicate="outcome",
            object=types.TypedValue(kind=types.ValueKind.STRING, text="completed"), confidence=1.0,
            source=types.Source(kind=types.SourceKind.SYSTEM, name="jobforge"), evidence=types.Evidence(job_id=job),
        ),
    ]  # fmt: skip


def log_of(jobs: int) -> dict[Partition, list[Any]]:
    log: dict[Partition, list[Any]] = {}
    for number in range(jobs):
        for event in job_story(f"job-{number}"):
            place = (EVENT_TYPES[type(event).__name__].topic.name, number % 2)
            records = log.setdefault(place, [])
            records.append(
                SimpleNamespace(
                    topic=place[0], partition=place[1], offset=len(records), timestamp=1_700_000_000_000 + len(records),
                    key=record_key(event), value=encode(event),
                )
            )  # fmt: skip
    garbage = log[("controlplane.jobs", 0)]
    garbage.append(
        SimpleNamespace(topic="controlplane.jobs", partition=0, offset=len(garbage), timestamp=1, key=b"k", value=b"?")
    )
    return log


def project(store: Store, decoder: Decoder, log: dict[Partition, list[Any]], chance: random.Random) -> None:
    """Write a log in batches of random sizes, partitions in random order; what was written before is offered again."""
    at = dict.fromkeys(log, 0) | {place: store.positions().get(place, 0) for place in log}
    while open_places := [place for place in log if at[place] < len(log[place])]:
        chosen = chance.sample(open_places, chance.randint(1, len(open_places)))
        ends = {place: chance.randint(at[place] + 1, len(log[place])) for place in chosen}
        records = [record for place in chosen for record in log[place][at[place] : ends[place]]]
        store.write(decoder.decode(records), ends)
        at |= ends


LOG = log_of(6)
UNTIL = {place: len(records) for place, records in LOG.items()}


@pytest.fixture(scope="module")
def straight() -> Any:
    store, decoder = Store(":memory:"), Decoder()
    for place, records in LOG.items():
        store.write(decoder.decode(records), {place: len(records)})
    yield digest(store.connection.cursor(), UNTIL)
    decoder.close()
    store.close()


@given(seed=st.integers(0, 2**32))
@settings(max_examples=15)
def test_any_interleaving_gives_the_same_digest(straight: Any, seed: int) -> None:
    store, decoder = Store(":memory:"), Decoder()
    project(store, decoder, LOG, random.Random(seed))
    assert digest(store.connection.cursor(), UNTIL) == straight
    decoder.close()
    store.close()


@given(seed=st.integers(0, 2**32), stops=st.integers(1, 4))
@settings(max_examples=8)
def test_a_restart_anywhere_gives_the_same_digest(
    tmp_path_factory: pytest.TempPathFactory, straight: Any, seed: int, stops: int
) -> None:
    chance, file = random.Random(seed), tmp_path_factory.mktemp("projection") / "truth.duckdb"
    for stop in range(stops):
        part = {place: records[: len(records) * (stop + 1) // stops] for place, records in LOG.items()}
        store, decoder = Store(file), Decoder()
        project(store, decoder, part, chance)
        store.close()
        decoder.close()
    store = Store(file)
    assert digest(store.connection.cursor(), UNTIL) == straight
    store.close()


def test_a_write_that_fails_leaves_neither_rows_nor_positions(tmp_path: Path) -> None:
    store, decoder = Store(tmp_path / "truth.duckdb"), Decoder()
    decoded = decoder.decode(LOG[("controlplane.jobs", 0)])
    with pytest.raises(duckdb.ConversionException, match="not a number"):
        store.write(decoded, {("controlplane.jobs", 0): "not a number"})  # type: ignore[dict-item] # that is the point
    assert store.positions() == {}
    assert store.connection.execute("SELECT count(*) FROM events").fetchone() == (0,)
    store.close()
    decoder.close()


def test_garbage_is_kept_under_its_position_and_the_rest_goes_on(tmp_path: Path) -> None:
    store, decoder = Store(tmp_path / "truth.duckdb"), Decoder()
    project(store, decoder, LOG, random.Random(1))
    found = store.connection.execute("SELECT count(*) FROM events WHERE event_type = ?", [UNDECODABLE]).fetchone()
    assert found == (1,)
    (job,) = job_views(store.connection.cursor(), ["job-3"], details=True)
    assert (job.phase, job.result, job.attempts[0].fraction) == ("COMPLETED", {"ok": True}, 0.5)
    store.close()
    decoder.close()
