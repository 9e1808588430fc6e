"""The runner as a process: it registers before it works, lives however busy its handlers are, and goes in order."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from controlplane.events.types import (
    AttemptCancelled,
    AttemptFailed,
    AttemptProgressed,
    AttemptStarted,
    AttemptSucceeded,
    JobLogged,
    JobSubmitted,
    RunnerDraining,
    RunnerHeartbeat,
    RunnerLeft,
    RunnerRegistered,
)
from controlplane.runner import Runner
from controlplane.runner.loading import load_runner
from tests.integration.runner import handlers
from tests.integration.runner.conftest import Log, names, result_of

TARGET = "tests.integration.runner.handlers"
ROOT = Path(__file__).parents[3]


@asynccontextmanager
async def started(
    log: Log, folder: Path, attribute: str = "runner"
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Start a runner as a process of its own; yields it with its runner id."""
    known = {seen.event.runner_id for seen in log.seen if isinstance(seen.event, RunnerRegistered)}
    program = (
        "from controlplane.runner.service import run; from controlplane.settings import Settings;"
        f"run(Settings(), '{TARGET}:{attribute}')"
    )
    settings = {
        "CONTROLPLANE_KAFKA_BOOTSTRAP": log.connection.bootstrap, "CONTROLPLANE_DATA_DIR": str(folder),
        "CONTROLPLANE_HEARTBEAT_SECONDS": "0.2",
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, cwd=ROOT, env=os.environ | settings, stderr=asyncio.subprocess.PIPE
    )
    try:
        registered: list[RunnerRegistered] = await log.until(
            lambda: [
                one
                for one in log.of(RunnerRegistered)
                if one.runner_id not in known and one.name in {"handlers", "small"}
            ]
        )
        yield process, registered[0].runner_id
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_runner_says_what_it_offers_then_lives_then_goes(log: Log, tmp_path: Path) -> None:
    async with log.running(handlers.runner, tmp_path) as process:
        await log.until(lambda: len(log.of(RunnerHeartbeat, runner_id=process.runner_id)) >= 3)
    said = await log.until(
        lambda: (found := log.of_runner(process.runner_id)) and isinstance(found[-1], RunnerLeft) and found
    )
    registered = said[0]
    assert isinstance(registered, RunnerRegistered)
    assert (registered.name, registered.pool, registered.slots, registered.labels) == (
        "handlers", "default", 4, {"region": "eu"},
    )  # fmt: skip
    assert registered.inbox_partition == log.inbox(process.runner_id)
    offered = {f"{one.job_type}@{one.version}" for one in registered.capabilities}
    assert offered == {handler.label for handler in handlers.runner.handlers.values()}
    beats = [one for one in said if isinstance(one, RunnerHeartbeat)]
    assert [one.sequence for one in beats] == list(range(len(beats)))
    assert names([one for one in said[1:] if not isinstance(one, RunnerHeartbeat)]) == ["RunnerDraining", "RunnerLeft"]
    assert all(
        one.draining for one in said[said.index(log.of(RunnerDraining, runner_id=process.runner_id)[0]) + 1 : -1]
    )
    place = next(seen.position for seen in log.seen if seen.event is registered)
    assert {one.header.causation for one in said[1:]} == {place}
    assert {one.header.correlation_id for one in said} == {process.runner_id}


async def test_heartbeats_list_the_leases_even_while_a_handler_holds_the_interpreter(log: Log, tmp_path: Path) -> None:
    async with started(log, tmp_path) as (process, runner_id):
        routed = await log.route(runner_id, "holds_the_interpreter", {"path": str(tmp_path / "go")})
        await log.one(AttemptStarted, job_id=routed.job_id)
        await log.until(
            lambda: (
                sum(routed.attempt_id in one.attempt_ids for one in log.of(RunnerHeartbeat, runner_id=runner_id)) >= 5
            )
        )
        (tmp_path / "go").touch()
        await log.one(AttemptSucceeded, job_id=routed.job_id)
        count = len(log.of(RunnerHeartbeat, runner_id=runner_id))
        await log.until(lambda: len(log.of(RunnerHeartbeat, runner_id=runner_id)) >= count + 2)
        assert log.of(RunnerHeartbeat, runner_id=runner_id)[-1].attempt_ids == ()
        process.terminate()
        assert await process.wait() == 0


async def test_sigterm_lets_handlers_finish(log: Log, tmp_path: Path) -> None:
    async with started(log, tmp_path) as (process, runner_id):
        routed = await log.route(runner_id, "waits_for", {"path": str(tmp_path / "go")})
        await log.one(AttemptStarted, job_id=routed.job_id)
        process.terminate()
        await log.one(RunnerDraining, runner_id=runner_id)
        (tmp_path / "go").touch()
        await log.one(RunnerLeft, runner_id=runner_id)
        assert result_of(await log.one(AttemptSucceeded, job_id=routed.job_id)) == "seen"
        assert await process.wait() == 0


