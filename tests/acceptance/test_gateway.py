"""The gateway's surface on the real stack: idempotency, results that are waited for, live streams, bounds, garbage and slow clients."""

import asyncio
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka
from cloudevents.core.formats.json import JSONFormat
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext

from controlplane.cli.stack import SystemStack
from controlplane.events.codec import decode
from controlplane.log.connection import LogConnection
from controlplane.log.reader import LogReader
from controlplane.log.topics import partition_counts
from controlplane.settings import Settings
from tests.acceptance.fuzzing import fuzz, prepare
from tests.acceptance.security import browsing, identity_files

WAIT_SECONDS = 60.0

pytestmark = pytest.mark.xdist_group("gateway")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemStack]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CONTROLPLANE_CLOUDEVENTS", "true")
        with (
            SystemStack(Settings(), tmp_path_factory.mktemp("stack"), free_ports=True) as running,
            running.client() as client,
        ):
            running.add_runner("runner", "tests.acceptance.handlers:runner")
            until(lambda: client.runners().runners)
            yield running


@pytest.fixture
def http(stack: SystemStack) -> Iterator[httpx.Client]:
    with browsing(stack) as one:
        yield one


def until(look: Any) -> Any:
    give_up_at = time.monotonic() + WAIT_SECONDS
    while not (found := look()):
        assert time.monotonic() < give_up_at, "Expected it within the bound, but it did not come."
        time.sleep(0.1)
    return found


def submitted(http: httpx.Client, seconds: float = 0, headers: dict[str, str] | None = None) -> dict[str, Any]:
    answer = http.post("/v1/jobs", json={"job_type": "test.nap", "payload": {"seconds": seconds}}, headers=headers)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["code"] == code
    assert found["message"].startswith("Expected ")
    return found


def test_one_idempotency_key_is_one_write_with_the_first_answer(http: httpx.Client) -> None:
    key = {"Idempotency-Key": "order-1"}
    first, again = (submitted(http, headers=key) for _ in range(2))
    assert first == again
    other = http.post("/v1/jobs", json={"job_type": "test.nap", "payload": {"seconds": 1}}, headers=key)
    problem(other, 409, "duplicate_with_other_content")
    said = {"subject": "tower:eiffel", "predicate": "height", "value": 330}
    asserted = [http.post("/v1/assertions", json=said, headers=key).json()["position"] for _ in range(2)]
    assert asserted[0] == asserted[1]
    cancelled = [
        http.post(f"/v1/jobs/{first['job_id']}/cancel", json={}, headers=key).json()["position"] for _ in range(2)
    ]
    assert cancelled[0] == cancelled[1]


def test_a_result_is_waited_for(http: httpx.Client) -> None:
    job = submitted(http, 0.5)
    asked = {"wait_seconds": 30, "min_position": job["position"]}
    found = http.get(f"/v1/jobs/{job['job_id']}/result", params=asked)
    assert (found.status_code, found.json()["result"], found.json()["concluded"]) == (200, {"slept": 0.5}, True)
    late = submitted(http, 10)
    asked = {"wait_seconds": 0, "min_position": late["position"]}
    until(lambda: http.get(f"/v1/jobs/{late['job_id']}/result", params={"wait_seconds": 0}).status_code != 404)
    found = http.get(f"/v1/jobs/{late['job_id']}/result", params={"wait_seconds": 0.2})
    assert (found.status_code, found.json()["concluded"]) == (202, False)
    http.post(f"/v1/jobs/{late['job_id']}/cancel", json={"kill": True})
    problem(http.get("/v1/jobs/never-seen/result", params={"wait_seconds": 0}), 404, "not_found")


