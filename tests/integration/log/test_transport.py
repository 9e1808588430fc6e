"""The batch transport on a real broker: nothing is skipped, whoever dies, freezes or joins."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from controlplane.local.stack import EmbeddedStack
from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.log.group import OffsetBook
from controlplane.log.positions import Partition
from controlplane.log.transport import batch_app, run_app
from tests.integration.local.waiting import wait_until
from tests.integration.log.topics import made, numbered, producing
from tests.integration.log.worker import Ledger

SESSION_SECONDS = 6.0
PARTITIONS = 4

Handle = Callable[[Sequence[Any]], Awaitable[None]]


@pytest.fixture
def connection(kafka_bootstrap: str) -> LogConnection:
    return LogConnection(bootstrap=kafka_bootstrap)


class Reading:
    """A group member inside of this process, and what it got."""

    def __init__(self, connection: LogConnection, topic: str, positions: Mapping[Partition, int]) -> None:
        self.connection = connection
        self.topic = topic
        self.positions = dict(positions)
        self.taken_over: list[set[Partition]] = []
        self.got: dict[Partition, list[int]] = {}
        self.sizes: list[int] = []
        self.stop = asyncio.Event()
        self.moved = asyncio.Event()

    async def take_over(self, assigned: set[Partition]) -> Mapping[Partition, int]:
        self.taken_over.append(assigned)
        return {one: self.positions.get(one, 0) for one in assigned}

    async def handle(self, records: Sequence[Any]) -> None:
        place = (records[0].topic, records[0].partition)
        self.got.setdefault(place, []).extend(int(record.value) for record in records)
        self.sizes.append(len(records))
        self.moved.set()

    async def run(self, handle: Handle | None = None) -> None:
        app = batch_app(
            self.topic, self.connection, take_over=self.take_over, session_seconds=SESSION_SECONDS, client_id="test"
        )

        async def read(stream: Any) -> None:
            async for event in stream.noack().events():
                await (handle or self.handle)(event.value)
                event.ack()

        app.agent(app.topic(self.topic, key_serializer="raw", value_serializer="raw"))(read)
        await run_app(app, self.stop)

    async def until(self, count: int, running: asyncio.Task[None]) -> None:
        """Wait until that many records came; raises what ended the application before."""
        while sum(map(len, self.got.values())) < count:
            self.moved.clear()
            moving = asyncio.create_task(self.moved.wait())
            await asyncio.wait({moving, running}, return_when=asyncio.FIRST_COMPLETED)
            moving.cancel()
            if running.done():
                running.result()
                pytest.fail("Expected the application to go on, but it stopped.")


async def test_reading_begins_at_the_positions_of_the_application(connection: LogConnection, namespace: str) -> None:
    counts = await made(connection, namespace, 2)
    async with producing(connection, counts) as producer:
        await producer.send(numbered(namespace, range(10_000), partitions=2))
        # Faust's committed offsets say otherwise; they are not asked.
        async with OffsetBook(connection, namespace) as book:
            await book.write({(namespace, 0): 4000, (namespace, 1): 1})
        reading = Reading(connection, namespace, {(namespace, 0): 10, (namespace, 1): 4990})
        running = asyncio.create_task(reading.run())
        await reading.until(5000, running)
        await producer.send(numbered(namespace, range(10_000, 10_002), partitions=2))
        await reading.until(5002, running)
        reading.stop.set()
        await running
    assert reading.got == {(namespace, 0): list(range(20, 10_002, 2)), (namespace, 1): list(range(9981, 10_002, 2))}
    assert reading.taken_over == [{(namespace, 0), (namespace, 1)}]
    assert max(reading.sizes) > 100  # Batches, not records.
    async with OffsetBook(connection, namespace) as book:  # The hint, for tools that show the lag.
        assert await book.read([(namespace, 0), (namespace, 1)]) == {(namespace, 0): 5001, (namespace, 1): 5001}


async def test_partitions_that_the_brokers_did_not_know_of_are_shared_out_soon(
    connection: LogConnection, namespace: str
) -> None:
    reading = Reading(connection, namespace, {})
    running = asyncio.create_task(reading.run())
    await asyncio.sleep(SESSION_SECONDS / 2)  # It is in its group now, and was given nothing.
    counts = await made(connection, namespace, 1)
    async with producing(connection, counts) as producer, asyncio.timeout(60):
        await producer.send(numbered(namespace, range(10)))
        await reading.until(10, running)
    reading.stop.set()
    await running
    assert reading.got == {(namespace, 0): list(range(10))}


async def test_a_failed_batch_ends_the_application_and_is_not_skipped(
    connection: LogConnection, namespace: str
) -> None:
    counts = await made(connection, namespace, 1)
    reading = Reading(connection, namespace, {})

    async with producing(connection, counts) as producer:

        async def fail(records: Sequence[Any]) -> None:
            await reading.handle(records)
            await producer.send(numbered(namespace, range(10, 20)))
            raise LookupError("Expected to fail.")

        await producer.send(numbered(namespace, range(10)))
        with pytest.raises(LookupError, match=r"Expected to fail\."):
            await reading.run(fail)
    assert reading.got == {(namespace, 0): list(range(10))}
    async with OffsetBook(connection, namespace) as book:
        assert await book.read([(namespace, 0)]) == {(namespace, 0): None}


async def test_a_take_over_that_fails_ends_the_application(connection: LogConnection, namespace: str) -> None:
    await made(connection, namespace, 1)
    reading = Reading(connection, namespace, {})

    async def fail(assigned: set[Partition]) -> Mapping[Partition, int]:
        raise LookupError(f"Expected to fail with {len(assigned)}.")

    reading.take_over = fail  # type: ignore[method-assign]
    with pytest.raises(LookupError, match=r"Expected to fail with 1\."):
        await reading.run()


async def test_a_cancelled_application_leaves_its_group_at_once(connection: LogConnection, namespace: str) -> None:
    counts = await made(connection, namespace, 2)
    async with producing(connection, counts) as producer:
        await producer.send(numbered(namespace, range(10), partitions=2))
        for _ in range(2):
            reading = Reading(connection, namespace, {})
            running = asyncio.create_task(reading.run())
            await reading.until(10, running)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert reading.taken_over == [{(namespace, 0), (namespace, 1)}]  # Nobody is left who has one of them.


async def test_no_broker_is_said(namespace: str) -> None:
    reading = Reading(LogConnection(bootstrap="127.0.0.1:1"), namespace, {})
    with pytest.raises(LogUnavailable):
        await reading.run()


async def test_reading_goes_on_when_the_broker_comes_back(own_stack: EmbeddedStack) -> None:
    connection = LogConnection(bootstrap=own_stack.kafka_bootstrap)
    counts = await made(connection, "numbers", 2)
    reading = Reading(connection, "numbers", {})
    running = asyncio.create_task(reading.run())
    async with producing(connection, counts) as producer:
        await producer.send(numbered("numbers", range(1000), partitions=2))
        await reading.until(1000, running)
        reading.positions = {place: len(numbers) for place, numbers in reading.got.items()}
        await asyncio.to_thread(own_stack.kafka.kill)
        await asyncio.to_thread(own_stack.kafka.start)
        await producer.send(numbered("numbers", range(1000, 2000), partitions=2))
        await reading.until(2000, running)
    reading.stop.set()
    await running
    assert reading.got == {("numbers", one): list(range(one, 2000, 2)) for one in range(2)}


# Several processes


@contextmanager
def member(bootstrap: str, file: Path, name: str, *topics: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the group during the block; ended in order, or by force if it was frozen."""
    command = [sys.executable, "-m", "tests.integration.log.worker", bootstrap, str(file), name, str(SESSION_SECONDS)]
    process = subprocess.Popen([*command, *topics])
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(30.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def owners(ledger: Ledger) -> dict[str, str]:
    """Return which member took each partition over last."""
    found: dict[str, str] = {}
    for name, what, partitions in ledger.rows("SELECT member, what, partitions FROM happened ORDER BY rowid"):
        if what == "took over":
            found.update(dict.fromkeys(partitions.split(), name))
    return found


def shared_by(ledger: Ledger, *names: str) -> bool:
    return len(owners(ledger)) == PARTITIONS and set(owners(ledger).values()) == set(names)


def count(ledger: Ledger) -> int:
    found: int = ledger.rows("SELECT count(*) FROM seen")[0][0]
    return found


async def send_all(connection: LogConnection, numbers: range) -> None:
    async with producing(connection, {"numbers": PARTITIONS}) as producer:
        for start in range(numbers.start, numbers.stop, 100):
            await producer.send(numbered("numbers", range(start, start + 100), partitions=PARTITIONS))


def assert_each_number_once(ledger: Ledger, sent: int) -> None:
    found = ledger.rows("SELECT partition, number FROM seen ORDER BY partition, rowid")
    assert found == [(one, number) for one in range(PARTITIONS) for number in range(one, sent, PARTITIONS)]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP])
