"""A child that cannot be submitted fails its parent in words, at once; it never keeps it from ending."""

import asyncio
from datetime import datetime
from typing import Any

import pytest

from controlplane.events.types import JobSubmitted
from controlplane.runner import JobContext, Runner
from controlplane.runner.processes import WorkerProcesses
from tests.unit.runner.leasing import Kept, attempts_of, lease

NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001 -- that it has no zone is the point
IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "secret": {"secret": "a-key"},
    "not_before": {"not_before": NAIVE},
    "deadline": {"deadline": NAIVE},
}
runner = Runner("parents", slots=2)
in_processes = Runner("parents", slots=2)


def submits(option: str, job: JobContext) -> None:
    job.submit("part", **IMPOSSIBLE.get(option, {}))


@runner.capability("awaits")
async def awaits(option: str, job: JobContext) -> None:
    await job.submit("part", **IMPOSSIBLE.get(option, {}))


@runner.capability("goes_on")
async def goes_on(option: str, job: JobContext) -> None:
    job.submit("part", **IMPOSSIBLE.get(option, {}))


runner.capability("thread")(submits)
in_processes.capability("process", executor="process")(submits)


@pytest.mark.parametrize("option", IMPOSSIBLE)
@pytest.mark.parametrize("job_type", ["awaits", "goes_on", "thread"])
async def test_a_parent_is_told_what_its_child_cannot_have(job_type: str, option: str) -> None:
    sink = Kept()
    attempts = attempts_of(runner, sink)
    lease(attempts, job_type, option)
    await asyncio.wait_for(attempts.idle(), 10)
    assert sink.names == ["AttemptStarted", "AttemptFailed"]
    error = sink.events[-1].error
    assert ("secret" if option == "secret" else f"Expected {option} with a time zone") in error.message
    assert (error.found, error.retryable, attempts.busy_slots) == ("NonRetryable", False, 0)


async def test_a_worker_process_is_told_as_well() -> None:
    sink, processes = Kept(), WorkerProcesses("tests.unit.runner.test_children:in_processes")
    attempts = attempts_of(in_processes, sink, processes)
    try:
        for option in IMPOSSIBLE:
            lease(attempts, "process", option)
            await asyncio.wait_for(attempts.idle(), 30)
    finally:
        processes.close()
    assert sink.names == ["AttemptStarted", "AttemptFailed"] * 3
    assert {event.error.found for event in sink.events[1::2]} == {"NonRetryable"}


@pytest.mark.parametrize("job_type", ["awaits", "goes_on", "thread"])
async def test_a_child_that_cannot_be_written_for_any_reason_fails_its_parent(job_type: str) -> None:
    sink = Kept(JobSubmitted)
    attempts = attempts_of(runner, sink)
    lease(attempts, job_type, "nothing")
    await asyncio.wait_for(attempts.idle(), 10)
    assert sink.names == ["AttemptStarted", "AttemptFailed"]
    assert "as an event, but: 'no encoder'" in sink.events[-1].error.message
    assert attempts.busy_slots == 0
