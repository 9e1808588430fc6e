"""Whatever a handler raises is that attempt's failure: its type is told, and its lease and slot are free."""

import asyncio
import gc

import pytest

from controlplane.runner import JobContext, Runner
from controlplane.runner.processes import WorkerProcesses
from tests.unit.runner.leasing import Kept, attempts_of, lease


class Panic(BaseException):
    """What PyO3 raises when Rust panics is no Exception either."""


class Wordless(Exception):
    def __str__(self) -> str:
        raise LookupError("no words")


RAISED: dict[str, tuple[BaseException, str]] = {
    "panic": (Panic("index out of bounds"), "Panic: index out of bounds"),
    "group": (BaseExceptionGroup("two", [Panic("a"), ValueError("b")]), "BaseExceptionGroup: two (2 sub-exceptions)"),
    "test": (pytest.fail.Exception("expected 1"), "Failed: expected 1"),
    "exit": (SystemExit(3), "SystemExit: 3"),
    "generator": (GeneratorExit("closed"), "GeneratorExit: closed"),
    "wordless": (Wordless(), "Wordless: (its message could not be made: LookupError)"),
}
runner = Runner("raises", slots=1)
in_processes = Runner("raises", slots=1)


def raises(how: str) -> None:
    raise KeyboardInterrupt if how == "interrupt" else RAISED[how][0]


@runner.capability("loop")
async def on_the_loop(how: str, job: JobContext) -> None:
    raises(how)


@runner.capability("waits")
async def waits(_: None) -> None:
    await asyncio.Event().wait()


runner.capability("thread")(raises)
in_processes.capability("process", executor="process")(raises)


@pytest.mark.parametrize("how", RAISED)
@pytest.mark.parametrize("job_type", ["loop", "thread"])
async def test_it_is_told_with_its_type(job_type: str, how: str) -> None:
    sink = Kept()
    attempts = attempts_of(runner, sink)
    lease(attempts, job_type, how)
    lease(attempts, job_type, how)  # It waits for the only slot.
    await asyncio.wait_for(attempts.idle(), 10)
    assert sink.names == ["AttemptStarted", "AttemptFailed"] * 2
    error = sink.events[-1].error
    assert (error.code, error.message, error.retryable) == ("handler_failed", RAISED[how][1], True)
    assert (attempts.held, attempts.busy_slots) == ({}, 0)


async def test_a_worker_process_tells_the_type_and_lives_on() -> None:
    sink, processes = Kept(), WorkerProcesses("tests.unit.runner.test_raising:in_processes")
    attempts = attempts_of(in_processes, sink, processes)
    told = []
    try:
        for how in [*RAISED, "interrupt"]:
            lease(attempts, "process", how)
            await asyncio.wait_for(attempts.idle(), 30)
            told.append(sink.events[-1].error.message)
    finally:
        processes.close()
    assert told == [*(message for _, message in RAISED.values()), "KeyboardInterrupt"]


def test_ctrl_c_ends_the_process_after_the_attempt() -> None:
    """On the loop it was meant for the process, unless a signal handler took it, as that of a runner process does."""
    sink = Kept()

    async def interrupted() -> None:
        attempts = attempts_of(runner, sink)
        lease(attempts, "loop", "interrupt")
        await attempts.idle()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(interrupted())
    assert sink.names == ["AttemptStarted", "AttemptFailed"]


def test_a_handler_that_outlives_its_loop_is_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    sink, loop = Kept(), asyncio.new_event_loop()

    async def begun() -> None:
        lease(attempts_of(runner, sink), "waits", None)
        await asyncio.sleep(0)

    loop.run_until_complete(begun())
    loop.close()
    gc.collect()  # It closes the coroutine.
    assert sink.names == ["AttemptStarted"]
    assert "waits@1.0.0 failed" not in caplog.text
    assert "Task was destroyed" in caplog.text


async def test_a_thread_is_no_place_for_ctrl_c() -> None:
    sink = Kept()
    attempts = attempts_of(runner, sink)
    lease(attempts, "thread", "interrupt")
    await asyncio.wait_for(attempts.idle(), 10)
    assert sink.events[-1].error.message == "KeyboardInterrupt"
