"""The producer on a real broker, one that is killed, and one that freezes."""

import asyncio
import time

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from controlplane.events.catalog import SUBMISSIONS, Service
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant, partition_of
from controlplane.events.types import Content, JobSubmitted, LogPosition
from controlplane.local.stack import EmbeddedStack
from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.log.producer import LogProducer, OutgoingRecord, RecordTooLarge
from controlplane.log.topics import LARGEST_RECORD_BYTES, ensure_topics
from controlplane.settings import Settings
from tests.integration.log.topics import made, numbered, producing, reading, whole


@pytest.fixture
def connection(kafka_bootstrap: str) -> LogConnection:
    return LogConnection(bootstrap=kafka_bootstrap)


def submitted(producer: LogProducer, job_id: str, payload: bytes = b"{}") -> JobSubmitted:
    header = outside_header("JobSubmitted", job_id, producer.identity, Instant(1))
    return JobSubmitted(header=header, job_id=job_id, job_type="test.noop", payload=Content(data=payload))


async def test_positions_are_those_on_the_log(connection: LogConnection, namespace: str) -> None:
    counts = await made(connection, namespace, 3)
    async with producing(connection, counts) as producer:
        first = await producer.send(numbered(namespace, range(10), partitions=3))
        second = await producer.send(numbered(namespace, range(10, 20), partitions=3))
        assert await producer.send([]) == []
    found = await whole(connection, counts)
    for number, position in enumerate([*first, *second]):
        assert position.topic == namespace
        assert found[(namespace, position.partition)][position.offset] == number


async def test_records_of_a_partition_keep_the_order_of_the_calls_under_load(
    connection: LogConnection, namespace: str
) -> None:
    counts = await made(connection, namespace, 4)
    sent = 20_000
    async with producing(connection, counts) as producer:
        answers = []
        for start in range(0, sent, 7):
            answers.append(producer.send(numbered(namespace, range(start, min(sent, start + 7)), partitions=4)))
            if start % 700 == 0:
                await asyncio.sleep(0)
        await asyncio.gather(*answers)
        assert producer.unacknowledged == 0
    found = await whole(connection, counts)
    assert found == {(namespace, one): list(range(one, sent, 4)) for one in range(4)}


async def test_a_flood_larger_than_a_request_is_sent_in_several(connection: LogConnection, namespace: str) -> None:
    counts = await made(connection, namespace, 2)
    async with producing(connection, counts) as producer:
        positions = await producer.send(numbered(namespace, range(300), partitions=2, padding=60_000))
    assert [position.offset for position in positions if position.partition == 0] == list(range(150))
    found = await whole(connection, counts)
    assert found[(namespace, 1)] == list(range(1, 300, 2))


async def test_stop_delivers_what_was_sent(connection: LogConnection, namespace: str) -> None:
    counts = await made(connection, namespace, 1)
    async with producing(connection, counts) as producer:
        answer = producer.send(numbered(namespace, range(5000)))
    assert len(answer.result()) == 5000
    with pytest.raises(LogUnavailable, match="it was stopped"):
        await producer.send(numbered(namespace, range(1)))


async def test_a_stopped_producer_can_start_again(connection: LogConnection, namespace: str) -> None:
    counts = await made(connection, namespace, 1)
    producer = LogProducer(connection, service=Service.CLIENT, partitions=counts)
    for _ in range(2):
        await producer.start()
        await producer.send(numbered(namespace, range(3)))
        await producer.stop()
    assert (await whole(connection, counts))[(namespace, 0)] == [0, 1, 2, 0, 1, 2]


async def test_events_go_to_their_topic_and_the_partition_of_their_key(connection: LogConnection) -> None:
    counts = await ensure_topics(connection, Settings())
    async with producing(connection, {}) as producer:
        assert producer.partitions(SUBMISSIONS.name) == counts[SUBMISSIONS.name]
        position = await producer.publish(submitted(producer, "job-1"), headers=(("traceparent", b"00-1-2-01"),))
        expected = partition_of(b"job-1", counts[SUBMISSIONS.name])
        assert (position.topic, position.partition) == (SUBMISSIONS.name, expected)
        elsewhere = await producer.publish(submitted(producer, "job-1"), partition=(expected + 1) % 2)
        assert elsewhere.partition == (expected + 1) % 2
    async with reading(connection) as reader:
        await reader.assign({(position.topic, position.partition): position.offset})
        (batch,) = (await reader.batch(timeout_seconds=10.0)).values()
        assert (batch[0].key, batch[0].headers) == (b"job-1", (("traceparent", b"00-1-2-01"),))


