"""Topics of one test, and records to put on them."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from controlplane.events.catalog import Service
from controlplane.log.connection import LogConnection
from controlplane.log.positions import Partition
from controlplane.log.producer import LogProducer, OutgoingRecord
from controlplane.log.reader import LogReader
from controlplane.log.topics import create_topics


async def made(connection: LogConnection, name: str, partitions: int) -> dict[str, int]:
    """Make a topic with our settings; returns its number of partitions by its name."""
    await create_topics(connection, {name: partitions}, replication=1)
    return {name: partitions}


def numbered(topic: str, numbers: Iterable[int], *, partitions: int = 1, padding: int = 0) -> list[OutgoingRecord]:
    """Return records whose value is their number, dealt over the partitions in turn."""
    return [
        OutgoingRecord(
            topic=topic, partition=number % partitions, key=b"k%d" % number, value=b"%d" % number + b" " * padding
        )
        for number in numbers
    ]


@asynccontextmanager
async def producing(
    connection: LogConnection, partitions: dict[str, int], *, delivery_seconds: float = 30.0
) -> AsyncIterator[LogProducer]:
    """A producer that runs during the block."""
    producer = LogProducer(connection, service=Service.CLIENT, partitions=partitions, delivery_seconds=delivery_seconds)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


def reading(connection: LogConnection) -> LogReader:
    """A reader that runs during a block."""
    return LogReader(connection, client_id="test")


async def whole(connection: LogConnection, counts: dict[str, int]) -> dict[Partition, list[int]]:
    """Return the numbers in each partition from its first record to its end now."""
    partitions = [(topic, number) for topic, count in counts.items() for number in range(count)]
    found: dict[Partition, list[int]] = {one: [] for one in partitions}
    async with reading(connection) as reader:
        ends = await reader.end_offsets(partitions)
        await reader.assign(dict.fromkeys(partitions, "earliest"))
        while sum(map(len, found.values())) < sum(ends.values()):
            for one, batch in (await reader.batch(timeout_seconds=1.0)).items():
                found[one] += [int(record.value) for record in batch]
    return found