def test_what_a_dead_or_frozen_member_had_goes_on_with_another(
    own_stack: EmbeddedStack, tmp_path: Path, harm: signal.Signals
) -> None:
    """What was read twice is absorbed by the stored position, and what only the victim had read is read again."""
    connection = LogConnection(bootstrap=own_stack.kafka_bootstrap)
    asyncio.run(made(connection, "numbers", PARTITIONS))
    file = tmp_path / "ledger.sqlite"
    with ExitStack() as running, closing(Ledger(file)) as ledger:
        victim = running.enter_context(member(connection.bootstrap, file, "victim", "numbers"))
        running.enter_context(member(connection.bootstrap, file, "other", "numbers"))
        wait_until(lambda: shared_by(ledger, "victim", "other"), "both to have partitions", 60.0)
        asyncio.run(send_all(connection, range(4000)))
        if harm is signal.SIGSTOP:  # In the middle of its transaction, it would freeze the ledger with it.
            wait_until(lambda: count(ledger) == 4000, "every number", 60.0)
        os.kill(victim.pid, harm)
        asyncio.run(send_all(connection, range(4000, 8000)))
        wait_until(lambda: shared_by(ledger, "other"), "the other to have all partitions", 60.0)
        wait_until(lambda: count(ledger) == 8000, "every number", 60.0)
        if harm is signal.SIGSTOP:
            victim.send_signal(signal.SIGCONT)
            wait_until(lambda: shared_by(ledger, "victim", "other"), "the thawed member to have partitions again", 60.0)
            asyncio.run(send_all(connection, range(8000, 9000)))
            wait_until(lambda: count(ledger) == 9000, "every number", 60.0)
        assert_each_number_once(ledger, count(ledger))


