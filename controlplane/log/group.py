"""Offsets kept under the name of a group without being its member: a few durable numbers beside the log."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from controlplane.log.clients import disconnect
from controlplane.log.connection import LogConnection, LogUnavailable, refusal
from controlplane.log.positions import Partition

ANSWER_SECONDS: Final = 30.0
"""A broker that has just started takes some seconds until it keeps offsets."""


class OffsetBook:
    """The offsets that a group committed; used for JobForge's low watermarks."""

    def __init__(self, connection: LogConnection, group: str) -> None:
        """Prepare the book of one group."""
        self._group = group
        self._consumer = AIOKafkaConsumer(group_id=group, enable_auto_commit=False, **connection.client_arguments())

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            LogUnavailable: no broker answers.
        """
        try:
            async with self._answers("a broker that keeps offsets"):
                await self._consumer.start()
        except LogUnavailable:
            await disconnect(self._consumer)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        await disconnect(self._consumer)

    async def read(self, partitions: Iterable[Partition]) -> dict[Partition, int | None]:
        """Return the offset written for each partition; None where none was.

        Raises:
            LogUnavailable: the brokers did not answer.
        """
        asked = list(partitions)
        self._consumer.assign([TopicPartition(*one) for one in asked])
        async with self._answers("the offsets"):
            offsets = await asyncio.gather(*(self._consumer.committed(TopicPartition(*one)) for one in asked))
        return dict(zip(asked, offsets, strict=True))

    async def write(self, offsets: Mapping[Partition, int]) -> None:
        """Write the offsets, durably.

        Raises:
            LogUnavailable: the brokers did not answer.
        """
        if offsets:
            self._consumer.assign([TopicPartition(*one) for one in offsets])
            async with self._answers("the offsets written"):
                await self._consumer.commit({TopicPartition(*one): offset for one, offset in offsets.items()})

    @asynccontextmanager
    async def _answers(self, expected: str) -> AsyncIterator[None]:
        """Raise what the brokers refuse, or do not answer within the bound, as an error of the log."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                yield
        except KafkaError as error:
            raise refusal(error, f"{expected} of {self._group}") from error
        except AssertionError as error:  # aiokafka's way to say that the brokers it asked know of no broker yet.
            raise LogUnavailable(
                f"Expected {expected} of {self._group}, but the brokers know of none: {error}"
            ) from error
        except TimeoutError as error:
            raise LogUnavailable(
                f"Expected {expected} of {self._group} within {ANSWER_SECONDS} s, but none came."
            ) from error
