"""What is kept of jobs beside their schedule: large contents, logs, dead letters, metrics, and what the command says of it all."""

import asyncio
import hashlib
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from controlplane.cli.stack import SystemStack
from controlplane.client import Client
from controlplane.client.log import LogClient
from controlplane.events.catalog import SUBMISSIONS, Service
from controlplane.events.codec import encode
from controlplane.events.identity import partition_of
from controlplane.log.producer import LogProducer, OutgoingRecord
from tests.acceptance.scheduling.looks import WAIT_SECONDS, Paused, happened, runs, waits
from tests.acceptance.test_stack import command, until

pytestmark = pytest.mark.xdist_group("scheduling")


def test_what_is_too_large_for_the_log_is_kept_by_its_digest(client: Client) -> None:
    payload = {"text": "ü" * 5_000}
    handle = client.submit("s.echo", payload)
    assert handle.result(WAIT_SECONDS) == payload
    job = handle.status()
    assert (job.payload, job.result) == (None, None)
    assert job.payload_reference is not None
    assert job.result_reference is not None
    for reference in (job.payload_reference, job.result_reference):
        kept = client.content(reference.sha256)
        assert (hashlib.sha256(kept).hexdigest(), len(kept)) == (reference.sha256, reference.size_bytes)
    with pytest.raises(Exception, match="not there"):
        client.content("0" * 64)


def test_what_a_handler_logs_is_readable_while_it_runs(stack: SystemStack, client: Client) -> None:
    handle = client.submit("s.talk", {"words": "a [plan]", "seconds": 3})
    first = until(lambda: list(client.logs(handle.job_id, min_position=handle.position)))
    assert handle.status().phase == "RUNNING"
    assert [(one.level, one.message) for one in first] == [("INFO", "begins with a [plan]")]
    followed = [one.message for one in client.logs(handle.job_id, follow=True)]
    assert followed == ["begins with a [plan]", "ends"]
    answer = client.request("GET", f"/v1/jobs/{handle.job_id}/logs", query={"limit": 1})
    assert (answer["concluded"], answer["dropped"], len(answer["lines"])) == (True, 0, 1)


def submitted_to(stack: SystemStack, job_ids: list[str], *, astray: bool) -> None:
    """Write submissions straight to the log; `astray` puts them where their key does not belong."""

    async def write() -> None:
        producer = LogProducer(stack.connection(), service=Service.CLIENT)
        await producer.start()
        count = producer.partitions(SUBMISSIONS.name)
        client = LogClient(stack.connection())
        records = []
        for job_id in job_ids:
            event = client.submission("s.nap", {}, job_id=job_id)
            number = (partition_of(job_id.encode(), count) + astray) % count
            records.append(
                OutgoingRecord(topic=SUBMISSIONS.name, partition=number, key=job_id.encode(), value=encode(event))
            )
        await producer.send(records)
        await producer.stop()

    asyncio.run(write())


def test_a_submission_that_no_runner_could_be_given_is_rejected_alone(stack: SystemStack, client: Client) -> None:
    async def write() -> None:
        async with LogClient(stack.connection()) as log:
            small = log.submission("s.nap", {}, job_id="too-large")
            # The largest that the log takes: what gave it to a runner would be larger.
            payload = msgspec.structs.replace(small.payload, data=b'"' + b"x" * 999_780 + b'"')
            await log.submit([msgspec.structs.replace(small, payload=payload)])

    asyncio.run(write())
    behind = client.submit("s.nap", {})
    assert behind.wait(WAIT_SECONDS).phase == "COMPLETED"
    rejected = client.handle("too-large").wait(WAIT_SECONDS)
    assert (rejected.phase, rejected.error and rejected.error["code"]) == ("REJECTED", "payload_too_large")


def letter_of(client: Client, job_id: str) -> Any:
    """Return the dead letter of a submission, if it is listed."""
    return next((one for one in client.dead_letters() if one.event["key"] == job_id), None)


def test_dead_letters_are_listed_redriven_and_purged(stack: SystemStack, client: Client) -> None:
    submitted_to(stack, ["astray-1", "astray-2"], astray=True)
    letters = {one: until(lambda one=one: letter_of(client, one)) for one in ("astray-1", "astray-2")}
    assert {one.event["error"]["code"] for one in letters.values()} == {"wrong_partition"}
    places = {one: letter.position.split("/", 1)[1] for one, letter in letters.items()}
    assert command(stack, "deadletters", "redrive", places["astray-1"], "--reason", "put right")[0] == 0
    assert client.handle("astray-1").wait(WAIT_SECONDS).phase == "COMPLETED"
    assert command(stack, "deadletters", "purge", places["astray-2"])[0] == 0
    until(lambda: letter_of(client, "astray-1") is None and letter_of(client, "astray-2") is None)
    assert happened(client, "DeadLetterSettled")


def samples(stack: SystemStack, service: str) -> dict[str, float]:
    """Return the sums of a service's samples by name."""
    port = stack.services[service].spec.environment["CONTROLPLANE_HEALTH_PORT"]
    found: dict[str, float] = {}
    answer = httpx.get(f"{stack.scheme}://127.0.0.1:{port}/metrics", verify=stack.verification())
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def of_both(stack: SystemStack, name: str) -> float:
    """Return a sample summed over both instances, as Prometheus and KEDA do."""
    return sum(samples(stack, service).get(name, 0.0) for service in ("jobforge", "jobforge-2"))


def test_metrics_tell_depth_stages_outcomes_and_runners(stack: SystemStack, client: Client) -> None:
    concluded = of_both(stack, "controlplane_stage_seconds_count")
    with Paused(client, "type:s.echo"):
        handles = [client.submit("s.echo", {}, tenant="measured", priority=7) for _ in range(5)]
        waits(handles[-1], "paused: type:s.echo")
        until(lambda: of_both(stack, "controlplane_queue_depth") == 5)
        assert of_both(stack, "controlplane_owned_partitions") == 8
        until(lambda: of_both(stack, "controlplane_runner_slots") == 13)
    assert [one.wait(WAIT_SECONDS).phase for one in handles] == ["COMPLETED"] * 5
    until(lambda: of_both(stack, "controlplane_queue_depth") == 0)
    until(lambda: of_both(stack, "controlplane_stage_seconds_count") >= concluded + 5 * 5)
    for name in (
        "controlplane_conclusions_total",
        "controlplane_outbox_age_seconds",
        "controlplane_redeliveries_absorbed_total",
    ):
        assert name in samples(stack, "jobforge")


def test_the_command_says_why_a_job_waits_and_what_holds_it(stack: SystemStack, client: Client) -> None:
    running = client.submit("s.hang", {}, concurrency_key="printer")
    assert runs(running)
    behind = client.submit("s.nap", {}, concurrency_key="printer")
    waits(behind, "held by the limit key:default/printer (1 of 1 running)")
    code, job = command(stack, "job", behind.job_id)
    assert (code, job["waiting_for"]) == (0, "held by the limit key:default/printer (1 of 1 running)")
    code, [limit] = command(stack, "limits", "key:default/printer")
    assert (code, limit["running"], limit["queued"], limit["max_running"]) == (0, 1, 1, 1)
    running.cancel()
    assert behind.wait(WAIT_SECONDS).phase == "COMPLETED"
