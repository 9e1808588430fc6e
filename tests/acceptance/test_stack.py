"""The system as a user meets it: the command, the HTTP interface, wrong input, and other people's tools."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from controlplane.cli.stack import SystemStack
from controlplane.client import Client, ControlPlaneError
from controlplane.events.catalog import Service
from controlplane.log.producer import LogProducer, OutgoingRecord
from controlplane.settings import Settings
from tests.acceptance.security import SECURITY, identity_files, kafka_settings

WAIT_SECONDS = 30.0


@pytest.fixture(scope="module", params=SECURITY)
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemStack]:
    settings = Settings(secure=request.param)
    with (
        SystemStack(settings, tmp_path_factory.mktemp("stack"), free_ports=True) as running,
        running.client() as client,
    ):
        running.add_runner("runner", "tests.acceptance.handlers:runner")
        until(lambda: client.runners().runners)
        time.sleep(1.0)  # JobForge reads the same registration as TruthCore.
        yield running


@pytest.fixture
def client(stack: SystemStack) -> Iterator[Client]:
    with stack.client() as one:
        yield one


def until(look: Any) -> Any:
    """Return what `look` finds, once it finds something."""
    give_up_at = time.monotonic() + WAIT_SECONDS
    while not (found := look()):
        assert time.monotonic() < give_up_at, "Expected it within the bound, but it did not come."
        time.sleep(0.05)
    return found


def command(stack: SystemStack, *arguments: str) -> tuple[int, Any]:
    """Run the command with --json; returns its exit code and its document."""
    done = subprocess.run(
        [sys.executable, "-m", "controlplane.cli.main", *arguments, "--json"],
        env={"PATH": "/usr/bin:/bin", **stack.environment()}, cwd=Path.cwd(), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_job_runs_and_every_step_is_caused_by_an_earlier_record(client: Client) -> None:
    handle = client.submit("test.nap", {"seconds": 0.01})
    assert handle.result(WAIT_SECONDS) == {"slept": 0.01}
    until(lambda: len(list(walk(client.why(job=handle.job_id).tree))) >= 8)
    nodes = list(walk(client.why(job=handle.job_id).tree))
    kinds = {node.event.event_type for node in nodes}
    assert kinds == {
        "JobSubmitted",
        "JobAccepted",
        "JobRouted",
        "AttemptStarted",
        "AttemptSucceeded",
        "JobCompleted",
        "TruthAsserted",
    }
    known = {node.event.position for node in nodes}
    assert [node.event.event_type for node in nodes if node.event.causation not in known] == ["JobSubmitted"]
    truth = next(node for node in nodes if node.event.event_type == "TruthAsserted")
    chain = client.why(assertion=truth.event.event_id).chain
    assert [one.event_type for one in chain] == ["JobSubmitted", "JobRouted", "AttemptSucceeded", "TruthAsserted"]


def walk(node: Any) -> Iterator[Any]:
    yield node
    for effect in node.effects:
        yield from walk(effect)


def test_the_same_id_is_the_same_job(client: Client) -> None:
    first, again = (client.submit("test.nap", {"seconds": 0}, job_id="same-1") for _ in range(2))
    assert again.result(WAIT_SECONDS) == first.result(WAIT_SECONDS)
    events = [one for one in client.why(job="same-1").tree.effects if one.event.event_type == "JobAccepted"]
    assert len(events) == 1


@pytest.mark.parametrize(
    ("job_type", "payload", "options", "code"),
    [
        ("test.unknown", {}, {}, "job_type_unknown"),
        ("test.nap", {"seconds": 1}, {"contract_major": 9}, "contract_version_unknown"),
        ("test.fail", {"seconds": 1}, {}, "handler_failed"),
    ],
)
def test_what_cannot_be_done_gets_its_envelope(
    client: Client, job_type: str, payload: Any, options: Any, code: str
) -> None:
    job = client.submit(job_type, payload, **options).wait(WAIT_SECONDS)
    assert job.phase in ("REJECTED", "FAILED")
    assert job.error is not None
    assert job.error["code"] == code
    assert job.error["message"].startswith("Expected ")


def test_a_wrong_payload_is_refused_at_the_edge_naming_the_field(client: Client) -> None:
    with pytest.raises(ControlPlaneError) as refused:
        client.submit("test.nap", {"seconds": "long"})
    assert (refused.value.status, refused.value.code, refused.value.field) == (
        422,
        "payload_invalid",
        "payload.seconds",
    )


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nowhere", None, 404),
        ("PUT", "/v1/jobs", None, 405),
        ("POST", "/v1/jobs", b"{", 422),
        ("POST", "/v1/jobs", b'{"job_type": "no spaces allowed"}', 422),
        ("POST", "/v1/jobs", b"x" * (17 * 1024 * 1024), 413),
        ("GET", "/v1/jobs/never-seen", None, 404),
        ("GET", "/v1/jobs?limit=0", None, 422),
        ("GET", "/v1/jobs?min_position=controlplane.jobs/0/999999999&wait_seconds=0.1", None, 503),
        ("GET", "/v1/events/controlplane.jobs/0/99999999999", None, 404),
        ("POST", "/v1/sql", b'{"sql": "DROP TABLE events"}', 422),
        ("POST", "/v1/sql", b'{"sql": "SELECT * FROM read_csv(\'/etc/passwd\')"}', 422),
        ("POST", "/v1/sql", b'{"sql": "SELECT 1; SELECT 2"}', 422),
    ],
)
def test_every_error_is_an_envelope(
    stack: SystemStack, method: str, path: str, body: bytes | None, status: int
) -> None:
    headers = {"content-type": "application/json"}
    answer = httpx.request(
        method, stack.gateway_url + path, content=body, headers=headers, timeout=60, verify=stack.verification()
    )
    problem = answer.json()
    assert answer.status_code == status, problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"code", "message", "error_id", "category", "severity", "retryable", "contract_version"} <= problem.keys()
    assert (status == 503) == ("retry-after" in answer.headers)


def test_garbage_on_every_topic_is_kept_aside_and_the_flow_goes_on(stack: SystemStack, client: Client) -> None:
    async def spoil() -> None:
        producer = LogProducer(stack.connection(), service=Service.CLIENT)
        await producer.start()
        topics = ("submissions", "progress", "runners", "truth", "jobs", "routing", "joblogs")
        await producer.send(
            [OutgoingRecord(topic=f"controlplane.{name}", partition=0, key=b"k", value=b"garbage") for name in topics]
        )
        await producer.stop()

    asyncio.run(spoil())
    letters = until(lambda: client.request("GET", "/v1/deadletters")["events"])
    assert letters[0]["event"]["error"]["code"] == "record_undecodable"
    wanted = {f"controlplane.{name}" for name in ("submissions", "progress", "runners", "truth")}
    until(lambda: wanted <= _refused_topics(client))
    assert client.submit("test.nap", {"seconds": 0}).result(WAIT_SECONDS) == {"slept": 0.0}


def _refused_topics(client: Client) -> set[str]:
    letters = client.request("GET", "/v1/deadletters")["events"]
    return {one["event"]["position"]["topic"] for one in letters}


def test_a_client_asserts_and_retracts(client: Client) -> None:
    declared = client.declare_predicate("height", cardinality="SINGLE", unit="m")
    said = client.assert_truth("tower:eiffel", "height", 330, 0.9, unit="m", source="survey")
    (truth,) = client.truths("tower:eiffel", "height", min_position=(declared.position, said.position))
    assert (truth.value, truth.unit, truth.rule, truth.conflict) == (330, "m", "BAYES", False)
    body = {"subject": "tower:eiffel", "source": "survey"}
    gone = client.request("POST", f"/v1/assertions/{said.event_id}/retract", body=body)
    assert client.truths("tower:eiffel", "height", min_position=gone["position"]) == []


def test_stock_tools_read_every_topic_with_the_registry_alone(stack: SystemStack, client: Client) -> None:
    client.submit("test.nap", {"seconds": 0}).result(WAIT_SECONDS)
    registry = SchemaRegistryClient({"url": stack.gateway_url, **identity_files(stack)})
    deserialise = AvroDeserializer(registry)
    consumer = Consumer({
        "group.id": "stock", "enable.auto.commit": False, **kafka_settings(stack)
    })  # fmt: skip
    found: set[str] = set()
    for name in ("submissions", "jobs", "routing", "progress", "runners", "truth"):
        topic = f"controlplane.{name}"
        partitions = consumer.list_topics(topic).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        for message in consumer.consume(50, timeout=5.0):
            if message.value() != b"garbage":
                event = deserialise(message.value(), SerializationContext(topic, MessageField.VALUE))
                found.add(name)
                assert event["header"]["event_id"]
    consumer.close()
    registry.close()
    assert len(found) == 6


def test_the_command_submits_waits_explains_and_audits(stack: SystemStack) -> None:
    code, job = command(stack, "submit", "test.nap", "--payload", '{"seconds": 0}', "--job-id", "cli-1", "--wait")
    assert (code, job["phase"]) == (0, "COMPLETED")
    assert command(stack, "job", "cli-1")[1]["result"] == {"slept": 0.0}
    assert any(one["job_id"] == "cli-1" for one in command(stack, "jobs")[1])
    assert command(stack, "why", "cli-1")[1]["tree"]["event"]["event_type"] == "JobSubmitted"
    assert command(stack, "truth", "job:cli-1")[1][0]["value"] == "completed"
    code, verdict = command(stack, "audit", "verify")
    assert (code, verdict["agrees"]) == (0, True)
    code, refused = command(stack, "job", "never-seen")
    assert (code, refused["error"]["code"]) == (1, "not_found")
    code, refused = command(stack, "submit", "test.nap", "--payload", "{not json")
    assert (code, refused["error"]["message"][:8]) == (2, "Expected")


def test_health_says_what_each_service_depends_on(stack: SystemStack) -> None:
    for url in (stack.gateway_url, stack.truthcore_url):
        health = httpx.get(f"{url}/health", verify=stack.verification()).json()
        assert (health["state"], bool(health["dependencies"])) == ("ok", True)
        assert "python_info" in httpx.get(f"{url}/metrics", verify=stack.verification()).text
