"""The reader on a real broker: positions are exact, and none is jumped over in silence."""

import asyncio

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from controlplane.local.stack import EmbeddedStack
from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.log.reader import LogReader, PositionGone
from tests.integration.log.topics import made, numbered, producing, reading, whole


@pytest.fixture
def connection(kafka_bootstrap: str) -> LogConnection:
    return LogConnection(bootstrap=kafka_bootstrap)


async def filled(connection: LogConnection, topic: str, count: int, partitions: int = 1) -> dict[str, int]:
    counts = await made(connection, topic, partitions)
    async with producing(connection, counts) as producer:
        await producer.send(numbered(topic, range(count), partitions=partitions))
    return counts


async def first_of(reader: LogReader) -> int:
    """Return the number in the next record."""
    while not (batches := await reader.batch(timeout_seconds=1.0, max_records=1)):
        pass
    ((record,),) = batches.values()
    return int(record.value)


@pytest.mark.parametrize(("start", "first"), [(7, 7), ("earliest", 0), (0, 0), (99, 99)])
async def test_reading_begins_at_the_position(
    connection: LogConnection, namespace: str, start: int, first: int
) -> None:
    await filled(connection, namespace, 100)
    async with reading(connection) as reader:
        await reader.assign({(namespace, 0): start})
        assert await first_of(reader) == first
        assert await reader.position((namespace, 0)) == first + 1


async def test_latest_is_the_end_at_the_call(connection: LogConnection, namespace: str) -> None:
    counts = await filled(connection, namespace, 10)
    async with reading(connection) as reader, producing(connection, counts) as producer:
        await reader.assign({(namespace, 0): "latest"})
        assert await reader.batch(timeout_seconds=0.05) == {}
        await producer.send(numbered(namespace, [10]))
        assert await first_of(reader) == 10


async def test_whoever_stops_reading_while_no_broker_answers_is_not_cancelled(
    own_stack: EmbeddedStack, namespace: str
) -> None:
    connection = LogConnection(bootstrap=own_stack.kafka_bootstrap)
    await filled(connection, namespace, 1)
    readers = [LogReader(connection, client_id=f"test-{number}") for number in range(5)]
    for reader in readers:
        await reader.start()
        await reader.assign({(namespace, 0): 0})
        await first_of(reader)
    own_stack.kafka.kill()
    for reader in readers:
        assert await reader.batch(timeout_seconds=0.3) == {}  # aiokafka asks again and again, and sleeps in between.
        await reader.stop()


async def test_batches_are_by_partition_and_in_order(connection: LogConnection, namespace: str) -> None:
    counts = await filled(connection, namespace, 3000, partitions=3)
    assert await whole(connection, counts) == {(namespace, one): list(range(one, 3000, 3)) for one in range(3)}


async def test_no_more_than_asked_for_at_once(connection: LogConnection, namespace: str) -> None:
    await filled(connection, namespace, 100)
    async with reading(connection) as reader:
        await reader.assign({(namespace, 0): 0})
        found: list[int] = []
        while len(found) < 100:
            for batch in (await reader.batch(timeout_seconds=1.0, max_records=30)).values():
                assert len(batch) <= 30
                found += [int(record.value) for record in batch]
    assert found == list(range(100))


async def test_ends_that_a_broker_told_are_known_without_asking(connection: LogConnection, namespace: str) -> None:
    await filled(connection, namespace, 10)
    place = (namespace, 0)
    async with reading(connection) as reader:
        await reader.assign({place: 10})
        assert reader.known_ends([place], age_seconds=60.0) == {}
        while not (known := reader.known_ends([place], age_seconds=60.0)):
            assert await reader.batch(timeout_seconds=0.1) == {}
        assert known == {place: 10}
        assert reader.known_ends([place], age_seconds=-60.0) == {}


async def test_ends_and_moments(connection: LogConnection, namespace: str) -> None:
    counts = await filled(connection, namespace, 10, partitions=2)
    partitions = [(namespace, 0), (namespace, 1)]
    async with reading(connection) as reader:
        assert await reader.beginning_offsets(partitions) == dict.fromkeys(partitions, 0)
        assert await reader.end_offsets(partitions) == dict.fromkeys(partitions, 5)
        await reader.assign({(namespace, 0): 4})
        ((last,),) = (await reader.batch(timeout_seconds=10.0)).values()
        moment = last.timestamp + 1
        while True:  # Until the broker's clock has moved on by a millisecond.
            async with producing(connection, counts) as producer:
                (position,) = await producer.send(numbered(namespace, [10], partitions=2))
            await reader.assign({(namespace, 0): position.offset})
            ((record,),) = (await reader.batch(timeout_seconds=10.0)).values()
            if record.timestamp >= moment:
                break
        at = await reader.offsets_at({(namespace, 0): moment, (namespace, 1): record.timestamp + 60_000})
        assert at == {(namespace, 0): position.offset, (namespace, 1): 5}


@pytest.mark.parametrize("position", [4, 11])
async def test_a_position_that_the_log_does_not_have_is_said(
    connection: LogConnection, namespace: str, position: int
) -> None:
    await filled(connection, namespace, 10)
    await truncate(connection, namespace, 5)
    async with reading(connection) as reader:
        await reader.assign({(namespace, 0): position})
        with pytest.raises(PositionGone, match=f"Expected {namespace}/0/{position} to be a position of the log"):
            await first_of(reader)
        await reader.assign({(namespace, 0): "earliest"})
        assert await first_of(reader) == 5


async def truncate(connection: LogConnection, topic: str, before: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=connection.bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=before)})
    await admin.close()


async def test_a_read_that_is_cancelled_loses_nothing(connection: LogConnection, namespace: str) -> None:
    counts = await made(connection, namespace, 1)
    found: list[int] = []
    async with reading(connection) as reader, producing(connection, counts) as producer:
        await reader.assign({(namespace, 0): 0})
        for number in range(30):
            read = asyncio.create_task(reader.batch(timeout_seconds=1.0))
            await producer.send(numbered(namespace, [number]))
            read.cancel()
            done = await asyncio.gather(read, return_exceptions=True)
            if isinstance(done[0], dict):
                found += [int(record.value) for batch in done[0].values() for record in batch]
        while len(found) < 30:
            for batch in (await reader.batch(timeout_seconds=1.0)).values():
                found += [int(record.value) for record in batch]
    assert found == list(range(30))


async def test_reading_goes_on_when_the_broker_comes_back(own_stack: EmbeddedStack) -> None:
    connection = LogConnection(bootstrap=own_stack.kafka_bootstrap)
    counts = await filled(connection, "numbers", 10)
    async with reading(connection) as reader:
        await reader.assign({("numbers", 0): 5})
        assert await first_of(reader) == 5
        await asyncio.to_thread(own_stack.kafka.kill)
        await asyncio.to_thread(own_stack.kafka.start)
        async with producing(connection, counts) as producer:
            await producer.send(numbered("numbers", [10]))
        found: list[int] = []
        while len(found) < 5:
            for batch in (await reader.batch(timeout_seconds=1.0)).values():
                found += [int(record.value) for record in batch]
        assert found == [6, 7, 8, 9, 10]


async def test_no_broker_is_said_at_the_start() -> None:
    reader = LogReader(LogConnection(bootstrap="127.0.0.1:1"), client_id="test")
    with pytest.raises(LogUnavailable, match=r"Expected a Kafka broker at 127\.0\.0\.1:1"):
        await reader.start()
