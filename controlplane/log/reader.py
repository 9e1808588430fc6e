"""Reading from exact positions, without a group: whoever reads keeps its own positions, with its own data."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from controlplane.log.connection import LogConnection, refusal
from controlplane.log.positions import Partition

FETCH_BYTES: Final = 4 * 1024 * 1024
FETCH_WAIT_MILLISECONDS: Final = 500

Start = int | Literal["earliest", "latest"]
Batches = dict[Partition, Sequence[ConsumerRecord]]


class LogReader:
    """Read assigned partitions in order of their offsets.

    A record has `topic`, `partition`, `offset`, `timestamp` (append time, milliseconds), `key`, `value` and `headers`.
    """

    def __init__(self, connection: LogConnection, *, client_id: str) -> None:
        """Prepare a reader; `client_id` names it in the brokers' logs and metrics."""
        self._consumer = AIOKafkaConsumer(
            client_id=client_id, group_id=None, enable_auto_commit=False, auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES, fetch_max_wait_ms=FETCH_WAIT_MILLISECONDS, check_crcs=False,
            **connection.client_arguments(),
        )  # fmt: skip
        self._bootstrap = connection.bootstrap

    async def start(self) -> None:
        """Connect.

        Raises:
            LogUnavailable: no broker answers.
        """
        try:
            await self._consumer.start()
        except KafkaError as error:
            await self._consumer.stop()
            raise refusal(error, f"a Kafka broker at {self._bootstrap}") from error

    async def stop(self) -> None:
        """Disconnect."""
        await self._consumer.stop()

    async def assign(self, positions: Mapping[Partition, Start]) -> None:
        """Read these partitions from here on, each from its position; others no longer.

        Raises:
            LogUnavailable: the brokers did not answer.
        """
        self._consumer.assign([TopicPartition(*partition) for partition in positions])
        try:
            for partition, start in positions.items():
                match start:
                    case int():
                        self._consumer.seek(TopicPartition(*partition), start)
                    case "earliest":
                        await self._consumer.seek_to_beginning(TopicPartition(*partition))
                    case "latest":
                        await self._consumer.seek_to_end(TopicPartition(*partition))
        except KafkaError as error:
            raise refusal(error, "the brokers to give positions") from error

    async def beginning_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Return the offset of the first record that each partition still has."""
        return self._plain(await self._consumer.beginning_offsets([TopicPartition(*one) for one in partitions]))

    async def end_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Return the offset that the next record of each partition will get."""
        return self._plain(await self._consumer.end_offsets([TopicPartition(*one) for one in partitions]))

    async def offsets_at(self, moments_milliseconds: Mapping[Partition, int]) -> dict[Partition, int]:
        """Return the offset of the first record appended at or after each moment; the end where there is none."""
        asked = {TopicPartition(*one): moment for one, moment in moments_milliseconds.items()}
        found = await self._consumer.offsets_for_times(asked)
        ends = await self.end_offsets(moments_milliseconds)
        return {
            one: ends[one] if (record := found[TopicPartition(*one)]) is None else record.offset
            for one in moments_milliseconds
        }

    async def position(self, partition: Partition) -> int:
        """Return the offset of the next record that will be read; ranges that were compacted away are skipped."""
        offset: int = await self._consumer.position(TopicPartition(*partition))
        return offset

    async def batch(self, *, timeout_seconds: float, max_records: int | None = None) -> Batches:
        """Return what has arrived, by partition; empty when nothing did in time.

        Raises:
            LogUnavailable: a position is no longer on the log, or the brokers refuse.
        """
        try:
            fetched = await self._consumer.getmany(timeout_ms=int(timeout_seconds * 1000), max_records=max_records)
        except KafkaError as error:
            raise refusal(error, "records") from error
        return {(partition.topic, partition.partition): records for partition, records in fetched.items() if records}

    @staticmethod
    def _plain(offsets: Mapping[TopicPartition, int]) -> dict[Partition, int]:
        return {(partition.topic, partition.partition): offset for partition, offset in offsets.items()}
