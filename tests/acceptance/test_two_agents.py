"""Two JobForge processes keep one order of jobs (issue 4)."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from controlplane.cli.stack import SystemStack
from controlplane.client import Client, JobHandle
from controlplane.events.catalog import Service
from controlplane.events.types import JobAccepted, JobRouted, JobSubmitted
from controlplane.settings import Settings
from tests.acceptance.test_crash import load
from tests.acceptance.timeline import Appended, timeline

WITHIN_SECONDS = 60.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemStack]:
    with (
        SystemStack(Settings(), tmp_path_factory.mktemp("stack"), agents=2, free_ports=True) as running,
        running.client() as client,
    ):
        running.add_runner("runner", "tests.acceptance.handlers:runner")
        running.add_runner("narrow", "tests.acceptance.scheduling.handlers:narrow")
        until(lambda: completes(client.submit("test.nap", {"seconds": 0})))  # JobForge knows the runner.
        until(lambda: completes(client.submit("s.nap", {}, pool="narrow")))
        yield running


def until(look: Callable[[], Any]) -> Any:
    """Return what `look` finds, once it finds something."""
    give_up_at = time.monotonic() + WITHIN_SECONDS
    while not (found := look()):
        assert time.monotonic() < give_up_at, "Expected it within the bound, but it did not come."
        time.sleep(0.2)
    return found


def completes(handle: JobHandle) -> bool:
    return bool(handle.wait(WITHIN_SECONDS).phase == "COMPLETED")


def recorded(stack: SystemStack) -> list[Appended]:
    return asyncio.run(timeline(stack.connection(Service.AUDITOR)))


def accepted(records: list[Appended], since: int, until: int) -> dict[int, list[Appended]]:
    """Return what JobForge accepted between two moments, by partition of the job."""
    found: dict[int, list[Appended]] = {}
    for one in records:
        if isinstance(one.event, JobAccepted) and since <= one.at < until:
            found.setdefault(one.partition, []).append(one)
    return found


def owners(records: list[Appended], since: int, until: int) -> dict[int, str]:
    """Return which instance accepted the last job of each partition between two moments."""
    return {partition: taken[-1].instance for partition, taken in accepted(records, since, until).items()}


def now() -> int:
    return time.time_ns() // 1_000_000


async def both_decide(stack: SystemStack, since: int) -> None:
    """Return once two instances accepted jobs since a moment."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while len(set(owners(await timeline(stack.connection(Service.AUDITOR)), since, now()).values())) < 2:  # noqa: ASYNC110 -- the log does not call us
            await asyncio.sleep(1.0)


@pytest.mark.timeout(300)
def test_priority_holds_across_both_instances(stack: SystemStack, client: Client) -> None:
    asyncio.run(settled(stack))
    blocker = client.submit("s.hang", {}, pool="narrow", retry={"max_lost_attempts": 100})
    until(lambda: blocker.status().phase == "RUNNING")
    priorities = [5, 0, 9, 5, 7, 9, 0, 7, 2, 9] * 3
    handles = [client.submit("s.nap", {}, pool="narrow", priority=one) for one in priorities]
    until(lambda: all(one.status().phase == "QUEUED" for one in handles))
    blocker.cancel()
    assert all(completes(one) for one in handles)
    records, jobs = recorded(stack), {one.job_id for one in handles}
    submitted = {one.event.job_id: one for one in records if isinstance(one.event, JobSubmitted)}
    routed = [one for one in records if isinstance(one.event, JobRouted) and one.event.job_id in jobs]
    assert len({(one.topic, one.partition) for one in routed}) == 1  # One runner, one inbox: the log's own order.
    assert len({submitted[one].partition for one in jobs}) > 1
    assert (
        len({one.instance for one in records if isinstance(one.event, JobAccepted) and one.event.job_id in jobs}) == 2
    )
    order = [
        (-one.event.priority, submitted[one.event.job_id].at)
        for one in sorted(routed, key=lambda one: one.offset) if one.event.attempt_number == 1
    ]  # fmt: skip
    assert len(order) == len(jobs)
    assert order == sorted(order)


async def settled(stack: SystemStack) -> None:
    """Return once both instances decide again."""
    stop = asyncio.Event()
    loading = asyncio.create_task(load(stack.connection(Service.CLIENT), stop, "settled"))
    try:
        await both_decide(stack, now())
    finally:
        stop.set()
        await loading


@pytest.fixture
def client(stack: SystemStack) -> Iterator[Client]:
    with stack.client() as one:
        yield one
