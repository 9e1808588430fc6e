"""What a handler says while it runs: log lines, progress, and results too large for an event."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.events.types import (
    AttemptFailed,
    AttemptProgressed,
    AttemptSucceeded,
    Content,
    JobLogged,
    JobSubmitted,
)
from controlplane.runner import JobContext, Runner
from controlplane.runner.joblogs import JobLogHandler
from tests.integration.runner.conftest import Log, contents_of, result_of


@pytest.fixture(autouse=True)
def captured() -> Iterator[None]:
    """What handlers log reaches their jobs, as `service.run` arranges it."""
    handler = JobLogHandler()
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)


async def test_what_a_handler_logs_is_kept_with_its_job_and_bounded(log: Log, tmp_path: Path) -> None:
    runner = Runner("talks")

    @runner.capability("talks")
    async def talks(payload: int, job: JobContext) -> None:
        for number in range(payload):
            logging.getLogger("some.library").warning("line %d", number)
        job.log.error("x" * 5_000)

    @runner.capability("talks_in_a_thread")
    def talks_in_a_thread(_: None, job: JobContext) -> None:
        job.log.warning("from a thread: %s", "ok")

    async with log.running(runner, tmp_path) as process:
        few = await log.route(process.runner_id, "talks", 3)
        many = await log.route(process.runner_id, "talks", 1_500)
        thread = await log.route(process.runner_id, "talks_in_a_thread")
        for one in (few, many, thread):
            await log.one(AttemptSucceeded, job_id=one.job_id)
        await log.until(lambda: sum(len(one.lines) for one in log.of(JobLogged, job_id=many.job_id)) == 1_000)
        lines = [line for one in log.of(JobLogged, job_id=few.job_id) for line in one.lines]
        await log.until(lambda: any(one.dropped == 501 for one in log.of(JobLogged, job_id=many.job_id)))
        [from_thread] = await log.until(lambda: log.of(JobLogged, job_id=thread.job_id))
    assert [line.message for line in lines] == ["line 0", "line 1", "line 2", "x" * 4_000]
    assert [line.level for line in lines] == ["WARNING"] * 3 + ["ERROR"]
    assert [line.logger for line in lines] == ["some.library"] * 3 + ["job.talks"]
    assert from_thread.lines[0].message == "from a thread: ok"
    assert from_thread.attempt_id == thread.attempt_id


async def test_progress_beyond_a_few_times_a_second_is_the_newest_only(log: Log, tmp_path: Path) -> None:
    runner = Runner("eager")

    @runner.capability("reports")
    async def reports(payload: int, job: JobContext) -> None:
        for number in range(payload):
            job.progress((number + 1) / payload)

    async with log.running(runner, tmp_path) as process:
        routed = await log.route(process.runner_id, "reports", 10_000)
        await log.one(AttemptSucceeded, job_id=routed.job_id)
    fractions = [one.fraction for one in log.of(AttemptProgressed, job_id=routed.job_id)]
    assert 2 <= len(fractions) < 100
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


async def test_large_payloads_and_results_are_kept_beside_the_log(log: Log, tmp_path: Path) -> None:
    runner = Runner("large")

    @runner.capability("doubles")
    async def doubles(payload: str) -> str:
        return payload * 2

    store = contents_of(tmp_path)
    kept = store.check_in(Content(data=b'"' + b"x" * 20_000 + b'"'))
    assert kept.reference is not None
    async with log.running(runner, tmp_path) as process:
        routed = await log.route(process.runner_id, "doubles", payload=None)
        await log.one(AttemptFailed, job_id=routed.job_id)
        large = log.routed(process.runner_id, "doubles")
        large = type(large)(**{name: getattr(large, name) for name in large.__struct_fields__} | {"payload": kept})
        await log.write(large, partition=log.inbox(process.runner_id))
        succeeded = await log.one(AttemptSucceeded, job_id=large.job_id)
        (tmp_path / "contents" / kept.reference.sha256[:2] / kept.reference.sha256).unlink()
        lost = log.routed(process.runner_id, "doubles")
        lost = type(lost)(**{name: getattr(lost, name) for name in lost.__struct_fields__} | {"payload": kept})
        await log.write(lost, partition=log.inbox(process.runner_id))
        failed = await log.one(AttemptFailed, job_id=lost.job_id)
    assert succeeded.result.reference is not None
    assert store.check_out(succeeded.result) == b'"' + b"x" * 40_000 + b'"'
    assert (failed.error.code, failed.error.retryable) == ("not_found", False)


async def test_a_large_payload_of_a_child_is_kept_beside_the_log_or_its_parent_fails(log: Log, tmp_path: Path) -> None:
    runner = Runner("large_parent")
    payload = "x" * 20_000

    @runner.capability("splits")
    async def splits(_: None, job: JobContext) -> str:
        child = job.submit("part", payload)
        job.submit("part", "small")
        return child.job_id

    async with log.running(runner, tmp_path) as process:
        routed = await log.route(process.runner_id, "splits")
        succeeded = await log.one(AttemptSucceeded, job_id=routed.job_id)
        child = await log.one(JobSubmitted, job_id=result_of(succeeded))
        shutil.rmtree(tmp_path / "contents")
        (tmp_path / "contents").touch()  # The store is broken now.
        again = await log.route(process.runner_id, "splits")
        failed = await log.one(AttemptFailed, job_id=again.job_id)
    assert child.payload.reference is not None
    assert child.payload.reference.size_bytes == len(payload) + 2
    assert (failed.error.code, failed.error.retryable) == ("handler_failed", True)
