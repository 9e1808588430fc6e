"""Topics made from the catalog on a real broker."""

import asyncio

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from controlplane.events.catalog import JOBS, PROGRESS, ROUTING, SUBMISSIONS, TOPICS
from controlplane.local.stack import EmbeddedStack
from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.log.group import OffsetBook
from controlplane.log.topics import PartitionsDiffer, create_topics, ensure_topics, partition_counts
from controlplane.settings import Settings
from tests.integration.log.topics import made, numbered, producing


async def test_all_topics_of_the_catalog_take_records_at_once(own_stack: EmbeddedStack) -> None:
    connection = LogConnection(bootstrap=own_stack.kafka_bootstrap)
    settings = Settings(partitions_jobs=3, partitions_routing=5, partitions_other=2)
    assert await partition_counts(connection) == {}
    several = await asyncio.gather(*(ensure_topics(connection, settings) for _ in range(3)))  # Services start together.
    counts = await partition_counts(connection)
    assert several == [counts] * 3
    assert counts.keys() == TOPICS.keys()
    assert {counts[topic.name] for topic in (SUBMISSIONS, PROGRESS, JOBS)} == {3}
    assert counts[ROUTING.name] == 5
    async with producing(connection, counts) as producer:
        records = [one for topic, count in counts.items() for one in numbered(topic, range(count), partitions=count)]
        assert len(await producer.send(records)) == sum(counts.values())
    with pytest.raises(PartitionsDiffer, match="with 4 partitions, as the settings say, but it has 3"):
        await ensure_topics(connection, Settings(partitions_jobs=4, partitions_routing=5, partitions_other=2))


async def test_their_settings_keep_everything_in_the_brokers_time(kafka_bootstrap: str) -> None:
    connection = LogConnection(bootstrap=kafka_bootstrap)
    await ensure_topics(connection, Settings())
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    try:
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in TOPICS])
    finally:
        await admin.close()
    for _, _, _, _, entries in answer.resources:
        found = {entry[0]: entry[1] for entry in entries}
        assert found["message.timestamp.type"] == "LogAppendTime"
        assert (found["retention.ms"], found["retention.bytes"], found["cleanup.policy"]) == ("-1", "-1", "delete")
        assert found["max.message.bytes"] == "2000000"


async def test_more_replicas_than_brokers_are_refused(kafka_bootstrap: str, namespace: str) -> None:
    connection = LogConnection(bootstrap=kafka_bootstrap)
    with pytest.raises(
        LogUnavailable, match=f"Expected the brokers to make {namespace}, but: InvalidReplicationFactor"
    ):
        await create_topics(connection, {namespace: 1}, replication=3)


async def test_no_broker_is_said() -> None:
    with pytest.raises(LogUnavailable, match=r"Expected a Kafka broker at 127\.0\.0\.1:1"):
        await partition_counts(LogConnection(bootstrap="127.0.0.1:1"))


async def test_a_book_keeps_offsets_of_a_group_without_members(kafka_bootstrap: str, namespace: str) -> None:
    connection = LogConnection(bootstrap=kafka_bootstrap)
    await made(connection, namespace, 3)
    partitions = [(namespace, number) for number in range(3)]
    async with OffsetBook(connection, namespace) as book:
        assert await book.read(partitions) == dict.fromkeys(partitions)
        await book.write({partitions[0]: 7, partitions[2]: 9})
        await book.write({partitions[0]: 8})
        await book.write({})
    async with OffsetBook(connection, namespace) as book:
        assert await book.read(partitions) == {partitions[0]: 8, partitions[1]: None, partitions[2]: 9}
    with pytest.raises(LogUnavailable):
        await OffsetBook(LogConnection(bootstrap="127.0.0.1:1"), namespace).__aenter__()
