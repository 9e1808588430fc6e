"""Handlers that ignore their end are noticed whenever work waits behind them, however they came to hold all slots one after the other."""

import asyncio
import threading
import time

import pytest

from controlplane.runner import Runner, attempts
from tests.unit.runner.leasing import Kept, attempts_of, lease

PATIENCE_SECONDS = 0.3
runner = Runner("stuck", slots=2)
let_go = threading.Event()


@runner.capability("first", timeout=0.05)
def first(_: None) -> None:
    let_go.wait(30)


@runner.capability("second", timeout=1.0)
def second(_: None) -> None:
    let_go.wait(30)


@runner.capability("obeys", timeout=0.5)
async def obeys(_: None) -> None:
    await asyncio.sleep(30)


@runner.capability("quick")
def quick(_: None) -> str:
    return "done"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look soon."""
    monkeypatch.setattr(attempts, "STUCK_SECONDS", PATIENCE_SECONDS)
    let_go.clear()


async def ended(ours: attempts.Attempts) -> None:
    let_go.set()
    await asyncio.wait_for(ours.idle(), 10)


async def test_the_last_slot_may_be_lost_long_after_work_began_to_wait() -> None:
    sink = Kept()
    ours = attempts_of(runner, sink)
    began = time.monotonic()
    for job_type in ("first", "second", "quick"):
        lease(ours, job_type)
    await asyncio.wait_for(ours.stuck.wait(), 10)
    assert time.monotonic() - began >= 1.0 + PATIENCE_SECONDS  # Not before the second had its time to stop.
    assert sink.names.count("AttemptFailed") == 2
    await ended(ours)


async def test_work_that_comes_after_all_slots_are_lost_shows_it_too() -> None:
    sink = Kept()
    ours = attempts_of(runner, sink)
    lease(ours, "first")
    lease(ours, "first")
    while sink.names.count("AttemptFailed") < 2:  # noqa: ASYNC110 -- the sink has nothing to wait for
        await asyncio.sleep(0.01)
    assert not ours.stuck.is_set()
    lease(ours, "quick")
    await asyncio.wait_for(ours.stuck.wait(), 10)
    await ended(ours)


async def test_a_handler_that_stops_when_its_time_is_over_makes_room() -> None:
    sink = Kept()
    ours = attempts_of(runner, sink)
    waiting = [lease(ours, job_type) for job_type in ("first", "obeys", "quick")][-1]
    while waiting in ours.held:  # noqa: ASYNC110 -- likewise
        await asyncio.sleep(0.01)
    assert not ours.stuck.is_set()
    assert sink.names.count("AttemptSucceeded") == 1
    await ended(ours)
