"""Reading from exact positions, without a group: whoever reads keeps its own positions, with its own data."""

import asyncio
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Literal, Self

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from controlplane.log.clients import disconnect
from controlplane.log.connection import LogConnection, LogUnavailable, refusal
from controlplane.log.positions import Partition

FETCH_BYTES: Final = 4 * 1024 * 1024
FETCH_WAIT_MILLISECONDS: Final = 500
BRIEF_WAIT_MILLISECONDS: Final = 5
"""For whoever reads up to an end that it knows: a broker answers one request after the other, so the next question would wait for a fetch
that nothing fills."""
REQUEST_SECONDS: Final = 15.0

Start = int | Literal["earliest", "latest"]
Batches = dict[Partition, Sequence[ConsumerRecord]]


class PositionGone(LogUnavailable):
    """Expected a position that the log has, but it is before the first record kept or after the last one written.

    The reader never jumps: what it skipped would be missing from whatever is built of the records. Somebody has to say where to go on.
    """


@contextmanager
def _answers(expected: str) -> Iterator[None]:
    """Raise what the brokers refuse or do not answer as an error of the log."""
    try:
        yield
    except OffsetOutOfRangeError as error:
        places = ", ".join(f"{one.topic}/{one.partition}/{offset}" for one, offset in error.args[0].items())
        raise PositionGone(f"Expected {places} to be a position of the log, but it has no such offset.") from error
    except KafkaError as error:
        raise refusal(error, expected) from error


class LogReader:
    """Read assigned partitions in order of their offsets.

    A record has `topic`, `partition`, `offset`, `timestamp` (append time, milliseconds), `key`, `value` and `headers`.
    While no broker answers, `batch` returns nothing; it goes on by itself when one does.
    """

    def __init__(
        self, connection: LogConnection, *, client_id: str, wait_milliseconds: int = FETCH_WAIT_MILLISECONDS
    ) -> None:
        """Prepare a reader; `client_id` names it in the brokers' logs and metrics, brokers may wait so long for news to answer with."""
        self._consumer = AIOKafkaConsumer(
            client_id=client_id, group_id=None, enable_auto_commit=False, auto_offset_reset="none",
            max_partition_fetch_bytes=FETCH_BYTES, fetch_max_wait_ms=wait_milliseconds, check_crcs=False,
            request_timeout_ms=int(REQUEST_SECONDS * 1000), **connection.client_arguments(),
        )  # fmt: skip
        self._bootstrap = connection.bootstrap

    async def __aenter__(self) -> Self:
        """Connect, and disconnect behind the block.

        Raises:
            LogUnavailable: no broker answers.
        """
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        await self.stop()

    async def start(self) -> None:
        """Connect, for as long as until `stop` is called.

        Raises:
            LogUnavailable: no broker answers.
        """
        try:
            with _answers(f"a Kafka broker at {self._bootstrap}"):
                await self._consumer.start()
        except LogUnavailable:
            await disconnect(self._consumer)
            raise

    async def stop(self) -> None:
        """Disconnect."""
        await disconnect(self._consumer)

    async def assign(self, positions: Mapping[Partition, Start]) -> None:
        """Read these partitions from here on, each from its position; others no longer.

        Raises:
            LogUnavailable: the brokers did not answer.
        """
        self._consumer.assign([TopicPartition(*partition) for partition in positions])
        named: dict[str, list[TopicPartition]] = {"earliest": [], "latest": []}
        for partition, start in positions.items():
            if isinstance(start, int):
                self._consumer.seek(TopicPartition(*partition), start)
            else:
                named[start].append(TopicPartition(*partition))
        with _answers("the brokers to give positions"):
            if named["earliest"]:
                await self._consumer.seek_to_beginning(*named["earliest"])
            if named["latest"]:
                await self._consumer.seek_to_end(*named["latest"])

    async def beginning_offsets(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """Return the offset of the first record that each partition still has.

        Raises:
            LogUnavailable: the brokers did not answer.
        """
        with _answers("the brokers to give the first offsets"):
            await self._learn(partitions)
            return _plain(await self._consumer.beginning_offsets([TopicPartition(*one) for one in partitions]))

    async def end_offsets(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """Return the offset that the next record of each partition will get.

        Raises:
            LogUnavailable: the brokers did not answer.
        """
        with _answers("the brokers to give the last offsets"):
            await self._learn(partitions)
            return _plain(await self._consumer.end_offsets([TopicPartition(*one) for one in partitions]))

    def known_ends(self, partitions: Collection[Partition], *, age_seconds: float) -> dict[Partition, int]:
        """Return where partitions that are read now ended as the brokers last told, those of which they told no longer ago than this.

        It asks nobody: a question would wait until the brokers answered the fetch before it, half a second where nothing happens.
        """
        since = (time.time() - age_seconds) * 1000
        ends: dict[Partition, int] = {}
        for one in partitions:
            place = TopicPartition(*one)
            told, end = self._consumer.last_poll_timestamp(place), self._consumer.highwater(place)
            if told is not None and end is not None and told >= since:
                ends[one] = end
        return ends

    async def offsets_at(self, moments_milliseconds: Mapping[Partition, int]) -> dict[Partition, int]:
        """Return the offset of the first record appended at or after each moment; the end where there is none.

        Raises:
            LogUnavailable: the brokers did not answer.
        """
        asked = {TopicPartition(*one): moment for one, moment in moments_milliseconds.items()}
        ends = await self.end_offsets(moments_milliseconds)  # First, so that a record in between is not passed over.
        with _answers("the brokers to find offsets by time"):
            found = await self._consumer.offsets_for_times(asked)
        return {
            one: ends[one] if (record := found[TopicPartition(*one)]) is None else record.offset
            for one in moments_milliseconds
        }

    async def _learn(self, partitions: Iterable[Partition]) -> None:
        """Ask for the leaders of all these topics at once: aiokafka asks for one after the other, and waits 0.1 s before each."""
        client = self._consumer._client  # noqa: SLF001 -- there is no public way to name topics without subscribing
        await asyncio.gather(*(client.add_topic(topic) for topic in {topic for topic, _ in partitions}))

    async def position(self, partition: Partition) -> int:
        """Return the offset of the next record that will be read; ranges that were compacted away are skipped.

        Raises:
            LogUnavailable: the brokers did not answer.
        """
        with _answers("the brokers to give a position"):
            offset: int = await self._consumer.position(TopicPartition(*partition))
        return offset

    async def batch(self, *, timeout_seconds: float, max_records: int | None = None) -> Batches:
        """Return what has arrived, by partition; empty when nothing did in time.

        The position after a batch is its last record's offset + 1, whatever was compacted away before it.

        Raises:
            PositionGone: the log has no such offset.
            LogRefused: the brokers refuse this service.
        """
        with _answers("records"):
            fetched = await self._consumer.getmany(timeout_ms=int(timeout_seconds * 1000), max_records=max_records)
        return {(partition.topic, partition.partition): records for partition, records in fetched.items() if records}


def _plain(offsets: Mapping[TopicPartition, int]) -> dict[Partition, int]:
    return {(partition.topic, partition.partition): offset for partition, offset in offsets.items()}
