"""The figures of a window of time, from a story whose every second is known."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from controlplane.api.models import Phase
from controlplane.events import types
from controlplane.events.catalog import EVENT_TYPES, record_key
from controlplane.events.codec import encode
from controlplane.events.errors import envelope
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant
from controlplane.truthcore_projector.activity import activity, job_counts
from controlplane.truthcore_projector.decode import Decoder
from controlplane.truthcore_projector.queries import job_page
from controlplane.truthcore_projector.store import Store

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
PRODUCER = types.Producer(service="test", version="0")


def header(name: str, identity: str) -> types.EventHeader:
    return outside_header(name, identity, PRODUCER, Instant(1))


def submitted(job: str, job_type: str = "resize") -> Any:
    payload = types.Content(data=b"{}")
    return types.JobSubmitted(header=header("JobSubmitted", job), job_id=job, job_type=job_type, payload=payload)


def lease(job: str) -> dict[str, Any]:
    return {"job_id": job, "attempt_id": f"{job}/1", "attempt_number": 1, "runner_id": "r1"}


def routed(job: str) -> Any:
    return types.JobRouted(
        header=header("JobRouted", job), **lease(job), job_type="resize", contract_major=1, payload=types.Content(data=b"{}"),
        pool="default", priority=5, job_partition=0, lease_seconds=6.0, queued_at=Instant(1), reason="least loaded of 1",
    )  # fmt: skip


def registered() -> Any:
    return types.RunnerRegistered(
        header=header("RunnerRegistered", "r1"), runner_id="r1", name="media", pool="default", slots=4, labels={}, capabilities=(),
        inbox_partition=0, heartbeat_seconds=2.0,
    )  # fmt: skip


def heartbeat() -> Any:
    return types.RunnerHeartbeat(
        header=header("RunnerHeartbeat", "r1"), runner_id="r1", sequence=1, attempt_ids=("a/1",), draining=False
    )


def rejected(job: str) -> Any:
    error = envelope("handler_failed", "Nobody can.", error_id=job)
    return types.JobRejected(header=header("JobRejected", job), job_id=job, error=error)


STORY: tuple[tuple[float, Any], ...] = (
    (-50, submitted("old", "import")),
    (-40, registered()),
    (0.5, submitted("a")),
    (2.5, submitted("b")),
    (3, routed("a")),
    (3.1, types.AttemptStarted(header=header("AttemptStarted", "a"), **lease("a"))),
    (4.5, heartbeat()),
    (5, rejected("old")),
    (7.5, types.JobCompleted(header=header("JobCompleted", "a"), **lease("a"), result=types.Content(data=b"1"))),
)


@pytest.fixture
def store() -> Iterator[Store]:
    made, decoder = Store(":memory:"), Decoder()
    offsets: dict[str, int] = {}
    records = []
    for second, event in STORY:
        topic = EVENT_TYPES[type(event).__name__].topic.name
        offset = offsets[topic] = offsets.get(topic, -1) + 1
        at = int((BEGUN + timedelta(seconds=second)).timestamp() * 1000)
        records.append(
            SimpleNamespace(
                topic=topic, partition=0, offset=offset, timestamp=at, key=record_key(event), value=encode(event)
            )
        )
    made.write(decoder.decode(records), {(topic, 0): last + 1 for topic, last in offsets.items()})
    yield made
    decoder.close()
    made.close()


def test_every_second_of_a_window_is_counted_where_it_belongs(store: Store) -> None:
    with store.snapshot() as cursor:
        found = activity(cursor, BEGUN + timedelta(seconds=10), 10, 5)
    rows = found["buckets"]
    assert [row.at for row in rows] == [BEGUN + timedelta(seconds=2 * number) for number in range(5)]
    assert [row.submitted for row in rows] == [1, 1, 0, 0, 0]
    assert [row.started for row in rows] == [0, 1, 0, 0, 0]
    assert [row.completed for row in rows] == [0, 0, 0, 1, 0]
    assert [row.failed for row in rows] == [0, 0, 1, 0, 0]
    assert [row.records for row in rows] == [1, 3, 2, 1, 0]
    assert [row.waiting for row in rows] == [2, 2, 1, 1, 1], (
        "a until it is routed, b for ever, the old one until it is rejected"
    )
    assert [(row.busy, row.slots) for row in rows] == [(None, None), (None, None), (1, 4), (None, None), (None, None)]
    assert [row.median_seconds for row in rows] == [
        None,
        None,
        pytest.approx(55, rel=0.03),
        pytest.approx(7, rel=0.03),
        None,
    ]
    assert (found["median_seconds"], found["p99_seconds"]) == (pytest.approx(7, rel=0.03), pytest.approx(55, rel=0.03))
    assert found["open"] == {Phase.SUBMITTED: 1}
    assert found["concluded"] == {Phase.COMPLETED: 1, Phase.REJECTED: 1}
    assert [(one.job_type, one.waiting, one.running, one.completed, one.failed) for one in found["types"]] == [
        ("resize", 1, 0, 1, 0), ("import", 0, 0, 0, 1),
    ]  # fmt: skip


def test_a_window_in_which_nothing_happened_is_empty(store: Store) -> None:
    with store.snapshot() as cursor:
        found = activity(cursor, BEGUN + timedelta(hours=2), 60, 6)
    assert [row.records for row in found["buckets"]] == [0] * 6
    assert [row.waiting for row in found["buckets"]] == [1] * 6, "b waits still"
    assert (found["median_seconds"], found["concluded"]) == (None, {})


@pytest.mark.parametrize(
    ("filters", "jobs"),
    [
        ({}, ["a", "b", "old"]),
        ({"job_type": "resize"}, ["a", "b"]),
        ({"phase": "REJECTED"}, ["old"]),
        ({"search": "IMPO"}, ["old"]),
        ({"search": "nobody can"}, ["old"]),
        ({"search": "' OR 1=1 --"}, []),
        ({"search": "resize", "phase": "COMPLETED"}, ["a"]),
    ],
)
def test_jobs_are_counted_as_they_are_listed(filters: dict[str, str | None], jobs: list[str], store: Store) -> None:
    with store.snapshot() as cursor:
        counts = job_counts(cursor, filters)
        listed, _ = job_page(cursor, filters, 50, None)
    assert sorted(one.job_id for one in listed) == jobs
    assert sum(counts.values()) == len(jobs)
    assert {one.phase for one in listed} == counts.keys()
