"""Reading a range of the log as fast as it comes: whole fetches as blocks of records, the next on its way while one is worked on."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Final, Self

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, OffsetOutOfRangeError, for_code
from aiokafka.protocol.fetch import FetchRequest

from controlplane.log.blocks import RecordBlock
from controlplane.log.clients import disconnect
from controlplane.log.connection import LogConnection, LogUnavailable, refusal
from controlplane.log.positions import Partition
from controlplane.log.reader import PositionGone
from controlplane.log.record_batches import parsed

FETCH_BYTES: Final = 16 * 1024 * 1024
PARTITION_BYTES: Final = 4 * 1024 * 1024
assert FETCH_BYTES >= PARTITION_BYTES
WAIT_MILLISECONDS: Final = 100
REQUEST_MILLISECONDS: Final = 30_000
NOTHING_SECONDS: Final = 30.0
"""The range asked for exists: a log that gives nothing of it for so long does not serve it."""
AGAIN_SECONDS: Final = 0.1
UNCOMMITTED: Final = 0
"""Isolation: nothing here writes in transactions."""


class BlockReader:
    """Reads ranges of partitions from their leaders; belongs to one event loop."""

    def __init__(self, connection: LogConnection, *, client_id: str) -> None:
        """Prepare a reader; `client_id` names it in the brokers' logs and metrics."""
        self._client = AIOKafkaClient(
            client_id=client_id, request_timeout_ms=REQUEST_MILLISECONDS, **connection.client_arguments()
        )
        self._bootstrap = connection.bootstrap

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            LogUnavailable: no broker answers.
        """
        try:
            await self._client.bootstrap()
        except KafkaError as error:
            await disconnect(self._client)
            raise refusal(error, f"a Kafka broker at {self._bootstrap}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        await disconnect(self._client)

    async def blocks(
        self, positions: Mapping[Partition, int], until: Mapping[Partition, int]
    ) -> AsyncIterator[RecordBlock]:
        """Yield the records of each partition from its position up to, and without, its end, in order within the partition.

        Raises:
            PositionGone: the log no longer has a position of the range.
            LogUnavailable: the brokers do not give the range.
        """
        following = {one: positions.get(one, 0) for one, end in until.items() if positions.get(one, 0) < end}
        await self._client.set_topics({topic for topic, _ in following})
        fetching = asyncio.create_task(self._fetched(following))
        moved_at = asyncio.get_running_loop().time()
        try:
            while following:
                found = await fetching
                work = []
                for one, data in found.items():
                    blocks, after = await asyncio.to_thread(parsed, *one, data)
                    work += [block.between(following[one], until[one]) for block in blocks]
                    self._advance(following, until, one, after)
                if found:
                    moved_at = asyncio.get_running_loop().time()
                elif asyncio.get_running_loop().time() > moved_at + NOTHING_SECONDS:
                    raise LogUnavailable(f"Expected records of {next(iter(following))} up to {until}, but none came.")
                if following:
                    fetching = asyncio.create_task(self._fetched(following))
                for block in work:
                    if len(block):
                        yield block
        finally:
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)

    @staticmethod
    def _advance(
        following: dict[Partition, int], until: Mapping[Partition, int], one: Partition, after: int | None
    ) -> None:
        """Move behind what was read; the partition goes to the end of the row, so that each has its turn."""
        position = following.pop(one) if after is None else max(after, following.pop(one))
        if position < until[one]:
            following[one] = position

    async def _fetched(self, following: Mapping[Partition, int]) -> dict[Partition, bytes]:
        """Ask every leader once; return what came, by partition."""
        by_leader: dict[int, dict[str, list[tuple[int, int, int]]]] = {}
        for (topic, number), offset in following.items():
            leader = self._client.cluster.leader_for_partition(TopicPartition(topic, number))
            if leader is not None and leader >= 0:
                by_leader.setdefault(leader, {}).setdefault(topic, []).append((number, offset, PARTITION_BYTES))
        if not by_leader:
            await self._look_again()
            return {}
        answers = await asyncio.gather(*(self._ask(leader, topics) for leader, topics in by_leader.items()))
        return {one: data for answer in answers for one, data in answer.items()}

    async def _look_again(self) -> None:
        await self._client.force_metadata_update()
        await asyncio.sleep(AGAIN_SECONDS)

    async def _ask(self, leader: int, topics: Mapping[str, list[tuple[int, int, int]]]) -> dict[Partition, bytes]:
        request = FetchRequest(WAIT_MILLISECONDS, 1, FETCH_BYTES, UNCOMMITTED, list(topics.items()))
        try:
            answer = await self._client.send(leader, request)
        except KafkaError as error:
            if not error.retriable:
                raise refusal(error, "records") from error
            await self._look_again()
            return {}
        found: dict[Partition, bytes] = {}
        for topic, partitions in answer.topics:
            for number, code, *_, data in partitions:
                fault = for_code(code)
                if fault is OffsetOutOfRangeError:
                    raise PositionGone(f"Expected the log to have all of {topic}/{number} asked for, but it has not.")
                if code and not fault.retriable:
                    raise refusal(fault(), f"records of {topic}/{number}")
                if code:
                    await self._look_again()
                elif data:
                    found[(topic, number)] = data
        return found
