"""One trace per job, over HTTP and Kafka and four processes, as a real OTLP collector receives it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.cli.stack import SystemStack
from controlplane.client import Client
from controlplane.settings import Settings
from tests.acceptance.collector import Collector, Received
from tests.acceptance.test_gateway import until

PROGRAM = """
import sys
from opentelemetry import trace
from controlplane.client import Client
with Client(sys.argv[1]) as client:
    with trace.get_tracer("theirs").start_as_current_span("their request") as span:
        print(f"{span.get_span_context().trace_id:032x}")
        job = client.submit("test.nap", {"seconds": 0})
    print(job.job_id)
    job.result(60)
    many = client.submit_many([{"job_type": "test.nap", "payload": {"seconds": 0}} for _ in range(5)])
    for one in many:
        one.result(60)
"""


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Collector, str, str]]:
    """The spans of a traced job in the end, the id of its trace and its own."""
    variables = {"CONTROLPLANE_TRACING": "otlp", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with Collector() as collector, pytest.MonkeyPatch.context() as patched:
        for name, value in {**variables, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}.items():
            patched.setenv(name, value)
        with SystemStack(Settings(), tmp_path_factory.mktemp("stack"), free_ports=True) as stack:
            stack.add_runner("runner", "tests.acceptance.handlers:runner")
            with Client(stack.gateway_url, tls=stack.tls()) as client:
                until(lambda: client.runners().runners)
            argv = [sys.executable, "-c", PROGRAM, stack.gateway_url]
            said = subprocess.run(
                argv, capture_output=True, text=True, check=False, timeout=110, env=environment(stack)
            )
            assert said.returncode == 0, said.stderr
            trace, job_id = said.stdout.split()
            until(
                lambda: (
                    {"process controlplane.progress", "create controlplane.jobs"}
                    <= {one.name for one in collector.of_trace(trace)}
                )
            )
            settled(collector)
            yield collector, trace, job_id


def environment(stack: SystemStack) -> dict[str, str]:
    return {**os.environ, **stack.environment(), "PYTHONPATH": str(Path.cwd())}


def settled(collector: Collector) -> None:
    """Wait until no span came for a while: each process sends what it has ten times a second."""
    seen = -1
    while seen != len(collector.spans):
        seen = len(collector.spans)
        time.sleep(1.5)


def path_of(spans: dict[str, Received], one: Received) -> list[str]:
    names = [one.name]
    while one.parent:
        one = spans[one.parent]
        names.append(one.name)
    return [
        name for name in reversed(names) if not name.startswith("fastapi.")
    ]  # Newer versions add spans of their own.


def test_the_spans_of_a_job_are_one_tree(traced: tuple[Collector, str, str]) -> None:
    collector, trace, job_id = traced
    spans = {one.id: one for one in collector.of_trace(trace)}
    roots = [one.name for one in spans.values() if not one.parent]
    assert roots == ["their request"]
    assert [one.name for one in spans.values() if one.parent and one.parent not in spans] == []
    assert {one.service for one in spans.values()} == {
        "controlplane-client", "controlplane-gateway", "controlplane-jobforge", "controlplane-runner-acceptance"
    }  # fmt: skip
    conclusion = next(
        one for one in spans.values()
        if one.name == "create controlplane.jobs" and spans[one.parent].name == "process controlplane.progress"
    )  # fmt: skip
    assert path_of(spans, conclusion) == [
        "their request", "POST /v1/jobs", "POST /v1/jobs", "send controlplane.submissions", "process controlplane.submissions",
        "send controlplane.routing", "process controlplane.routing", conclusion_sent(spans, conclusion), "process controlplane.progress",
        "create controlplane.jobs",
    ]  # fmt: skip
    assert conclusion.attributes["messaging.kafka.message.key"] == job_id


def conclusion_sent(spans: dict[str, Received], conclusion: Received) -> str:
    """The runner may send its last observation alone or together with others."""
    name = spans[spans[conclusion.parent].parent].name
    assert name in {"send controlplane.progress", "create controlplane.progress"}
    return name


def test_they_speak_the_conventions_for_messaging(traced: tuple[Collector, str, str]) -> None:
    collector, trace, job_id = traced
    spans = collector.of_trace(trace)
    sent = next(one for one in spans if one.name == "send controlplane.submissions")
    read = next(one for one in spans if one.name == "process controlplane.submissions")
    assert (sent.kind, read.kind) == ("producer", "consumer")
    for one, operation in ((sent, "send"), (read, "process")):
        assert one.attributes["messaging.system"] == "kafka"
        assert one.attributes["messaging.operation.type"] == operation
        assert one.attributes["messaging.destination.name"] == "controlplane.submissions"
        assert one.attributes["messaging.kafka.message.key"] == job_id
    same = ("messaging.destination.partition.id", "messaging.kafka.offset")
    assert [sent.attributes[name] for name in same] == [read.attributes[name] for name in same]
    assert read.attributes["messaging.message.conversation_id"] == job_id


def test_batches_link_to_what_they_hold(traced: tuple[Collector, str, str]) -> None:
    collector, trace, _ = traced
    spans = {one.id: one for one in collector.spans}
    ours = {one.id for one in collector.of_trace(trace)}
    polls = [one for one in spans.values() if one.attributes.get("messaging.operation.type") == "receive"]
    assert any(one.links & ours for one in polls)
    batches = [one for one in spans.values() if one.name.startswith("send ") and len(one.links) > 1]
    assert batches
    for batch in batches:
        assert {spans[link].name.split()[0] for link in batch.links} == {"create"}
    assert all(one.attributes["messaging.batch.message_count"] >= len(one.links) for one in [*polls, *batches])
