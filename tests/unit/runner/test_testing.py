"""The test kit runs a handler as a runner does, and shows all that it said."""

import asyncio
import logging
import threading
import time
from typing import Any

import pytest
from pydantic import BaseModel

import controlplane.runner
from controlplane.runner import JobContext, NonRetryable, Runner
from controlplane.runner.testing import run_handler, run_handler_async
from examples import first_runner

runner = Runner("tested", slots=2)


class Doubled(BaseModel):
    value: int


@runner.capability("says", version="2.3.4")
async def says(payload: Doubled, job: JobContext) -> Doubled:
    await job.progress(0.5, "half")
    job.claim("s", "p", payload.value)
    await job.submit("part", payload)
    job.log.info("value %d", payload.value)
    logging.getLogger("library").warning("careful")
    return Doubled(value=2 * payload.value)


@runner.capability("thread")
def in_a_thread(payload: str, job: JobContext) -> str:
    job.progress(0.5)
    return f"{payload} {threading.current_thread() is threading.main_thread()} {job.attempt_number}"


@runner.capability("process", executor="process")
def in_a_process(_: None) -> str:
    return threading.current_thread().name


@runner.capability("fails")
def fails(_: None, job: JobContext) -> None:
    job.claim("s", "p", "never becomes truth")
    raise NonRetryable("no", code="refused")


@runner.capability("waits")
async def waits(_: None) -> None:
    await asyncio.sleep(60)


@runner.capability("polls")
def polls(_: None, job: JobContext) -> None:
    while True:
        job.raise_if_cancelled()
        time.sleep(0.001)


@runner.capability("gives_up")
async def gives_up(_: None) -> None:
    raise asyncio.CancelledError


@runner.capability("large")
def large(payload: int) -> str:
    return "x" * payload


def test_everything_that_is_said_is_seen() -> None:
    run = run_handler(runner, "says", {"value": 21}, major=2)
    assert (run.outcome, run.result, run.error) == ("succeeded", Doubled(value=42), None)
    assert run.progress == ((0.5, "half"),)
    assert [(claim.subject, claim.object.text) for claim in run.claims] == [("s", "21")]
    assert [(child.job_type, child.payload.data) for child in run.children] == [("part", b'{"value":21}')]
    assert [(line.logger, line.level, line.message) for line in run.logs] == [
        ("job.says", "INFO", "value 21"), ("library", "WARNING", "careful"),
    ]  # fmt: skip
    assert [type(event).__name__ for event in run.events] == [
        "AttemptStarted", "AttemptProgressed", "JobSubmitted", "JobLogged", "AttemptSucceeded",
    ]  # fmt: skip


async def test_async_tests_await_it() -> None:
    run = await run_handler_async(runner, "thread", "main?", attempt_number=3)
    assert run.result == "main? False 3"
    assert (await run_handler_async(runner, "process")).result.startswith("handler-")


def test_what_goes_wrong_is_seen() -> None:
    run = run_handler(runner, "fails")
    assert (run.outcome, run.result, run.claims) == ("failed", None, ())
    assert run.error is not None
    assert (run.error.found, run.error.retryable) == ("refused", False)


@pytest.mark.parametrize(
    ("job_type", "payload", "options", "code"),
    [
        ("says", {"value": "many"}, {"major": 2}, "payload_invalid"),
        ("says", {"value": 1}, {"major": 1}, "contract_version_unknown"),
        ("nobody", None, {}, "job_type_unknown"),
        ("waits", None, {"timeout_seconds": 0.05}, "attempt_timed_out"),
        ("polls", None, {"timeout_seconds": 0.05}, "attempt_timed_out"),
        ("gives_up", None, {}, "handler_failed"),
    ],
)
def test_the_runner_s_own_refusals_are_seen(job_type: str, payload: object, options: dict[str, Any], code: str) -> None:
    run = run_handler(runner, job_type, payload, **options)
    assert run.error is not None
    assert (run.outcome, run.error.code) == ("failed", code)


@pytest.mark.parametrize("job_type", ["waits", "polls"])
def test_a_handler_can_be_asked_to_stop(job_type: str) -> None:
    run = run_handler(runner, job_type, cancel_after_seconds=0.05)
    assert (run.outcome, run.error) == ("cancelled", None)


def test_large_results_take_the_way_of_large_results() -> None:
    run = run_handler(runner, "large", 1_000_000)
    assert run.result == "x" * 1_000_000
    assert max(len(getattr(getattr(event, "result", None), "data", b"")) for event in run.events) == 0


def test_the_first_runner_of_the_readme_greets() -> None:
    run = run_handler(first_runner.runner, "greeting.write", {"name": "Ada"})
    assert run.result == first_runner.Greeting(text="Hello, Ada!")
    assert [(claim.subject, claim.predicate, claim.object.text) for claim in run.claims] == [
        ("person:Ada", "greeted_with", "Hello, Ada!")
    ]


def test_the_public_names_are_pinned() -> None:
    assert controlplane.runner.__all__ == [
        "CapabilityInvalid", "Category", "ChildJob", "ClaimInvalid", "DestinationUnavailable", "JobContext", "LogPosition", "NonRetryable", "Reference",
        "RetryLater", "RetryPolicy", "Runner", "ValueKind",
    ]  # fmt: skip
    assert all(hasattr(controlplane.runner, name) for name in controlplane.runner.__all__)
