"""The broker dies while handlers run: their work is not lost, it is told when the broker is back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.events.types import AttemptStarted, AttemptSucceeded, RunnerHeartbeat, RunnerLeft
from controlplane.local.stack import EmbeddedStack
from controlplane.log.connection import LogConnection
from controlplane.log.topics import ensure_topics
from controlplane.runner import JobContext, Runner
from controlplane.settings import Settings
from tests.integration.runner.conftest import Log, result_of


@pytest.fixture
async def own_log(own_stack: EmbeddedStack) -> AsyncIterator[Log]:
    """The log of a broker that this test may kill."""
    connection = LogConnection(bootstrap=own_stack.kafka_bootstrap)
    partitions = await ensure_topics(connection, Settings(kafka_bootstrap=own_stack.kafka_bootstrap))
    async with Log(connection, partitions).following() as log:
        yield log


async def test_what_handlers_did_while_the_broker_was_dead_is_told_afterwards(
    own_log: Log, own_stack: EmbeddedStack, tmp_path: Path
) -> None:
    log = own_log
    runner = Runner("patient", slots=8)
    broker_is_dead = asyncio.Event()

    @runner.capability("finishes_in_the_dark")
    async def finish(payload: int, job: JobContext) -> int:
        await broker_is_dead.wait()
        job.progress(0.5)
        job.submit("part", payload)
        return payload

    async with log.running(runner, tmp_path) as process:
        routed = [await log.route(process.runner_id, "finishes_in_the_dark", number) for number in range(8)]
        for one in routed:
            await log.one(AttemptStarted, job_id=one.job_id)
        await asyncio.to_thread(own_stack.kafka.kill)
        broker_is_dead.set()
        await asyncio.sleep(0)
        beats = len(log.of(RunnerHeartbeat, runner_id=process.runner_id))
        await asyncio.to_thread(own_stack.kafka.start)
        succeeded = [await log.one(AttemptSucceeded, job_id=one.job_id) for one in routed]
        await log.until(lambda: len(log.of(RunnerHeartbeat, runner_id=process.runner_id)) >= beats + 3)
        after = await log.route(process.runner_id, "finishes_in_the_dark", 99)  # The inbox is read on.
        assert result_of(await log.one(AttemptSucceeded, job_id=after.job_id)) == 99
    assert [result_of(one) for one in succeeded] == list(range(8))
    await log.one(RunnerLeft, runner_id=process.runner_id)
    for one in routed:
        assert log.story(one.job_id)[-1] == "AttemptSucceeded"