async def test_a_handler_that_outlasts_the_drain_gives_its_lease_back(log: Log, tmp_path: Path) -> None:
    async with log.running(handlers.runner, tmp_path, drain_seconds=0.1) as process:
        routed = await log.route(process.runner_id, "waits_for", {"path": str(tmp_path / "never")})
        await log.one(AttemptStarted, job_id=routed.job_id)
    given_back = await log.one(AttemptCancelled, job_id=routed.job_id)
    assert given_back.reason == "The runner is shutting down."
    await log.one(RunnerLeft, runner_id=process.runner_id)


async def test_a_second_signal_ends_it_at_once(log: Log, tmp_path: Path) -> None:
    async with started(log, tmp_path) as (process, runner_id):
        routed = await log.route(runner_id, "waits_for", {"path": str(tmp_path / "never")})
        await log.one(AttemptStarted, job_id=routed.job_id)
        process.send_signal(signal.SIGINT)
        await log.one(RunnerDraining, runner_id=runner_id)
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
    assert log.of(RunnerLeft, runner_id=runner_id) == []


async def test_a_process_whose_handlers_ignore_their_time_ends_to_be_started_again(log: Log, tmp_path: Path) -> None:
    async with started(log, tmp_path, "small") as (process, runner_id):
        first = await log.route(runner_id, "deaf")
        await log.one(AttemptFailed, job_id=first.job_id)
        second = await log.route(runner_id, "deaf")
        given_back = await log.one(AttemptCancelled, job_id=second.job_id)
        await log.one(RunnerLeft, runner_id=runner_id)
        _, said = await process.communicate()
        assert process.returncode == 1
    assert given_back.reason == "The runner is shutting down."
    assert b"Expected handlers to stop when their time is over" in said


async def test_each_start_is_another_runner(log: Log, tmp_path: Path) -> None:
    async with log.running(handlers.runner, tmp_path) as one, log.running(handlers.runner, tmp_path) as other:
        assert one.runner_id != other.runner_id
        assert {one.runner_id.partition("@")[0], other.runner_id.partition("@")[0]} == {"handlers"}


async def test_a_handler_in_a_process_of_its_own_says_all_that_others_can(log: Log, tmp_path: Path) -> None:
    async with log.running(handlers.runner, tmp_path, target=f"{TARGET}:runner") as process:
        routed = await log.route(process.runner_id, "process.says", "hello")
        succeeded = await log.one(AttemptSucceeded, job_id=routed.job_id)
        again = await log.route(process.runner_id, "process.says", "again")
        second = await log.one(AttemptSucceeded, job_id=again.job_id)
        invalid = await log.route(process.runner_id, "process.says", 5)
        refused = await log.one(AttemptFailed, job_id=invalid.job_id)
        [logged] = await log.until(lambda: log.of(JobLogged, job_id=routed.job_id))
        [child] = [one for one in log.of(JobSubmitted) if one.parent and one.parent.job_id == routed.job_id]
    assert result_of(succeeded) == result_of(second) != os.getpid()  # One worker process serves both.
    assert [claim.object.text for claim in succeeded.claims] == ["hello"]
    assert log.of(AttemptProgressed, job_id=routed.job_id)[0].message == "hello"
    assert logged.lines[0].message == "said hello"
    assert child.payload.data == b'{"said":"hello"}'
    assert refused.error.code == "payload_invalid"


async def test_what_happens_to_a_worker_process_happens_to_its_attempt_alone(log: Log, tmp_path: Path) -> None:
    async with log.running(handlers.runner, tmp_path, target=f"{TARGET}:runner") as process:
        raises = await log.route(process.runner_id, "process.fails", "raises")
        dies = await log.route(process.runner_id, "process.fails", "dies")
        deaf = await log.route(process.runner_id, "process.deaf", {"path": str(tmp_path / "pid")})
        polls = await log.route(process.runner_id, "process.polls")
        failures = [await log.one(AttemptFailed, job_id=one.job_id) for one in (raises, dies, deaf)]
        await log.one(AttemptProgressed, job_id=polls.job_id)
        await log.revoke(polls)
        await log.one(AttemptCancelled, job_id=polls.job_id)
        goes_on = await log.route(process.runner_id, "process.says", "still here")
        await log.one(AttemptSucceeded, job_id=goes_on.job_id)
        killed = int((tmp_path / "pid").read_text())
        await log.until(lambda: not Path(f"/proc/{killed}").exists())
    assert [one.error.code for one in failures] == ["handler_failed", "runner_broken", "attempt_timed_out"]
    assert (failures[0].error.retryable, failures[0].error.found) == (False, "asked")
    assert failures[1].error.retryable
    assert "it ended by SIGKILL" in failures[1].error.message


def test_the_runner_of_these_tests_is_found() -> None:
    assert isinstance(load_runner(f"{TARGET}:runner"), Runner)
