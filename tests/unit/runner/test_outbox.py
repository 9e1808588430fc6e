"""Delivery when the log comes and goes: in order, each result at least once, within bounds."""

import asyncio
from collections.abc import Sequence

import pytest

from controlplane.events.header import outside_header
from controlplane.events.identity import Instant
from controlplane.events.types import AttemptStarted, LogPosition, Producer, RunnerHeartbeat
from controlplane.log.connection import LogUnavailable
from controlplane.log.producer import OutgoingRecord
from controlplane.runner import outbox as outbox_module
from controlplane.runner.outbox import Outbox

IDENTITY = Producer(service="runner", version="1")


class Wire:
    """What the outbox needs of a producer; the test answers its calls."""

    identity = IDENTITY

    def __init__(self) -> None:
        self.calls: asyncio.Queue[tuple[list[int], asyncio.Future[list[LogPosition]]]] = asyncio.Queue()

    def record(self, event: RunnerHeartbeat | AttemptStarted, *, partition: int | None = None) -> OutgoingRecord:
        number = event.attempt_number if isinstance(event, AttemptStarted) else event.sequence
        return OutgoingRecord(topic="t", partition=partition or 0, key=b"", value=str(number).encode())

    def send(self, records: Sequence[OutgoingRecord]) -> "asyncio.Future[list[LogPosition]]":
        answer: asyncio.Future[list[LogPosition]] = asyncio.get_running_loop().create_future()
        self.calls.put_nowait(([int(record.value) for record in records], answer))
        return answer

    async def answer(self, error: Exception | None = None) -> list[int]:
        """Answer the oldest call that waits, and return the records that it had."""
        numbers, future = await self.calls.get()
        if error is None:
            future.set_result([])
        else:
            future.set_exception(error)
        await asyncio.sleep(0)
        return numbers


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    monkeypatch.setattr(outbox_module, "RETRY_SECONDS", 0)
    return Wire()


def event(number: int) -> RunnerHeartbeat:
    header = outside_header("RunnerHeartbeat", str(number), IDENTITY, Instant(1))
    return RunnerHeartbeat(header=header, runner_id="r", sequence=number)


async def test_what_is_said_in_one_turn_goes_together(wire: Wire) -> None:
    outbox = Outbox(wire)  # type: ignore[arg-type]
    acknowledged: list[int] = []
    for number in range(3):
        outbox.emit(event(number), acknowledged=lambda number=number: acknowledged.append(number))  # type: ignore[misc]
    assert outbox.unacknowledged == 3
    assert await wire.answer() == [0, 1, 2]
    assert acknowledged == [0, 1, 2]
    await outbox.flush()
    outbox.emit(event(3))
    assert await wire.answer() == [3]
    await outbox.flush()


def start(number: int) -> AttemptStarted:
    header = outside_header("AttemptStarted", str(number), IDENTITY, Instant(1))
    return AttemptStarted(header=header, job_id="j", attempt_id="a", attempt_number=number, runner_id="r")


async def test_a_short_attempt_s_start_goes_with_its_end_and_a_long_one_s_by_itself(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Outbox(wire)  # type: ignore[arg-type]
    monkeypatch.setattr(outbox_module, "STARTS_WAIT_SECONDS", 60)
    outbox.emit(start(1))
    await asyncio.sleep(0)  # As many turns as a handler that returns at once takes, and more.
    await asyncio.sleep(0)
    assert wire.calls.empty()
    outbox.emit(event(2))
    assert await wire.answer() == [1, 2]
    monkeypatch.setattr(outbox_module, "STARTS_WAIT_SECONDS", 0)
    outbox.emit(start(3))
    outbox.emit(start(4))
    assert await wire.answer() == [3, 4]
    await outbox.flush()
    assert wire.calls.empty()


async def test_what_the_log_did_not_take_goes_again_before_what_came_later(wire: Wire) -> None:
    outbox = Outbox(wire)  # type: ignore[arg-type]
    acknowledged: list[int] = []
    for number in (0, 1):
        outbox.emit(event(number), acknowledged=lambda number=number: acknowledged.append(number))  # type: ignore[misc]
    assert await wire.answer(LogUnavailable("away")) == [0, 1]
    outbox.emit(event(2))
    assert acknowledged == []
    assert await wire.answer(LogUnavailable("still away")) == [0, 1, 2]
    assert await wire.answer() == [0, 1, 2]
    await outbox.flush()
    assert acknowledged == [0, 1]
    assert outbox.unacknowledged == 0


async def test_while_the_log_is_away_results_are_kept_and_the_rest_is_bounded(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "DROP_ABOVE_RECORDS", 3)
    monkeypatch.setattr(outbox_module, "RETRY_SECONDS", 0.05)
    outbox = Outbox(wire)  # type: ignore[arg-type]
    outbox.emit(event(0))
    outbox.emit(event(1), droppable=True)
    assert await wire.answer(LogUnavailable("away")) == [0, 1]
    for number in range(2, 10):
        outbox.emit(event(number), droppable=number % 2 == 1)
    sent = await wire.answer()
    assert set(range(0, 10, 2)) <= set(sent)
    assert sent == sorted(sent)
    assert len(sent) < 10
    await outbox.flush()
