"""The kit for users' tests: the same decisions as a real stack, seen as a user writes them."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

import controlplane.client
import controlplane.testing
from controlplane.client import ControlPlaneError
from controlplane.events.types import JobRetryScheduled, JobSubmitted
from controlplane.runner import JobContext, NonRetryable, RetryPolicy, Runner
from controlplane.testing import ControlPlaneForTests, NothingMoves

pytest_plugins = ["controlplane.testing.plugin"]

runner = Runner("greetings", slots=2)
refusals: list[str] = []


class Greet(BaseModel):
    name: str


@runner.capability("greeting.write", version="1.0.0")
async def write(payload: Greet, job: JobContext) -> dict[str, str]:
    if payload.name == "nobody":
        raise NonRetryable("Expected somebody to greet, but found nobody.", code="nobody")
    job.claim(f"person:{payload.name}", "greeted_with", f"Hello, {payload.name}!", confidence=0.9)
    return {"text": f"Hello, {payload.name}!"}


@runner.capability("greeting.late", version="1.0.0", retry=RetryPolicy(max_attempts=3, initial_backoff_seconds=600))
def late(payload: Greet) -> int:
    refusals.append(payload.name)
    if len(refusals) < 3:
        raise ConnectionError("Expected an answer, but there was none.")
    return len(refusals)


@runner.capability("greeting.all", version="1.0.0")
async def everybody(names: list[str], job: JobContext) -> list[str]:
    return [(await job.submit("greeting.write", {"name": one})).job_id for one in names]


@runner.capability("greeting.wait", version="1.0.0")
async def wait(payload: None) -> None:
    await asyncio.sleep(60)


Start = Callable[..., ControlPlaneForTests]


def test_two_runners_of_one_name_are_refused() -> None:
    """The second would take the place of the first, whose capabilities nobody would offer then."""
    with pytest.raises(
        ValueError, match="Expected runners with a name each, but found more than one with the name same"
    ):
        ControlPlaneForTests(Runner("same"), Runner("other"), Runner("same"))


def test_a_result_its_events_and_its_truths(control_plane: Start) -> None:
    cp = control_plane(runner)
    job = cp.submit("greeting.write", {"name": "Ada"})
    assert job.result() == {"text": "Hello, Ada!"}
    names = [type(event).__name__ for event in job.events()]
    assert names == [
        "JobSubmitted", "JobAccepted", "JobRouted", "AttemptStarted", "AttemptSucceeded", "JobCompleted"
    ]  # fmt: skip
    greeted = cp.truths("person:*", "greeted_with")
    assert [(one.subject, one.value) for one in greeted] == [("person:Ada", "Hello, Ada!")]
    assert cp.truths(f"job:{job.job_id}")


@pytest.mark.parametrize(
    ("job_type", "payload", "code"),
    [
        ("greeting.write", {"name": "nobody"}, "handler_failed"),
        ("greeting.write", {"nom": "Ada"}, "payload_invalid"),
        ("greeting.none", {}, "job_type_unknown"),
    ],
)
def test_refusals_are_those_of_a_real_stack(control_plane: Start, job_type: str, payload: Any, code: str) -> None:
    with pytest.raises(ControlPlaneError) as refused:
        control_plane(runner).submit(job_type, payload).result()
    assert refused.value.code == code


def test_pauses_before_retries_are_skipped(control_plane: Start) -> None:
    refusals.clear()
    job = control_plane(runner).submit("greeting.late", {"name": "Grace"})
    assert job.result() == 3
    assert sum(isinstance(event, JobRetryScheduled) for event in job.events()) == 2


def test_children_run_and_the_same_id_is_the_same_job(control_plane: Start) -> None:
    cp = control_plane(runner)
    for child in cp.submit("greeting.all", ["a", "b", "c"]).result():
        assert cp.conclusion_of(child, 10)
    first, again = (cp.submit("greeting.write", {"name": name}, job_id="one") for name in ("x", "y"))
    assert first.result() == again.result() == {"text": "Hello, x!"}
    assert sum(isinstance(event, JobSubmitted) for event in first.events()) == 2


def test_what_does_not_end_can_be_cancelled(control_plane: Start) -> None:
    job = control_plane(runner).submit("greeting.wait")
    with pytest.raises(NothingMoves, match=r"within 0.2 s, but it is (ROUTED|RUNNING)"):
        job.wait(0.2)
    job.cancel("enough")
    with pytest.raises(ControlPlaneError) as cancelled:
        job.result()
    assert cancelled.value.code == "job_cancelled"


async def test_it_can_be_used_where_a_loop_runs(control_plane: Start) -> None:
    job = control_plane(runner).submit("greeting.write", {"name": "Ada"})
    assert await asyncio.to_thread(job.result) == {"text": "Hello, Ada!"}


def test_public_names_grow_only_on_purpose() -> None:
    assert controlplane.testing.__all__ == [
        "ControlPlaneForTests", "HandlerRun", "JobForTests", "NothingMoves", "run_handler", "run_handler_async"
    ]  # fmt: skip
    assert controlplane.client.__all__ == [
        "AsyncClient", "AsyncJobHandle", "Client", "Conclusion", "ControlPlaneError", "JobHandle", "LibraryMissing",
        "LogClient", "Rows", "Truths",
    ]  # fmt: skip