def told(http: httpx.Client, path: str, **asked: Any) -> tuple[list[dict[str, Any]], str, dict[str, Any]]:
    """Return the events of a whole stream, the id of the last of them, and its last words."""
    headers = {"Last-Event-ID": asked.pop("last_event_id")} if "last_event_id" in asked else {}
    events, last, end, name, identity = [], "", {}, "", ""
    with http.stream("GET", path, params=asked, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            match line.partition(": "):
                case ("id", _, text):
                    identity = text
                case ("event", _, text):
                    name = text
                case ("data", _, text) if name == "end":
                    end = json.loads(text)
                case ("data", _, text):
                    events.append(json.loads(text))
                    last = identity
    return events, last, end


def in_partitions(events: list[dict[str, Any]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for one in events:
        partition, _, offset = one["position"].rpartition("/")
        found.setdefault(partition, []).append(int(offset))
    return found


def test_a_job_is_streamed_from_its_beginning_to_its_end_and_resumed_without_a_gap(http: httpx.Client) -> None:
    job = submitted(http, 0.3)
    path = f"/v1/jobs/{job['job_id']}/events/stream"
    events, _, end = told(http, path, min_position=job["position"], max_seconds=60)
    kinds = [one["event_type"] for one in events]
    assert end["reason"] == "concluded"
    assert kinds[0] == "JobSubmitted"
    assert {"JobAccepted", "JobRouted", "AttemptStarted", "AttemptSucceeded", "JobCompleted", "TruthAsserted"} <= set(
        kinds
    )
    assert len({one["position"] for one in events}) == len(events)
    whole, _, _ = told(http, path, max_seconds=2, last_event_id=events[0]["position"])
    assert {one["position"] for one in whole} >= {one["position"] for one in events[1:]}
    again_in_order = in_partitions(whole)
    for partition, offsets in in_partitions(events[1:]).items():  # Only within one is there an order.
        assert again_in_order[partition][-len(offsets) :] == offsets
    before_its_end = end["resume"].removesuffix(";end")
    nothing, _, again = told(http, path, max_seconds=60, last_event_id=before_its_end)
    assert (nothing, again["reason"]) == ([], "concluded")
    for _ in range(2):  # What an EventSource does not connect again after.
        answer = http.get(path, headers={"Last-Event-ID": end["resume"]})
        assert (answer.status_code, answer.content) == (204, b"")
    other = submitted(http, 0.3)
    _, _, end = told(http, f"/v1/jobs/{other['job_id']}/events/stream", max_seconds=60, last_event_id=end["resume"])
    assert end["reason"] == "concluded"


def test_the_log_is_streamed_by_filters_and_resumed_exactly(http: httpx.Client) -> None:
    _, _, first = told(http, "/v1/events/stream", topic="controlplane.submissions", max_seconds=0.2)
    jobs = [submitted(http) for _ in range(5)]
    asked = {"topic": "controlplane.submissions", "event_type": "JobSubmitted", "max_seconds": 1.0}
    events, last, end = told(http, "/v1/events/stream", last_event_id=first["resume"], **asked)
    assert end["reason"] == "time"
    assert {one["position"] for one in events} == {one["position"] for one in jobs}
    again, _, _ = told(http, "/v1/events/stream", last_event_id=last, **asked)
    assert again == []
    chain = {"correlation_id": jobs[0]["job_id"], "max_seconds": 1.0, "last_event_id": first["resume"]}
    events, _, _ = told(http, "/v1/events/stream", **chain)
    assert {one["correlation_id"] for one in events} == {jobs[0]["job_id"]}


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"topic": "nowhere"}, 422, "request_invalid"),
        ({"last_event_id": "jobs:99=5;nowhere:1=1"}, 200, ""),
        ({"last_event_id": "jobs:0=999999999999"}, 404, "not_found"),
        ({"last_event_id": "controlplane.jobs/0/999999999999"}, 404, "not_found"),
        ({"last_event_id": "yesterday"}, 422, "request_invalid"),
    ],
)
def test_a_stream_that_cannot_be_is_refused(http: httpx.Client, asked: dict[str, str], status: int, code: str) -> None:
    headers = {"Last-Event-ID": asked.pop("last_event_id")} if "last_event_id" in asked else {}
    answer = http.get("/v1/events/stream", params={**asked, "max_seconds": 0.1}, headers=headers)
    if status == 200:
        assert answer.status_code == 200
    else:
        problem(answer, status, code)


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "code"),
    [
        ("POST", "/v1/jobs", {"content-type": "text/xml"}, b"<job/>", 415, "unsupported_media_type"),
        ("GET", "/v1/jobs", {"accept": "text/csv"}, None, 406, "not_acceptable"),
        ("POST", "/v1/jobs", {}, b'{"job_type": "t", "payload": ' + b"[" * 300 + b"]" * 300 + b"}", 422, "request_invalid"),
        ("POST", "/v1/jobs", {}, b'{"job_type": "t", "payload": NaN}', 422, "request_invalid"),
        ("POST", "/v1/jobs", {}, b'{"job_type": "t", "payload": 1e999}', 422, "request_invalid"),
        ("POST", "/v1/jobs", {}, b'{"job_type": "t", "payload": "\\ud800"}', 422, "request_invalid"),
        ("POST", "/v1/jobs", {}, b'{"job_type": "t", "priority": "5"}', 422, "request_invalid"),
        ("PUT", "/v1/jobs", {}, b"{}", 405, "method_not_allowed"),
        ("GET", "/v1/jobs/some/cancel", {}, None, 405, "method_not_allowed"),
        ("GET", "/v1/schedules?min_position=controlplane.controls/0/999999&wait_seconds=0.1", {}, None, 503, "projection_behind"),
        ("GET", "/v1/jobs?limit=1001", {}, None, 422, "request_invalid"),
        ("GET", "/v1/jobs?cursor=nonsense", {}, None, 422, "request_invalid"),
    ],
)  # fmt: skip
def test_bounds_are_told_as_envelopes(
    http: httpx.Client, method: str, path: str, headers: dict[str, str], body: bytes | None, status: int, code: str
) -> None:
    given = {"content-type": "application/json", **headers}
    answer = http.request(method, path, content=body, headers=given)
    problem(answer, status, code)
    if status == 405:
        assert "POST" in answer.headers["allow"]


