"""Of a job whose payload is encrypted, nothing that we say ourselves quotes it: whatever breaks, and wherever its handler runs."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ConfigDict, field_validator

from controlplane.api.submissions import json_content
from controlplane.contents import ContentStore
from controlplane.contents.keys import KeyMissing, KeyRing
from controlplane.events.catalog import ROUTING
from controlplane.events.codec import encode
from controlplane.events.header import outside_header
from controlplane.events.types import AttemptFailed, AttemptSucceeded, JobRouted, LogPosition, Producer
from controlplane.runner import JobContext, NonRetryable, RetryLater, Runner
from controlplane.runner.attempt import now_micros
from controlplane.runner.attempts import Attempts
from controlplane.runner.metrics import Metrics
from controlplane.runner.outbox import Acknowledged
from controlplane.runner.processes import WorkerProcesses
from controlplane.runner.testing import run_handler
from controlplane.runner.threads import HandlerThreads

SECRET = "FR76-XYZZY"
KEY = "acme/customer-17"
runner = Runner("sealed", slots=2)


class Letter(BaseModel):
    model_config = ConfigDict(extra="forbid")

    iban: str
    cents: dict[str, int] = {}
    fail: str = ""

    @field_validator("iban")
    @classmethod
    def good(cls, value: str) -> str:
        if value.startswith("XX"):
            raise ValueError(f"no country {value}")
        return value


class Sent(BaseModel):
    pages: int
    by_number: dict[int, str] = {}


def write(payload: Letter, job: JobContext) -> Any:
    match payload.fail:
        case "result":
            return {"pages": payload.iban, "by_number": {4711: 5}}
        case "no JSON":
            return {"pages": 1, "by_number": {1: "\ud800" + payload.iban}}
        case "raises":
            return int(payload.iban)
        case "validates":
            return Sent.model_validate({"pages": payload.iban})
        case "coded":
            error = ValueError("of a library")
            error.code = payload.iban  # type: ignore[attr-defined]
            raise error
        case "says so":
            raise NonRetryable("the printer is on fire", code="printer")
        case "later":
            raise RetryLater(5)
    return {"pages": 1}


async def write_on_the_loop(payload: Letter, job: JobContext) -> Sent:
    return write(payload, job)  # type: ignore[no-any-return]


def write_in_a_thread(payload: Letter, job: JobContext) -> Sent:
    return write(payload, job)  # type: ignore[no-any-return]


runner.capability("loop")(write_on_the_loop)
runner.capability("thread")(write_in_a_thread)
runner.capability("process", executor="process")(write_in_a_thread)


class Said:
    """A sink that keeps what it is given."""

    identity = Producer(service="runner", version="test", instance="test")

    def __init__(self) -> None:
        self.events: list[Any] = []

    def emit(
        self, event: msgspec.Struct, *, partition: int | None = None, droppable: bool = False,
        acknowledged: Acknowledged | None = None,
    ) -> None:  # fmt: skip
        self.events.append(event)
        if acknowledged is not None:
            asyncio.get_running_loop().call_soon(acknowledged)


async def outcomes(folder: Path, job_type: str, payloads: Sequence[Any], *, store: ContentStore | None = None) -> Said:
    """Run jobs whose payloads are encrypted, and return what their runner said."""
    said, threads = Said(), HandlerThreads(2, name="handler")
    processes = WorkerProcesses(f"{__name__}:runner") if job_type == "process" else None
    keys = KeyRing((folder / "keys").as_uri(), bytes(32))
    own = ContentStore((folder / "contents").as_uri(), inline_limit_bytes=1000, keys=keys)
    attempts = Attempts(
        runner, slots=1, sink=said, contents=store or own, inline_limit_bytes=1000, threads=threads, processes=processes,
        metrics=Metrics(CollectorRegistry()),
    )  # fmt: skip
    for number, payload in enumerate(payloads):
        identity = f"{job_type}-{number}"
        routed = JobRouted(
            header=outside_header("JobRouted", identity, said.identity, now_micros()), job_id=identity, attempt_id=identity,
            attempt_number=1, runner_id="r", job_type=job_type, contract_major=1, payload=own.check_in(json_content(payload), key_id=KEY),
            pool="default", priority=5, job_partition=0, lease_seconds=6.0, queued_at=now_micros(),
        )  # fmt: skip
        attempts.take(routed, LogPosition(topic=ROUTING.name, partition=0, offset=number))
    await attempts.idle()
    threads.stop()
    if processes is not None:
        processes.close()
    return said


FAULTS: dict[str, tuple[Any, str, str, str | None, str | None]] = {
    # What is wrong, then the payload; what is told of it as code, message, field and found.
    "a value": ({"iban": [SECRET]}, "payload_invalid", "payload.iban: string_type", "payload.iban", None),
    "own rule": ({"iban": f"XX{SECRET}"}, "payload_invalid", "payload.iban: value_error", "payload.iban", None),
    "a field": ({"iban": "DE", SECRET: 1}, "payload_invalid", "payload.*: extra_forbidden", "payload.*", None),
    "a key": ({"iban": "DE", "cents": {SECRET: "x"}}, "payload_invalid", "payload.cents.*: int_parsing", "payload.cents.*", None),
    "the whole": ([SECRET], "payload_invalid", "payload: model_type", "payload", None),
    "the result": ({"iban": SECRET, "fail": "result"}, "result_invalid", "result.pages: int_parsing; result.by_number.*: string_type", "result.pages", None),
    "no JSON": ({"iban": SECRET, "fail": "no JSON"}, "result_invalid", "", None, None),
    "an exception": ({"iban": SECRET, "fail": "raises"}, "handler_failed", "ValueError: its message is in", None, "ValueError"),
    "a validation": ({"iban": SECRET, "fail": "validates"}, "handler_failed", "ValidationError: its message is in", None, "ValidationError"),
    "a code": ({"iban": SECRET, "fail": "coded"}, "handler_failed", "ValueError: its message is in", None, "ValueError"),
    "own words": ({"iban": SECRET, "fail": "says so"}, "handler_failed", "the printer is on fire", None, "printer"),
    "later": ({"iban": SECRET, "fail": "later"}, "handler_failed", "have to wait 5 s", None, "RetryLater"),
}  # fmt: skip


@pytest.mark.parametrize("job_type", ["loop", "thread", "process"])
async def test_what_breaks_is_told_without_what_it_was(tmp_path: Path, job_type: str) -> None:
    said = await outcomes(tmp_path, job_type, [payload for payload, *_ in FAULTS.values()])
    told = {event.job_id: event.error for event in said.events if isinstance(event, AttemptFailed)}
    assert len(told) == len(FAULTS)
    for number, (_, code, message, field, found) in enumerate(FAULTS.values()):
        error = told[f"{job_type}-{number}"]
        assert (error.code, error.field, error.found) == (code, field, found)
        assert message in error.message
    for event in said.events:
        assert b"XYZZY" not in encode(event)
        assert b"4711" not in encode(event)


@pytest.mark.parametrize("job_type", ["loop", "thread", "process"])
async def test_what_is_right_is_encrypted_again(tmp_path: Path, job_type: str) -> None:
    said = await outcomes(tmp_path, job_type, [{"iban": SECRET}])
    [done] = [event for event in said.events if isinstance(event, AttemptSucceeded)]
    assert (done.result.encryption_key_id, b"pages" in done.result.data) == (KEY, False)


async def test_a_key_that_is_lost_before_the_result_is_told_by_name(tmp_path: Path) -> None:
    class Lost(ContentStore):
        def check_in(self, *_: Any, **__: Any) -> Any:
            raise KeyMissing(f"Expected the key {KEY}, but there is none.")

    keys = KeyRing((tmp_path / "keys").as_uri(), bytes(32))
    store = Lost((tmp_path / "contents").as_uri(), inline_limit_bytes=1000, keys=keys)
    said = await outcomes(tmp_path, "loop", [{"iban": SECRET}], store=store)
    [failed] = [event for event in said.events if isinstance(event, AttemptFailed)]
    assert (failed.error.code, failed.error.field) == ("key_missing", "result")


def test_what_is_in_the_clear_is_quoted_as_ever() -> None:
    wrong = run_handler(runner, "loop", {"iban": [SECRET]}).error
    assert wrong is not None
    assert (wrong.field, wrong.found) == ("payload.iban", f"['{SECRET}']")
    raised = run_handler(runner, "loop", {"iban": SECRET, "fail": "raises"}).error
    assert raised is not None
    assert SECRET in raised.message
