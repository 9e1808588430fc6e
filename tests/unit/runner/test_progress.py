"""However often a handler reports, it is told at an even rate, and the last report always."""

import asyncio
import time

import pytest

from controlplane.runner import JobContext, Runner, attempt
from controlplane.runner.testing import run_handler

SECONDS = 0.05
runner = Runner("reports", slots=1)


@runner.capability("loop")
async def on_the_loop(seconds: float, job: JobContext) -> float:
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        await job.progress(passed / seconds / 2)
    await job.progress(1)
    return time.monotonic() - began


@runner.capability("thread")
def in_a_thread(seconds: float, job: JobContext) -> float:
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        job.progress(passed / seconds / 2)
        time.sleep(0.001)
    job.progress(1)
    return time.monotonic() - began


@runner.capability("bursts")
async def bursts(reports: int, job: JobContext) -> None:
    for number in range(reports):
        job.progress(number / reports)
    await asyncio.sleep((attempt.PROGRESS_BURST + 1) * SECONDS)
    for _ in range(reports):
        job.progress(1)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell more often than usual, to see it in less time."""
    monkeypatch.setattr(attempt, "PROGRESS_SECONDS", SECONDS)


@pytest.mark.parametrize("job_type", ["loop", "thread"])
def test_reports_without_a_pause_are_told_at_an_even_rate(job_type: str) -> None:
    run = run_handler(runner, job_type, 1.0)
    assert run.outcome == "succeeded"
    fractions = [fraction for fraction, _ in run.progress]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert attempt.PROGRESS_BURST < len(fractions) <= attempt.PROGRESS_BURST + run.result / SECONDS + 2


def test_as_many_as_a_burst_are_all_told_and_again_after_a_silence() -> None:
    run = run_handler(runner, "bursts", attempt.PROGRESS_BURST)
    assert len(run.progress) == 2 * attempt.PROGRESS_BURST
