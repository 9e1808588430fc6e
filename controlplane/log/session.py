"""One idempotent producer session: an id from the brokers, sequence numbers per partition, requests to one broker at a time.

Driven on aiokafka's client instead of its producer, because that one never gives a batch up once idempotence is on, waits for ever in
`stop` while no broker answers, and seals the next batch of a partition before the broker is free to take it (ADR 6).

Source: KIP-98, "Idempotent producer guarantees": the brokers take a batch only if its sequence number follows the last one of its producer
id and partition, and answer a repeat of one of the last five batches with the offset that it got.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final, Self, TypeAlias

import msgspec
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from controlplane.log.clients import disconnect
from controlplane.log.connection import LogConnection, LogUnavailable, refusal
from controlplane.log.positions import Partition

BATCH_BYTES: Final = 512 * 1024
ALL_REPLICAS: Final = -1
MAGIC: Final = 2
NO_COMPRESSION: Final = 0
SEQUENCES: Final = 2**31
"""Sequence numbers are non-negative 32-bit integers and begin again after the last."""
WITHOUT_TRANSACTIONS_MILLISECONDS: Final = 2**31 - 1
RETRY_SECONDS: Final = 0.05

Headers = tuple[tuple[str, bytes], ...]
Outcome: TypeAlias = int | KafkaError
"""The offset of a batch's first record, or why the broker did not take it."""


class OutgoingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record with its place: topic, partition, key and value bytes."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: Headers = ()


class SealedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as the broker gets it, again and again until it answers: its bytes never change."""

    data: bytes
    size: int
    """Number of records."""


class ProducerSession:
    """What one producer id has sent; ends when a batch is given up, since the brokers then see a gap in its sequence numbers."""

    def __init__(self, client: AIOKafkaClient, producer_id: int, epoch: int, request_seconds: float) -> None:
        """Wrap a connected client and the id that the brokers gave."""
        self._client = client
        self._producer_id = producer_id
        self._epoch = epoch
        self._request_milliseconds = int(request_seconds * 1000)
        self._sequences: dict[Partition, int] = {}

    @classmethod
    async def open(
        cls, connection: LogConnection, client_id: str, topics: Iterable[str], *, request_seconds: float, within_seconds: float,
    ) -> Self:  # fmt: skip
        """Connect and get a producer id.

        Raises:
            LogUnavailable: no broker answered within the bound.
            LogRefused: they answered that this service may not.
        """
        client = AIOKafkaClient(
            client_id=client_id, request_timeout_ms=int(request_seconds * 1000), retry_backoff_ms=int(RETRY_SECONDS * 1000),
            **connection.client_arguments(),
        )  # fmt: skip
        expected = f"a Kafka broker at {connection.bootstrap} within {within_seconds} s"
        try:
            async with asyncio.timeout(within_seconds):
                await client.bootstrap()
                await client.set_topics(topics)
                producer_id, epoch = await cls._producer_id_of(client)
        except KafkaError as error:
            await disconnect(client)
            raise refusal(error, expected) from error
        except TimeoutError as error:
            await disconnect(client)
            raise LogUnavailable(f"Expected {expected}, but none answered.") from error
        except BaseException:
            await disconnect(client)
            raise
        return cls(client, producer_id, epoch, request_seconds)

    @staticmethod
    async def _producer_id_of(client: AIOKafkaClient) -> tuple[int, int]:
        request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=WITHOUT_TRANSACTIONS_MILLISECONDS)
        while True:
            try:
                answer = await client.send(client.get_random_node(), request)
            except KafkaError as error:
                if not error.retriable:
                    raise
                await client.force_metadata_update()
            else:
                fault = for_code(answer.error_code)()
                if answer.error_code == 0:
                    return answer.producer_id, answer.producer_epoch
                if not fault.retriable:
                    raise fault
            await asyncio.sleep(RETRY_SECONDS)

    def leader(self, partition: Partition) -> int | None:
        """Return the broker that takes a partition's records; None while none is known, which is being found out."""
        node: int | None = self._client.cluster.leader_for_partition(TopicPartition(*partition))
        if node is None or node < 0:
            self._client.add_topic(partition[0])
            self.look_again()
            return None
        return node

    def look_again(self) -> None:
        """Ask the brokers, in the background, who leads which partition."""
        self._client.force_metadata_update()

    def seal(self, partition: Partition, records: Iterable[OutgoingRecord], timestamp_milliseconds: int) -> SealedBatch:
        """Return the next batch of a partition, of as many of the records as fit into one: at least the first."""
        sequence = self._sequences.get(partition, 0)
        builder = DefaultRecordBatchBuilder(
            MAGIC, NO_COMPRESSION, 0, self._producer_id, self._epoch, sequence, BATCH_BYTES
        )
        append = builder.append
        size = 0
        for record in records:
            if append(size, timestamp_milliseconds, record.key, record.value, list(record.headers)) is None:
                break
            size += 1
        self._sequences[partition] = (sequence + size) % SEQUENCES
        return SealedBatch(data=bytes(builder.build()), size=size)

    async def append(self, node: int, batches: Mapping[Partition, SealedBatch]) -> dict[Partition, Outcome]:
        """Send batches in one request to the broker that leads their partitions; returns what became of each."""
        topics: dict[str, list[tuple[int, bytes]]] = {}
        for (topic, number), batch in batches.items():
            topics.setdefault(topic, []).append((number, batch.data))
        request = ProduceRequest(None, ALL_REPLICAS, self._request_milliseconds, list(topics.items()))
        try:
            answer = await self._client.send(node, request)
        except KafkaError as error:
            return dict.fromkeys(batches, error)
        outcomes: dict[Partition, Outcome] = {}
        for topic, partitions in answer.topics:
            for number, code, offset, *_ in partitions:
                outcomes[(topic, number)] = offset if code == 0 else for_code(code)()
        return outcomes

    async def close(self) -> None:
        """Disconnect; what has no answer yet may or may not be on the log."""
        await disconnect(self._client)