def test_every_line_of_a_bulk_request_gets_its_answer(http: httpx.Client) -> None:
    lines = [b'{"job_type": "test.nap", "payload": {"seconds": 0}}'] * 1200
    lines[7], lines[900] = b"{", b'{"job_type": "no spaces"}'
    headers = {"content-type": "application/x-ndjson", "Idempotency-Key": "bulk-1"}
    answers = [http.post("/v1/jobs/bulk", content=b"\n".join(lines), headers=headers).text for _ in range(2)]
    first, again = ([json.loads(line) for line in one.splitlines()] for one in answers)
    assert [index for index, one in enumerate(first) if "code" in one] == [7, 900]
    assert [one.get("job_id") for one in first] == [one.get("job_id") for one in again]
    assert len({one.get("job_id") for one in first}) == 1199


def encryption(stack: SystemStack) -> ssl.SSLContext | None:
    found = stack.verification()
    return found if isinstance(found, ssl.SSLContext) else None


def raw(stack: SystemStack, sent: bytes, *, then: bytes = b"", after_seconds: float = 0.0) -> bytes:
    """Return what a connection says to these bytes, until it closes."""
    place = urlsplit(stack.gateway_url)
    with ExitStack() as closing:
        connection = closing.enter_context(
            socket.create_connection((place.hostname or "", place.port or 0), timeout=WAIT_SECONDS)
        )
        if secured := encryption(stack):
            connection = closing.enter_context(secured.wrap_socket(connection, server_hostname=place.hostname))
        connection.sendall(sent)
        time.sleep(after_seconds)
        if then:
            connection.sendall(then)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, b"http_malformed"),
        (b"GET / HTTP/9.9\r\n\r\n", 400, b"http_malformed"),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, b"url_too_long"),
        (b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nX-Large: " + b"a" * 40_000 + b"\r\n\r\n", 431, b"headers_too_large"),
        (b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nX-Slow: ", 408, b"request_timeout"),
    ],
)
def test_what_is_no_request_gets_an_envelope_and_its_connection_ends(
    stack: SystemStack, sent: bytes, status: int, code: bytes
) -> None:
    answer = raw(stack, sent)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert code in answer


def test_many_slow_truncated_and_silent_clients_leave_nothing_behind(stack: SystemStack, http: httpx.Client) -> None:
    submitted(http)
    before = gauges(http)

    async def spoil() -> None:
        place = urlsplit(stack.gateway_url)
        head = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
        stream = b"GET /v1/events/stream HTTP/1.1\r\nHost: x\r\n\r\n"
        for sent in (b"", b"GET /v1/jo", head, stream) * 25:
            _, writer = await asyncio.open_connection(place.hostname, place.port, ssl=encryption(stack))
            writer.write(sent)
            await writer.drain()
            await asyncio.sleep(0)
            writer.transport.abort()

    for _ in range(3):
        asyncio.run(spoil())
    until(lambda: gauges(http)["controlplane_http_requests_in_flight"] == 1)
    until(lambda: gauges(http)["controlplane_live_streams"] == 0)
    until(lambda: gauges(http)["process_open_fds"] <= before["process_open_fds"] + 12)
    assert gauges(http)["process_resident_memory_bytes"] < before["process_resident_memory_bytes"] + 64 * 1024 * 1024
    submitted(http)


