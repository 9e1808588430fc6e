"""The topics, made from the catalog; what exists is never changed."""

import asyncio
from collections.abc import Mapping
from typing import Final

from aiokafka.admin import NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from controlplane.events.catalog import TOPICS
from controlplane.events.sizes import LARGEST_INLINE_BYTES, RESERVED_BYTES
from controlplane.log.clients import administrator
from controlplane.log.connection import LogConnection, LogUnavailable, refusal
from controlplane.log.reader import LogReader
from controlplane.settings import Settings

LARGEST_RECORD_BYTES: Final = 1_000_000
LARGEST_BATCH_BYTES: Final = 2 * LARGEST_RECORD_BYTES
SERVED_WITHIN_SECONDS: Final = 30.0

assert LARGEST_INLINE_BYTES + RESERVED_BYTES <= LARGEST_RECORD_BYTES  # A job that is accepted can be given to a runner.


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
    async with administrator(connection) as admin:
        try:
            described = await admin.describe_topics(list(TOPICS))
        except KafkaError as error:
            raise refusal(error, "the brokers to describe the topics") from error
    return {topic["topic"]: len(topic["partitions"]) for topic in described if topic["error_code"] == 0}


async def ensure_topics(connection: LogConnection, settings: Settings) -> dict[str, int]:
    """Make the topics that are missing; return the number of partitions of each when all take records.

    Raises:
        LogUnavailable: no broker answers, or the topics did not appear in time.
        PartitionsDiffer: a topic exists with another number of partitions than the settings say.
    """
    wanted = wanted_partitions(settings)
    present = await partition_counts(connection)
    missing = {name: count for name, count in wanted.items() if name not in present}
    if missing:
        await create_topics(connection, missing, replication=settings.kafka_replication)
        present = await partition_counts(connection)
    for name, count in present.items():
        if count != wanted[name]:
            raise PartitionsDiffer(
                f"Expected {name} with {wanted[name]} partitions, as the settings say, but it has {count}. "
                "The number is fixed when a topic is made, since keys would move."
            )
    return present


async def create_topics(connection: LogConnection, counts: Mapping[str, int], *, replication: int) -> None:
    """Make topics with these numbers of partitions and our settings; returns when all of their leaders serve them.

    Two services that start together may both try: the second finds the topics made.

    Raises:
        LogUnavailable: no broker answers, one refuses, or the topics did not appear in time.
    """
    settings = topic_settings(replication)
    topics = [
        NewTopic(name=name, num_partitions=count, replication_factor=replication, topic_configs=settings)
        for name, count in counts.items()
    ]
    async with administrator(connection) as admin:
        try:
            answer = await admin.create_topics(topics)
        except KafkaError as error:
            raise refusal(error, f"the brokers to make {', '.join(counts)}") from error
    for name, code, *_ in answer.topic_errors:
        if code not in (0, TopicAlreadyExistsError.errno):
            raise refusal(for_code(code)(), f"the brokers to make {name}")
    await _wait_until_served(connection, counts)


async def _wait_until_served(connection: LogConnection, counts: Mapping[str, int]) -> None:
    """Return when each partition's leader answers: the brokers announce it before it has taken its office."""
    partitions = [(name, number) for name, count in counts.items() for number in range(count)]
    try:
        async with (
            asyncio.timeout(SERVED_WITHIN_SECONDS),
            LogReader(connection, client_id="controlplane-topics") as reader,
        ):
            await reader.end_offsets(partitions)
    except TimeoutError as error:
        raise LogUnavailable(
            f"Expected {', '.join(counts)} within {SERVED_WITHIN_SECONDS} s, but not every partition is served."
        ) from error
