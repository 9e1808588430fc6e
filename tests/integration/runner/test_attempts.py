"""What a runner says about the attempts that are leased to it, on a real log."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from controlplane.events.identity import partition_of
from controlplane.events.types import (
    AttemptCancelled,
    AttemptFailed,
    AttemptProgressed,
    AttemptStarted,
    AttemptSucceeded,
    Category,
    Claim,
    Content,
    JobSubmitted,
    ParentJob,
    TypedValue,
    ValueKind,
)
from controlplane.runner import JobContext, NonRetryable, RetryLater, Runner
from controlplane.runner.joblogs import JobLogHandler
from tests.integration.runner.conftest import Log, result_of


class Thumbnail(BaseModel):
    image: str
    width: int = Field(gt=0)


class Made(BaseModel):
    path: str
    bytes: int = 0


class How(BaseModel):
    how: str


def fails(payload: How, job: JobContext) -> None:
    match payload.how:
        case "value":
            raise ValueError("no such thing")
        case "never":
            raise NonRetryable("it cannot be", code="impossible")
        case "later":
            raise RetryLater(7)
        case "exit":
            raise SystemExit(3)
        case "claim":
            job.claim("s", "p", 1, confidence=2)


@pytest.fixture(autouse=True)
def captured() -> Iterator[None]:
    """What handlers log reaches their jobs, as `service.run` arranges it."""
    handler = JobLogHandler()
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)


async def test_an_attempt_is_told_step_by_step_each_caused_by_the_lease(log: Log, tmp_path: Path) -> None:
    runner = Runner("media")

    @runner.capability("image.thumbnail", version="1.2.0")
    async def thumbnail(payload: Thumbnail, job: JobContext) -> Made:
        await job.progress(0.5, "resized")
        job.claim(f"image:{payload.image}", "width", payload.width, confidence=0.99, unit="px", inputs=["a/0/1"])
        return Made(path=f"{payload.image}.png")

    async with log.running(runner, tmp_path) as process:
        routed = await log.route(process.runner_id, "image.thumbnail", {"image": "cat", "width": 64})
        succeeded = await log.one(AttemptSucceeded, job_id=routed.job_id)

    assert log.story(routed.job_id) == ["AttemptStarted", "AttemptProgressed", "AttemptSucceeded"]
    assert result_of(succeeded) == {"path": "cat.png", "bytes": 0}
    assert succeeded.claims == (
        Claim(
            subject="image:cat", predicate="width", object=TypedValue(kind=ValueKind.NUMBER, text="64", number=64.0, unit="px"),
            confidence=0.99, inputs=("a/0/1",),
        ),
    )  # fmt: skip
    assert (succeeded.capability, succeeded.runner_name) == ("image.thumbnail@1.2.0", "media")
    assert log.of(AttemptProgressed, job_id=routed.job_id)[0].message == "resized"
    said = [seen for seen in log.seen if getattr(seen.event, "attempt_id", None) == routed.attempt_id]
    causes = {seen.event.header.causation for seen in said}
    assert {(cause.topic, cause.partition) for cause in causes} == {
        ("controlplane.routing", log.inbox(process.runner_id))
    }
    assert len(causes) == 1
    assert {seen.event.header.correlation_id for seen in said} == {routed.header.correlation_id}
    assert {(seen.event.header.tenant, seen.event.header.actor) for seen in said} == {("acme", "ada")}
    assert {seen.position.partition for seen in said} == {routed.job_partition}
    assert len({seen.event.header.event_id for seen in said}) == 3
    assert {seen.event.header.producer.instance for seen in said} == {process.runner_id}


async def test_plain_functions_run_in_threads_beside_each_other(log: Log, tmp_path: Path) -> None:
    runner = Runner("plain", slots=3)
    together = threading.Barrier(3)

    @runner.capability("meet")
    def meet(_: None, job: JobContext) -> str:
        job.progress(0.1)
        together.wait(30)
        return threading.current_thread().name

    async with log.running(runner, tmp_path) as process:
        routed = [await log.route(process.runner_id, "meet") for _ in range(3)]
        results = {result_of(await log.one(AttemptSucceeded, job_id=one.job_id)) for one in routed}
    assert len(results) == 3
    assert log.story(routed[0].job_id) == ["AttemptStarted", "AttemptProgressed", "AttemptSucceeded"]


@pytest.mark.parametrize(
    ("job_type", "payload", "code", "retryable", "message"),
    [
        ("fails", {"how": "value"}, "handler_failed", True, "ValueError: no such thing"),
        ("fails", {"how": "never"}, "handler_failed", False, "it cannot be"),
        ("fails", {"how": "later"}, "handler_failed", True, "Expected to succeed now, but have to wait 7 s."),
        ("fails", {"how": "exit"}, "handler_failed", True, "SystemExit: 3"),
        ("fails", {"how": "claim"}, "handler_failed", False, "Expected a confidence in [0, 1] for p, but found 2."),
        ("fails", {}, "payload_invalid", False, "payload.how: Field required"),
        ("fails", [1], "payload_invalid", False, "Expected a payload that keeps its contract"),
        ("wrong_result", None, "result_invalid", False, "result.path: Field required"),
        ("large_result", None, "result_invalid", False, "Result and claims"),
        ("unknown", None, "job_type_unknown", False, "Expected one of fails@1.0.0"),
    ],
)
async def test_what_goes_wrong_is_told_as_an_envelope(
    log: Log, tmp_path: Path, job_type: str, payload: object, code: str, retryable: bool, message: str
) -> None:
    runner = Runner("failing")

    runner.capability("fails")(fails)

    @runner.capability("wrong_result")
    async def wrong_result(_: None) -> Made:
        return {"bytes": 1}  # type: ignore[return-value]

    @runner.capability("large_result")
    async def large_result(_: None, job: JobContext) -> None:
        for number in range(20):
            job.claim("s", "p", f"{number % 10}" * 60_000)

    async with log.running(runner, tmp_path) as process:
        routed = await log.route(process.runner_id, job_type, payload)
        failed = await log.one(AttemptFailed, job_id=routed.job_id)
        again = await log.route(process.runner_id, "large_result" if job_type != "large_result" else "wrong_result")
        await log.one(AttemptFailed, job_id=again.job_id)  # The runner goes on.
    assert (failed.error.code, failed.error.retryable) == (code, retryable)
    assert message in failed.error.message
    if payload == {"how": "later"}:
        assert failed.error.retry_after_seconds == 7
    if payload == {"how": "never"}:
        assert (failed.error.found, failed.error.category) == ("impossible", Category.EXECUTION)
    if not payload and job_type == "fails":
        assert failed.error.field == "payload.how"


async def test_a_major_version_that_is_not_offered_is_refused(log: Log, tmp_path: Path) -> None:
    runner = Runner("versions")

    @runner.capability("twice", version="1.4.0")
    async def old(_: None) -> str:
        return "old"

    @runner.capability("twice", version="2.0.1")
    async def new(_: None) -> str:
        return "new"

    async with log.running(runner, tmp_path) as process:
        routed = [await log.route(process.runner_id, "twice", contract_major=major) for major in (1, 2, 3)]
        one, two = [await log.one(AttemptSucceeded, job_id=job.job_id) for job in routed[:2]]
        refused = await log.one(AttemptFailed, job_id=routed[2].job_id)
    assert (result_of(one), one.capability) == ("old", "twice@1.4.0")
    assert (result_of(two), two.capability) == ("new", "twice@2.0.1")
    assert refused.error.code == "contract_version_unknown"


async def test_an_attempt_ends_when_its_time_is_over_whether_its_handler_listens_or_not(
    log: Log, tmp_path: Path
) -> None:
    runner = Runner("slow", slots=3)
    go_on = threading.Event()
    stopped: list[str] = []

    @runner.capability("sleeps", timeout=60)
    async def sleeps(_: None) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.append("sleeps")

    @runner.capability("polls", timeout=0.1)
    def polls(_: None, job: JobContext) -> None:
        while not job.cancelled:
            time.sleep(0.001)
        stopped.append("polls")
        job.raise_if_cancelled()

    @runner.capability("deaf", timeout=0.1)
    def deaf(_: None) -> str:
        go_on.wait(60)
        return "too late"

    async with log.running(runner, tmp_path) as process:
        routed = [
            await log.route(process.runner_id, "sleeps", timeout_seconds=0.1),  # The job's own limit goes before.
            await log.route(process.runner_id, "polls"),
            await log.route(process.runner_id, "deaf"),
        ]
        failures = [await log.one(AttemptFailed, job_id=one.job_id) for one in routed]
        go_on.set()
    assert {failure.error.code for failure in failures} == {"attempt_timed_out"}
    assert all(failure.error.retryable and failure.duration_micros >= 100_000 for failure in failures)
    assert sorted(stopped) == ["polls", "sleeps"]
    assert all(log.story(one.job_id) == ["AttemptStarted", "AttemptFailed"] for one in routed)


async def test_a_revoked_lease_stops_its_handler(log: Log, tmp_path: Path) -> None:
    runner = Runner("revoked", slots=2)

    @runner.capability("sleeps")
    async def sleeps(_: None) -> None:
        await asyncio.sleep(60)

    @runner.capability("polls")
    def polls(_: None, job: JobContext) -> None:
        while True:
            job.raise_if_cancelled()
            time.sleep(0.001)

    async with log.running(runner, tmp_path) as process:
        routed = [await log.route(process.runner_id, job_type) for job_type in ("sleeps", "polls", "sleeps")]
        for one in routed[:2]:
            await log.one(AttemptStarted, job_id=one.job_id)
        for one in routed[::-1]:  # The third waits for a slot: it is given back before it begins.
            await log.revoke(one, "not needed any more")
        cancelled = [await log.one(AttemptCancelled, job_id=one.job_id) for one in routed]
    assert {one.reason for one in cancelled} == {"not needed any more"}
    assert log.story(routed[2].job_id) == ["AttemptCancelled"]


async def test_no_more_run_at_once_than_there_are_slots(log: Log, tmp_path: Path) -> None:
    runner = Runner("narrow", slots=4)
    running, most = 0, 0

    @runner.capability("counts", slots=2)
    async def counts(_: None) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    async with log.running(runner, tmp_path) as process:
        routed = [await log.route(process.runner_id, "counts", slots=2) for _ in range(10)]
        for one in routed:
            await log.one(AttemptSucceeded, job_id=one.job_id)
    assert most == 2


async def test_a_lease_is_taken_once_however_often_it_is_routed(log: Log, tmp_path: Path) -> None:
    runner = Runner("once")
    calls = []

    @runner.capability("calls")
    async def count(payload: int) -> None:
        calls.append(payload)

    async with log.running(runner, tmp_path) as process:
        routed = log.routed(process.runner_id, "calls", 1)
        for _ in range(3):
            await log.write(routed, partition=log.inbox(process.runner_id))
        other = await log.route(process.runner_id, "calls", 2)
        await log.one(AttemptSucceeded, job_id=other.job_id)
    assert calls == [1, 2]


async def test_runners_that_share_an_inbox_take_what_is_theirs(log: Log, tmp_path: Path) -> None:
    runner = Runner("shared")

    @runner.capability("echo")
    async def echo(payload: str) -> str:
        return payload

    async with log.running(runner, tmp_path) as process:
        inbox = log.inbox(process.runner_id)
        not_ours = log.routed("another@1", "echo", f"mentions {process.runner_id}")
        await log.write(not_ours, partition=inbox)
        await log.write(log.routed("another@2", "echo", "x"), partition=inbox)
        ours = await log.route(process.runner_id, "echo", "y")
        await log.one(AttemptSucceeded, job_id=ours.job_id)
    assert log.story(not_ours.job_id) == []


async def test_children_stand_on_the_log_before_their_parent_succeeds_and_once_for_all_attempts(
    log: Log, tmp_path: Path
) -> None:
    runner = Runner("parent")

    @runner.capability("splits")
    async def splits(payload: int, job: JobContext) -> list[str]:
        first = await job.submit("part", {"n": 1})
        second = job.submit("part", {"n": 2}, key="two", priority=9, retry={"max_attempts": 1})
        return [first.job_id, second.job_id]

    @runner.capability("splits_in_a_thread")
    def splits_in_a_thread(_: None, job: JobContext) -> str:
        return job.submit("part", priority=1).job_id

    async with log.running(runner, tmp_path) as process:
        routed = await log.route(process.runner_id, "splits", 2, pool="gpu", priority=7)
        succeeded = await log.one(AttemptSucceeded, job_id=routed.job_id)
        again = await log.route(process.runner_id, "splits", 2, job_id=routed.job_id, attempt_number=2)
        repeated = await log.one(AttemptSucceeded, attempt_id=again.attempt_id)
        thread = await log.route(process.runner_id, "splits_in_a_thread")
        await log.one(AttemptSucceeded, job_id=thread.job_id)
        children = await log.until(
            lambda: len(found := log.of(JobSubmitted)) == 5 and [one for one in found if one.parent is not None]
        )
    assert result_of(succeeded) == result_of(repeated)
    split = [one for one in children if one.parent and one.parent.job_id == routed.job_id]
    # Children of one parent are in partitions of their own, which are read in any order.
    first, second = (next(one for one in split if one.job_id == name) for name in result_of(succeeded))
    assert len({one.job_id for one in children}) == 3
    assert (len(split), len({one.header.event_id for one in split})) == (4, 2)
    assert first.parent == ParentJob(job_id=routed.job_id, attempt_id=routed.attempt_id)
    assert (first.header.correlation_id, first.header.tenant) == (routed.header.correlation_id, "acme")
    assert first.header.causation == succeeded.header.causation
    assert (first.pool, first.priority, second.priority) == ("gpu", 7, 9)
    assert first.payload == Content(data=b'{"n":1}')
    for seen in log.seen:
        if isinstance(seen.event, JobSubmitted):
            assert seen.position.partition == partition_of(
                seen.event.job_id.encode(), log.partitions["controlplane.submissions"]
            )