def gauges(http: httpx.Client) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in http.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_stock_registry_clients_read_write_records_and_may_not_register(stack: SystemStack, http: httpx.Client) -> None:
    subject = "controlplane.submissions-controlplane.events.JobCancelRequested"
    with SchemaRegistryClient({"url": stack.gateway_url, **identity_files(stack)}) as registry:
        assert subject in registry.get_subjects()
        newest = registry.get_latest_version(subject)
        assert registry.get_versions(subject)[-1] == newest.version
        assert registry.get_schema(newest.schema_id).schema_str == newest.schema.schema_str
        assert registry.lookup_schema(subject, newest.schema).schema_id == newest.schema_id
        assert registry.get_compatibility() == registry.get_compatibility(subject) == "FULL_TRANSITIVE"
        assert registry.test_compatibility(subject, newest.schema)
        other = Schema('{"type": "record", "name": "Other", "fields": []}', "AVRO")
        assert not registry.test_compatibility(subject, other)
        for write in (
            lambda: registry.register_schema(subject, other),
            lambda: registry.delete_subject(subject),
            lambda: registry.set_compatibility(subject, "NONE"),
        ):
            with pytest.raises(SchemaRegistryError) as refused:
                write()  # type: ignore[no-untyped-call]
            assert refused.value.error_code == 42205
        with pytest.raises(SchemaRegistryError) as missing:
            registry.get_latest_version("nowhere")
        assert (missing.value.http_status_code, missing.value.error_code) == (404, 40401)
        fields = {
            "header": {
                "event_id": "e", "occurred_at": 1, "correlation_id": "c", "causation": None,
                "producer": {"service": "client", "version": "1", "instance": "i"}, "tenant": "default", "actor": None,
            },
            "job_id": "stock-1", "reason": "", "kill": False, "tree": False,
        }  # fmt: skip
        settings = {
            "auto.register.schemas": False, "use.latest.version": True,
            "subject.name.strategy": lambda *_: subject,
        }  # fmt: skip
        context = SerializationContext("controlplane.submissions", MessageField.VALUE)
        value = AvroSerializer(registry, newest.schema.schema_str, conf=settings)(fields, context)
        assert value is not None
        assert int.from_bytes(value[1:5], "big") == newest.schema_id
        assert AvroDeserializer(registry)(value, context)["job_id"] == "stock-1"


async def test_every_record_is_a_cloudevent_to_their_own_sdk(stack: SystemStack, http: httpx.Client) -> None:
    job = await asyncio.to_thread(submitted, http)
    asked = {"min_position": job["position"], "wait_seconds": 30}
    await asyncio.to_thread(http.get, f"/v1/jobs/{job['job_id']}/result", params=asked)
    found: dict[str, BaseCloudEvent] = {}
    async for record in whole_log(stack.connection()):
        headers = {name: value for name, value in record.headers if name != "traceparent"}
        said = from_kafka(KafkaMessage(headers=headers, key=record.key, value=record.value), JSONFormat())
        event: Any = decode(record.value)
        assert said.get_type() == f"controlplane.events.{type(event).__name__}"
        assert said.get_id() == event.header.event_id
        assert said.get_source() == f"/controlplane/{event.header.producer.service}"
        assert said.get_time() == datetime.fromtimestamp(event.header.occurred_at / 1_000_000, UTC)
        assert (said.get_datacontenttype(), said.get_data()) == ("application/avro", record.value)
        found[type(event).__name__] = said
    assert {"JobSubmitted", "JobAccepted", "JobRouted", "AttemptStarted", "JobCompleted", "RunnerRegistered"} <= set(
        found
    )


async def whole_log(connection: LogConnection) -> AsyncIterator[Any]:
    counts = await partition_counts(connection)
    async with LogReader(connection, client_id="test") as reader:
        ends = await reader.end_offsets([(topic, number) for topic, count in counts.items() for number in range(count)])
        left = {place: end for place, end in ends.items() if end}
        await reader.assign(dict.fromkeys(left, "earliest"))
        while left:
            for place, batch in (await reader.batch(timeout_seconds=1.0)).items():
                for record in batch:
                    yield record
                if batch[-1].offset + 1 >= ends[place]:
                    left.pop(place, None)


@pytest.mark.timeout(600)
def test_a_fuzzer_of_the_described_surface_finds_nothing(stack: SystemStack, tmp_path: Path) -> None:
    """The last of this file: what it declares and pauses stays. `make fuzz` goes on for longer."""
    with stack.client() as client:
        prepare(client)
    # Bounded by what is sent and not by time: the same on every machine.
    bounds = ("--max-examples", "1", "--no-shrink")
    found = fuzz(stack, tmp_path, *bounds, seed=1)
    assert not found.failed, found.report
    assert found.requests > 50, found.report
