"""Offsets kept under the name of a group without being its member: a few durable numbers beside the log."""

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from controlplane.log.connection import LogConnection
from controlplane.log.positions import Partition


class OffsetBook:
    """The offsets that a group committed; used for JobForge's low watermarks."""

    def __init__(self, connection: LogConnection, group: str) -> None:
        """Prepare the book of one group."""
        self._consumer = AIOKafkaConsumer(group_id=group, enable_auto_commit=False, **connection.client_arguments())

    async def __aenter__(self) -> Self:
        """Connect."""
        await self._consumer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        await self._consumer.stop()

    async def read(self, partitions: Iterable[Partition]) -> dict[Partition, int | None]:
        """Return the offset written for each partition; None where none was."""
        self._consumer.assign([TopicPartition(*one) for one in partitions])
        return {(one.topic, one.partition): await self._consumer.committed(one) for one in self._consumer.assignment()}

    async def write(self, offsets: Mapping[Partition, int]) -> None:
        """Write the offsets, durably."""
        if offsets:
            self._consumer.assign([TopicPartition(*one) for one in offsets])
            await self._consumer.commit({TopicPartition(*one): offset for one, offset in offsets.items()})
