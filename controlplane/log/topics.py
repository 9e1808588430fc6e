"""The topics, made from the catalog; what exists is never changed."""

import asyncio
from collections.abc import Mapping
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from controlplane.events.catalog import TOPICS
from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.settings import Settings

LARGEST_RECORD_BYTES: Final = 1_000_000
LARGEST_BATCH_BYTES: Final = 2 * LARGEST_RECORD_BYTES
VISIBLE_WITHIN_SECONDS: Final = 30.0
LOOK_EVERY_SECONDS: Final = 0.05


class PartitionsDiffer(ValueError):
    """A topic exists with another number of partitions than the settings say; growing means a new generation of topics."""


def wanted_partitions(settings: Settings) -> dict[str, int]:
    """Return the number of partitions of each topic of the catalog: co-partitioned topics have the same."""
    counts = {
        "jobs": settings.partitions_jobs,
        "routing": settings.partitions_routing,
        "other": settings.partitions_other,
    }
    return {topic.name: counts[topic.partitions_like] for topic in TOPICS.values()}


def topic_settings(replication: int) -> dict[str, str]:
    """Return the broker's settings of our topics: the broker's time, nothing expires, a write survives the loss of a replica."""
    return {
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "cleanup.policy": "delete",
        "max.message.bytes": str(LARGEST_BATCH_BYTES),
        "min.insync.replicas": str(max(1, replication - 1)),
    }


async def partition_counts(connection: LogConnection) -> dict[str, int]:
    """Return the number of partitions of each topic of the catalog that exists.

    Raises:
        LogUnavailable: no broker answers.
    """
    admin = await _admin(connection)
    try:
        described = await admin.describe_topics(list(TOPICS))
    finally:
        await admin.close()
    return {topic["topic"]: len(topic["partitions"]) for topic in described if topic["error_code"] == 0}


async def ensure_topics(connection: LogConnection, settings: Settings) -> dict[str, int]:
    """Make the topics that are missing; return the number of partitions of each when all are there with their leaders.

    Raises:
        LogUnavailable: no broker answers, or the topics did not appear in time.
        PartitionsDiffer: a topic exists with another number of partitions than the settings say.
    """
    wanted = wanted_partitions(settings)
    present = await partition_counts(connection)
    missing = [name for name in wanted if name not in present]
    if missing:
        await _create(connection, {name: wanted[name] for name in missing}, settings.kafka_replication)
        present = await _wait_for(connection, wanted)
    for name, count in present.items():
        if count != wanted[name]:
            raise PartitionsDiffer(
                f"Expected {name} with {wanted[name]} partitions, as the settings say, but it has {count}."
            )
    return present


async def _create(connection: LogConnection, counts: Mapping[str, int], replication: int) -> None:
    topics = [
        NewTopic(
            name=name, num_partitions=count, replication_factor=replication, topic_configs=topic_settings(replication)
        )
        for name, count in counts.items()
    ]
    admin = await _admin(connection)
    try:
        answer = await admin.create_topics(topics)
        for name, code, *_ in answer.topic_errors:
            # Two services that start together both try; the second finds the topic made.
            if code not in (0, TopicAlreadyExistsError.errno):
                raise LogUnavailable(f"Expected the broker to make {name}, but it answered {for_code(code).__name__}.")
    finally:
        await admin.close()


async def _wait_for(connection: LogConnection, wanted: Mapping[str, int]) -> dict[str, int]:
    try:
        async with asyncio.timeout(VISIBLE_WITHIN_SECONDS):
            while True:
                present = await partition_counts(connection)
                if present.keys() == wanted.keys():
                    return present
                await asyncio.sleep(LOOK_EVERY_SECONDS)
    except TimeoutError as error:
        raise LogUnavailable(
            f"Expected the topics within {VISIBLE_WITHIN_SECONDS} s, but they did not appear."
        ) from error


async def _admin(connection: LogConnection) -> AIOKafkaAdminClient:
    admin = AIOKafkaAdminClient(**connection.client_arguments())
    try:
        await admin.start()
    except KafkaError as error:
        await admin.close()
        raise LogUnavailable(f"Expected a Kafka broker at {connection.bootstrap}, but: {error}") from error
    return admin
