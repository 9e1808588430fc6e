"""What the projection says of commands, limits, logs and dead letters: records in, answers out."""

from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from controlplane.events import types
from controlplane.events.catalog import EVENT_TYPES, record_key
from controlplane.events.codec import encode
from controlplane.events.errors import envelope
from controlplane.events.types import LogPosition
from controlplane.truthcore_projector.decode import Decoder
from controlplane.truthcore_projector.queries import dead_letter_page, job_views
from controlplane.truthcore_projector.scheduling import Scheduling, job_log
from controlplane.truthcore_projector.store import Store
from tests.unit.truthcore_projector.test_projection import header

BEGIN_MILLISECONDS = 1_700_000_000_000
NOW = datetime.fromtimestamp(BEGIN_MILLISECONDS / 1000 + 60, UTC)
ATTEMPT: dict[str, Any] = {"attempt_id": "a", "attempt_number": 1, "runner_id": "r"}


class Log:
    """A log of one partition per topic, projected record by record."""

    def __init__(self) -> None:
        self.store, self._decoder = Store(":memory:"), Decoder()
        self._next: dict[str, int] = {}

    def take(self, *events: Any) -> None:
        for event in events:
            topic = EVENT_TYPES[type(event).__name__].topic.name
            offset = self._next.get(topic, 0)
            self._next[topic] = offset + 1
            record = SimpleNamespace(
                topic=topic, partition=0, offset=offset, timestamp=BEGIN_MILLISECONDS + offset, key=record_key(event), value=encode(event)
            )  # fmt: skip
            self.store.write(self._decoder.decode([record]), {(topic, 0): offset + 1})

    def close(self) -> None:
        self._decoder.close()
        self.store.close()


@pytest.fixture
def log() -> Iterator[Log]:
    one = Log()
    yield one
    one.close()


def submitted(job_id: str, **options: Any) -> list[Any]:
    return [
        types.JobSubmitted(header=header("JobSubmitted", job_id), job_id=job_id, job_type="t", payload=types.Content(), **options),
        types.JobAccepted(header=header("JobAccepted", job_id), job_id=job_id, job_type="t", pool="default", priority=5),
    ]  # fmt: skip


def routed(job_id: str, attempt_id: str = "a") -> Any:
    return types.JobRouted(
        header=header("JobRouted", attempt_id), job_id=job_id, job_type="t", contract_major=1, payload=types.Content(),
        pool="default", priority=5, slots=2, job_partition=0, lease_seconds=6.0, queued_at=0,
        **(ATTEMPT | {"attempt_id": attempt_id}),
    )  # fmt: skip


def retry_scheduled(job_id: str) -> Any:
    return types.JobRetryScheduled(
        header=header("JobRetryScheduled", job_id), job_id=job_id, error=envelope("handler_failed", "no"),
        due_at=(BEGIN_MILLISECONDS + 3_600_000) * 1000, **ATTEMPT,
    )  # fmt: skip


def phase_of(log: Log, job_id: str) -> tuple[str, int]:
    with log.store.snapshot() as cursor:
        (job,) = job_views(cursor, [job_id], details=True)
        both = cursor.execute("SELECT phase FROM unfinished_jobs WHERE job_id = ?", [job_id]).fetchall()
        assert both in ([], [(job.phase.value,)])  # Both views tell the same.
        return job.phase.value, job.priority


def test_commands_change_where_a_job_stands(log: Log) -> None:
    log.take(
        *submitted("moved"), types.JobReprioritised(header=header("JobReprioritised", "x"), job_id="moved", priority=9)
    )
    assert phase_of(log, "moved") == ("QUEUED", 9)
    log.take(*submitted("late", not_before=(BEGIN_MILLISECONDS + 10**9) * 1000))
    assert phase_of(log, "late") == ("DELAYED", 5)
    log.take(types.JobRetried(header=header("JobRetried", "y"), job_id="late"))
    assert phase_of(log, "late") == ("QUEUED", 5)
    log.take(*submitted("again"), routed("again"), retry_scheduled("again"))
    assert phase_of(log, "again") == ("RETRYING", 5)
    log.take(types.JobRetried(header=header("JobRetried", "z"), job_id="again"))
    assert phase_of(log, "again") == ("QUEUED", 5)


def test_limits_tell_what_counts_against_them(log: Log) -> None:
    pattern = types.LimitDeclared(header=header("LimitDeclared", "l"), subject="key:default/db-*", max_running=3)
    keyed = [one for name in ("1", "2") for one in submitted(name, concurrency_key="db-7")]
    log.take(pattern, *keyed, routed("1"), *submitted("3", concurrency_key="lone"), *submitted("4"))
    with log.store.snapshot() as cursor:
        found = {one.subject: one for one in Scheduling(lambda: NOW, 6.0).limits(cursor, None)}
        only = Scheduling(lambda: NOW, 6.0).limits(cursor, "key:default/lone")
    assert set(found) == {"key:default/db-7", "key:default/db-*", "key:default/lone"}
    limit = found["key:default/db-7"]
    assert (limit.declared, limit.max_running, limit.running, limit.queued) == ("key:default/db-*", 3, 1, 1)
    assert [(one.declared, one.max_running, one.queued) for one in only] == [(None, 1, 1)]
    log.take(types.LimitDeclared(header=header("LimitDeclared", "m"), subject="key:default/db-*"))
    with log.store.snapshot() as cursor:
        assert {one.max_running for one in Scheduling(lambda: NOW, 6.0).limits(cursor, "key:default/db-7")} == {1}


def test_a_jobs_log_comes_in_pages_of_whole_records(log: Log) -> None:
    def logged(attempt_id: str, count: int, dropped: int) -> Any:
        lines = tuple(types.LogLine(at=n, level="INFO", logger="job", message=f"{attempt_id}{n}") for n in range(count))
        head = header("JobLogged", f"{attempt_id}{count}")
        return types.JobLogged(header=head, job_id="j", attempt_id=attempt_id, lines=lines, dropped=dropped)

    log.take(logged("a", 3, 0), logged("a", 2, 4), logged("b", 2, 1))
    with log.store.snapshot() as cursor:
        first, dropped, after = job_log(cursor, "j", 4, None)
        rest, _, end = job_log(cursor, "j", 4, after)
        nothing, _, still = job_log(cursor, "j", 4, end)
    assert [one.message for one in first] == ["a0", "a1", "a2", "a0", "a1"]
    assert ([one.message for one in rest], nothing, dropped) == (["b0", "b1"], [], 5)
    assert still == end


def test_a_dead_letter_is_listed_until_it_is_settled(log: Log) -> None:
    def place(offset: int) -> LogPosition:
        return LogPosition(topic="controlplane.submissions", partition=0, offset=offset)

    for offset in (1, 2):
        log.take(
            types.RecordRefused(
                header=header("RecordRefused", str(offset)), position=place(offset), key=b"k", value=b"?", value_size_bytes=1,
                consumer="jobforge", error=envelope("record_undecodable", "no"),
            )
        )  # fmt: skip
    log.take(types.DeadLetterSettled(header=header("DeadLetterSettled", "s"), position=place(1), reason="gone"))
    with log.store.snapshot() as cursor:
        letters, following = dead_letter_page(cursor, 50, None)
    assert ([one.event["position"]["offset"] for one in letters], following) == ([2], None)
