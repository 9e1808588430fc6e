"""The process itself on a real log: killed and started again, it answers for every record once, garbage beside it or not."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import httpx
import pytest

from controlplane.api.models import DigestAnswer
from controlplane.events import types
from controlplane.events.catalog import Service
from controlplane.events.codec import encode
from controlplane.events.header import Cause, caused_header, outside_header
from controlplane.events.identity import Instant
from controlplane.events.types import LogPosition, Producer
from controlplane.local.ports import choose_port
from controlplane.log.connection import LogConnection
from controlplane.log.positions import position_text
from controlplane.log.producer import LogProducer, OutgoingRecord
from controlplane.log.topics import ensure_topics
from controlplane.settings import Settings
from controlplane.truthcore_projector.replay import verify

PRODUCER = Producer(service="test", version="0")
PROGRAM = "from controlplane.settings import settings; from controlplane.truthcore_projector.service import run; run(settings())"
T = TypeVar("T")


def header(name: str, identity: str, cause: LogPosition | None = None) -> types.EventHeader:
    if cause is None:
        return outside_header(name, identity, PRODUCER, Instant(1), correlation_id="chain")
    return caused_header(Cause(position=cause, correlation_id="chain"), name, 0, PRODUCER, Instant(1))


class Log:
    """Writes records as the services would."""

    def __init__(self, bootstrap: str) -> None:
        self.connection = LogConnection(bootstrap=bootstrap)

    def write(self, story: Callable[[LogProducer], Any]) -> Any:
        async def written() -> Any:
            await ensure_topics(self.connection, Settings(kafka_bootstrap=self.connection.bootstrap))
            producer = LogProducer(self.connection, service=Service.GATEWAY)
            await producer.start()
            try:
                return await story(producer)
            finally:
                await producer.stop()

        return asyncio.run(written())

    def job(self, job: str) -> list[LogPosition]:
        async def story(producer: LogProducer) -> list[LogPosition]:
            lease: dict[str, Any] = {"job_id": job, "attempt_id": f"{job}-a", "attempt_number": 1, "runner_id": "r"}
            submitted = await producer.publish(
                types.JobSubmitted(
                    header=header("JobSubmitted", job),
                    job_id=job,
                    job_type="noop",
                    payload=types.Content(data=b'{"n":1}'),
                )
            )
            started = await producer.publish(
                types.AttemptStarted(header=header("AttemptStarted", job, submitted), **lease)
            )
            concluded = await producer.publish(
                types.JobCompleted(
                    header=header("JobCompleted", job, started), **lease, result=types.Content(data=b'{"ok":true}')
                )
            )
            asserted = await producer.publish(asserts(job, "width", "640", "camera", 0.9, concluded))
            return [submitted, started, concluded, asserted]

        positions: list[LogPosition] = self.write(story)
        return positions

    def raw(self, *records: OutgoingRecord) -> list[LogPosition]:
        async def story(producer: LogProducer) -> list[LogPosition]:
            return await producer.send(records)

        positions: list[LogPosition] = self.write(story)
        return positions


def asserts(
    subject: str, predicate: str, text: str, source: str, confidence: float, cause: LogPosition | None = None
) -> types.TruthAsserted:
    return types.TruthAsserted(
        header=header("TruthAsserted", f"{subject}/{predicate}/{source}/{text}", cause), subject=subject, predicate=predicate,
        object=types.TypedValue(kind=types.ValueKind.STRING, text=text), confidence=confidence,
        source=types.Source(kind=types.SourceKind.CLIENT, name=source), evidence=types.Evidence(),
    )  # fmt: skip


class TruthCore:
    """One TruthCore process on a database of its own."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.port = choose_port(None)
        self.environment = os.environ | {
            "CONTROLPLANE_KAFKA_BOOTSTRAP": bootstrap, "CONTROLPLANE_DATA_DIR": str(folder),
            "CONTROLPLANE_TRUTHCORE_PORT": str(self.port),
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM], env=self.environment)
        self.until(lambda: self.client.get("/health/ready").status_code == 200)

    def stop(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def until(self, met: Callable[[], bool]) -> None:
        """Wait until a condition is met; the limit is only there so that a failure ends."""
        deadline = time.monotonic() + 90
        while True:
            try:
                if met():
                    return
            except httpx.TransportError:
                pass
            assert self.process is not None
            assert self.process.poll() is None, "Expected TruthCore to run, but it ended."
            assert time.monotonic() < deadline, "Expected the condition to be met, but it was not."
            time.sleep(0.05)

    def get(self, path: str, *after: LogPosition, **parameters: Any) -> Any:
        wanted = [position_text(position) for position in after]
        answer = self.client.get(path, params={**parameters, "min_position": wanted, "wait_seconds": 30})
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextmanager
def running(bootstrap: str, folder: Path) -> Iterator[TruthCore]:
    service = TruthCore(bootstrap, folder)
    service.start()
    try:
        yield service
    finally:
        service.client.close()
        if service.process is not None and service.process.poll() is None:
            service.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def truthcore(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TruthCore]:
    with running(kafka_bootstrap, tmp_path_factory.mktemp("truthcore")) as service:
        yield service


@pytest.fixture
def log(kafka_bootstrap: str) -> Log:
    return Log(kafka_bootstrap)


def test_a_job_is_told_with_its_cause_and_its_truth(truthcore: TruthCore, log: Log, namespace: str) -> None:
    submitted, started, concluded, asserted = log.job(namespace)
    job = truthcore.get(f"/v1/jobs/{namespace}", submitted, started, concluded)
    assert (job["job"]["phase"], job["job"]["payload"], job["job"]["result"]) == ("COMPLETED", {"n": 1}, {"ok": True})
    assert job["reflects"]["positions"][concluded.topic][str(concluded.partition)] > concluded.offset
    why = truthcore.get("/v1/causation", asserted, event=position_text(asserted))
    assert [one["event_type"] for one in why["chain"]] == [
        "JobSubmitted",
        "AttemptStarted",
        "JobCompleted",
        "TruthAsserted",
    ]
    down = truthcore.get("/v1/causation", job=namespace)["tree"]
    assert down["effects"][0]["effects"][0]["effects"][0]["event"]["position"] == position_text(asserted)
    (truth,) = truthcore.get("/v1/truths", subject=namespace, predicate="width")["truths"]
    assert (truth["value"], truth["confidence"], truth["rule"]) == ("640", 0.9, "LATEST")


def test_an_earlier_answer_can_be_asked_for_again(truthcore: TruthCore, log: Log, namespace: str) -> None:
    async def story(producer: LogProducer) -> list[LogPosition]:
        return [
            await producer.publish(asserts(namespace, "colour", "red", "eye", 0.6)),
            await producer.publish(asserts(namespace, "colour", "blue", "camera", 0.8)),
        ]

    first, second = log.write(story)
    now = truthcore.get("/v1/truths", second, subject=namespace)["truths"]
    then = truthcore.get("/v1/truths", subject=namespace, as_of=position_text(first))["truths"]
    assert [one["value"] for one in (*now, *then)] == ["blue", "red"]
    assert (now[0]["conflict"], then[0]["conflict"]) == (True, False)
    refused = truthcore.client.get("/v1/truths", params={"as_of": "yesterday"})
    assert (refused.status_code, refused.json()["code"]) == (422, "request_invalid")


def test_a_position_that_is_not_there_yet_is_said(truthcore: TruthCore) -> None:
    answer = truthcore.client.get(
        "/v1/jobs", params={"min_position": f"controlplane.jobs/0/{2**40}", "wait_seconds": 0.1}
    )
    assert (answer.status_code, answer.json()["code"]) == (503, "projection_behind")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Retry-After" in answer.headers


@pytest.mark.parametrize(
    "sql",
    [
        "WITH gone AS (DELETE FROM events RETURNING 1) SELECT * FROM gone",
        "DROP TABLE events",
        "SELECT 1; SELECT 2",
        "SELECT * FROM read_text('/etc/hostname')",
        "COPY events TO 'events.csv'",
        "SET memory_limit = '99GB'",
        "SELEC",
    ],
)
def test_sql_reads_the_tables_and_nothing_else(truthcore: TruthCore, log: Log, namespace: str, sql: str) -> None:
    written = log.job(namespace)
    answer = truthcore.client.post("/v1/sql", json={"sql": sql})
    assert (answer.status_code, answer.json()["code"]) == (422, "request_invalid"), answer.text
    found = truthcore.client.post(
        "/v1/sql", json={"sql": f"SELECT count(*) FROM events WHERE correlation_id = 'chain' AND key = encode('{namespace}')"},
        params={"min_position": [position_text(one) for one in written], "wait_seconds": 30},
    ).json()  # fmt: skip
    assert found["rows"] == [[4]]


def test_garbage_is_kept_and_lettered_and_the_partition_goes_on(truthcore: TruthCore, log: Log, namespace: str) -> None:
    poison = encode(asserts(namespace, "p", "v", "s", 1.0))
    records = [
        OutgoingRecord(topic="controlplane.truth", partition=0, key=namespace.encode(), value=value)
        for value in (b"garbage", poison + b"\0", poison[:-1], encode(submission(namespace)))
    ]
    positions = log.raw(*records)
    truthcore.get("/v1/jobs", *log.job(namespace), positions[-1])
    wanted = {position_text(position) for position in positions}

    def lettered() -> bool:
        letters = truthcore.get("/v1/deadletters", limit=100)["events"]
        keys = [one["key"] for one in letters if one["key"] in wanted]
        assert len(keys) == len(set(keys)), "Expected one letter for each record."
        return set(keys) == wanted

    truthcore.until(lettered)
    kept = truthcore.get(f"/v1/events/{position_text(positions[0])}")["event"]
    assert (kept["event_type"], kept["event"]["value"]) == ("UNDECODABLE", "garbage")


def submission(job: str) -> types.JobSubmitted:
    return types.JobSubmitted(
        header=header("JobSubmitted", job), job_id=job, job_type="noop", payload=types.Content(data=b"{}")
    )


def test_killed_again_and_again_it_equals_a_replay(
    kafka_bootstrap: str, tmp_path: Path, log: Log, namespace: str
) -> None:
    with running(kafka_bootstrap, tmp_path) as service:
        written = list(log.job(f"{namespace}-0"))
        for number in range(1, 4):
            written += log.job(f"{namespace}-{number}")
            service.stop(signal.SIGKILL)
            service.start()
        live = DigestAnswer.model_validate(service.get("/v1/digest", *written))
        verdict = asyncio.run(verify(log.connection, live))
        assert verdict.agrees, verdict.tables
        assert verdict.records == sum(sum(some.values()) for some in live.reflects.positions.values())
        (count,) = service.client.post(
            "/v1/sql", json={"sql": f"SELECT count(*) FROM conclusions WHERE job_id LIKE '{namespace}-%'"}
        ).json()["rows"]
        assert count == [4]
        assert service.stop(signal.SIGTERM) == 0


def test_a_changed_row_is_found_by_the_audit(kafka_bootstrap: str, tmp_path: Path, log: Log, namespace: str) -> None:
    written = log.job(namespace)
    with running(kafka_bootstrap, tmp_path) as service:
        service.get("/v1/jobs", *written)
        assert service.stop(signal.SIGTERM) == 0
        with duckdb.connect(str(tmp_path / "truthcore.duckdb")) as database:
            database.execute("UPDATE assertions SET text = '641' WHERE subject = ?", [namespace])
        service.start()
        live = DigestAnswer.model_validate(service.get("/v1/digest", *written))
        verdict = asyncio.run(verify(log.connection, live))
        assert not verdict.agrees
        assert [one["table"] for one in verdict.tables if not one["agrees"]] == ["assertions"]