@pytest.mark.timeout(240)
def test_members_that_come_and_go_hand_over_first(own_stack: EmbeddedStack, tmp_path: Path) -> None:
    connection = LogConnection(bootstrap=own_stack.kafka_bootstrap)
    asyncio.run(made(connection, "numbers", PARTITIONS))
    file = tmp_path / "ledger.sqlite"
    with ExitStack() as running, closing(Ledger(file)) as ledger:
        running.enter_context(member(connection.bootstrap, file, "first", "numbers"))
        wait_until(lambda: shared_by(ledger, "first"), "the first to have all", 60.0)
        with member(connection.bootstrap, file, "second", "numbers"):
            asyncio.run(send_all(connection, range(4000)))
            wait_until(lambda: shared_by(ledger, "first", "second"), "both to have partitions", 60.0)
        wait_until(lambda: shared_by(ledger, "first"), "the first to have all again", 60.0)
        asyncio.run(send_all(connection, range(4000, 5000)))
        wait_until(lambda: count(ledger) == 5000, "every number", 60.0)
        assert_each_number_once(ledger, 5000)
        happened = ledger.rows("SELECT what, partitions FROM happened WHERE member = 'first' AND partitions != ''")
        assert [what for what, _ in happened][:3] == ["took over", "handed over", "took over"]
        assert happened[0][1] == happened[1][1] == " ".join(f"numbers/{one}" for one in range(PARTITIONS))