async def test_the_largest_record_is_taken_and_a_larger_one_refused_before_it_is_sent(
    connection: LogConnection,
) -> None:
    await ensure_topics(connection, Settings())
    async with producing(connection, {}) as producer:
        overhead = LARGEST_RECORD_BYTES - 100
        event = submitted(producer, "job-large", b"x" * overhead)
        with pytest.raises(RecordTooLarge, match="Expected a record of at most 1000000 bytes, but found"):
            producer.record(event)
        size = len(producer.record(submitted(producer, "job-large", b"x" * (LARGEST_RECORD_BYTES // 2))).value)
        room = LARGEST_RECORD_BYTES - len(b"job-large") - size
        largest = submitted(producer, "job-large", b"x" * (LARGEST_RECORD_BYTES // 2 + room))
        assert isinstance(await producer.publish(largest), LogPosition)


async def test_a_topic_that_is_not_there_fails_within_the_bound(connection: LogConnection, namespace: str) -> None:
    counts = await made(connection, namespace, 1)
    async with producing(connection, counts, delivery_seconds=1.0) as producer:
        with pytest.raises(LogUnavailable, match="Expected a leader of"):
            await producer.send(numbered(f"{namespace}-missing", range(1)))
        assert len(await producer.send(numbered(namespace, range(1)))) == 1


async def test_no_broker_is_said_at_the_start() -> None:
    producer = LogProducer(LogConnection(bootstrap="127.0.0.1:1"), service=Service.CLIENT, partitions={"any": 1})
    with pytest.raises(LogUnavailable, match=r"Expected a Kafka broker at 127\.0\.0\.1:1"):
        await producer.start()
    await producer.stop()


async def test_a_broker_that_comes_back_in_time_gets_every_record_once(own_stack: EmbeddedStack) -> None:
    connection = LogConnection(bootstrap=own_stack.kafka_bootstrap)
    counts = await made(connection, "numbers", 2)
    async with producing(connection, counts) as producer:
        answers = []

        async def send(numbers: range) -> None:
            for number in numbers:
                answers.append(producer.send(numbered("numbers", [number], partitions=2)))
                await asyncio.sleep(0)

        await send(range(1000))
        await asyncio.to_thread(own_stack.kafka.kill)
        await send(range(1000, 2000))
        await asyncio.to_thread(own_stack.kafka.start)
        await send(range(2000, 4000))
        positions = [position for answer in await asyncio.gather(*answers) for position in answer]
    found = await whole(connection, counts)
    assert found == {("numbers", one): list(range(one, 4000, 2)) for one in range(2)}
    assert [found[("numbers", place.partition)][place.offset] for place in positions] == list(range(4000))


async def test_while_the_broker_is_down_calls_fail_within_their_bound_and_succeed_afterwards(
    own_stack: EmbeddedStack,
) -> None:
    connection = LogConnection(bootstrap=own_stack.kafka_bootstrap)
    counts = await made(connection, "numbers", 2)
    async with producing(connection, counts, delivery_seconds=1.5) as producer:
        await producer.send(numbered("numbers", range(4), partitions=2))
        await asyncio.to_thread(own_stack.kafka.kill)
        began = time.monotonic()
        outcomes = await asyncio.gather(
            *(producer.send(numbered("numbers", [one], partitions=2)) for one in range(100)), return_exceptions=True
        )
        assert time.monotonic() - began < 15.0
        assert {type(outcome) for outcome in outcomes} == {LogUnavailable}
        await asyncio.to_thread(own_stack.kafka.start)
        await patiently(producer, numbered("numbers", range(4, 8), partitions=2))
    found = await whole(connection, counts)
    assert found == {("numbers", 0): [0, 2, 4, 6], ("numbers", 1): [1, 3, 5, 7]}


async def test_a_frozen_broker_is_given_up_and_stop_returns(own_stack: EmbeddedStack) -> None:
    connection = LogConnection(bootstrap=own_stack.kafka_bootstrap)
    counts = await made(connection, "numbers", 1)
    own_stack.kafka.suspend()
    try:
        with pytest.raises(LogUnavailable):
            async with producing(connection, counts, delivery_seconds=1.0):
                pytest.fail("Expected no producer on a frozen broker.")
        own_stack.kafka.resume()
        async with producing(connection, counts, delivery_seconds=1.0) as producer:
            await producer.send(numbered("numbers", range(1)))
            own_stack.kafka.suspend()
            answer = producer.send(numbered("numbers", range(1, 2)))
        assert isinstance(answer.exception(), LogUnavailable)
    finally:
        own_stack.kafka.resume()


async def test_a_broker_that_lost_its_data_is_served_by_a_new_session(own_stack: EmbeddedStack) -> None:
    """Its sequence numbers are gone: what it refuses for that reason must not be refused for ever."""
    connection = LogConnection(bootstrap=own_stack.kafka_bootstrap)
    counts = await made(connection, "numbers", 1)
    async with producing(connection, counts, delivery_seconds=3.0) as producer:
        await producer.send(numbered("numbers", range(10)))
        admin = AIOKafkaAdminClient(bootstrap_servers=connection.bootstrap)
        await admin.start()
        await admin.delete_topics(["numbers"])
        await admin.close()
        await made_again(connection, "numbers")
        positions = await patiently(producer, numbered("numbers", range(3)))
        assert [position.offset for position in positions] == [0, 1, 2]


async def made_again(connection: LogConnection, topic: str) -> None:
    """Make a topic of a name whose former topic may still be on its way out."""
    while True:
        await made(connection, topic, 1)
        if await whole(connection, {topic: 1}) == {(topic, 0): []}:
            return


async def patiently(producer: LogProducer, records: list[OutgoingRecord]) -> list[LogPosition]:
    """Send until it is acknowledged."""
    while True:
        try:
            return await producer.send(records)
        except LogUnavailable:
            continue
