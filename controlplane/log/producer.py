"""Producing: idempotent, acknowledged by all replicas, in order per partition, with one future per call instead of per record.

Each partition has a lane: a queue and a task that turns all that waits into one Kafka batch. While a batch is on its way the next
one grows by itself, so a lone record leaves at once and a flood leaves in large batches; nothing lingers.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from controlplane import __version__
from controlplane.events.catalog import EVENT_TYPES, Service, record_key
from controlplane.events.codec import encode
from controlplane.events.identity import partition_of, random_id
from controlplane.events.types import LogPosition, Producer
from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.log.positions import Partition
from controlplane.log.topics import LARGEST_RECORD_BYTES, partition_counts

BATCH_BYTES: Final = 512 * 1024
REQUEST_BYTES: Final = 4 * 1024 * 1024
DELIVERY_SECONDS: Final = 30.0
assert BATCH_BYTES <= LARGEST_RECORD_BYTES  # A batch is never larger than what the broker takes as one.

Headers = tuple[tuple[str, bytes], ...]


class RecordTooLarge(ValueError):
    """Expected a record within the limit of the log, but found a larger one."""


class OutgoingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record with its place: topic, partition, key and value bytes."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: Headers = ()


class _Call:
    """The records of one `send`, counted down to its answer."""

    __slots__ = ("answer", "missing", "positions")

    def __init__(self, size: int, answer: "asyncio.Future[list[LogPosition]]") -> None:
        self.positions: list[LogPosition | None] = [None] * size
        self.missing = size
        self.answer = answer

    def acknowledged(self, index: int, position: LogPosition) -> None:
        self.positions[index] = position
        self.missing -= 1
        if not self.missing and not self.answer.done():
            self.answer.set_result([position for position in self.positions if position is not None])

    def failed(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # Whoever sent without waiting is told by the outbox or the next call, not by a warning.


_Waiting = tuple[OutgoingRecord, _Call, int]


class _Lane:
    """What waits for one partition, and the task that sends it."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.waiting: deque[_Waiting] = deque()
        self.sending = False
        self.task: asyncio.Task[None] | None = None


class LogProducer:
    """Write events to the log."""

    def __init__(
        self, connection: LogConnection, *, service: Service, partitions: Mapping[str, int] | None = None, instance: str | None = None
    ) -> None:  # fmt: skip
        """Prepare a producer for one service; the number of partitions of each topic is asked for unless it is given."""
        self.identity: Final = Producer(
            service=service.value, version=__version__, instance=instance or random_id()[:8]
        )
        self._connection = connection
        self._partitions = dict(partitions or {})
        self._lanes: dict[Partition, _Lane] = {}
        self._unacknowledged: set[asyncio.Future[list[LogPosition]]] = set()
        self._kafka: AIOKafkaProducer | None = None
        self._restarting: asyncio.Lock = asyncio.Lock()
        self._batches: set[asyncio.Future[None]] = set()

    async def start(self) -> None:
        """Connect.

        Raises:
            LogUnavailable: no broker answers.
        """
        if not self._partitions:
            self._partitions = await partition_counts(self._connection)
        self._kafka = await self._connect()

    async def stop(self) -> None:
        """Deliver what waits, within the bound, and disconnect."""
        if self._unacknowledged:
            await asyncio.wait(set(self._unacknowledged), timeout=DELIVERY_SECONDS)
        for lane in self._lanes.values():
            if lane.task is not None:
                lane.task.cancel()
        if self._kafka is not None:
            await self._kafka.stop()

    def partitions(self, topic: str) -> int:
        """Return the number of partitions of a topic."""
        return self._partitions[topic]

    def record(self, event: msgspec.Struct, *, partition: int | None = None, headers: Headers = ()) -> OutgoingRecord:
        """Return the record of an event: its value bytes, its key, and the partition of the key unless one is given.

        Raises:
            RecordTooLarge: the log does not take records of that size.
        """
        topic = EVENT_TYPES[type(event).__name__].topic.name
        key = record_key(event)
        value = encode(event)
        if len(value) > LARGEST_RECORD_BYTES:
            raise RecordTooLarge(f"Expected a record of at most {LARGEST_RECORD_BYTES} bytes, but found {len(value)}.")
        place = partition_of(key, self._partitions[topic]) if partition is None else partition
        return OutgoingRecord(topic=topic, partition=place, key=key, value=value, headers=headers)

    def send(self, records: Sequence[OutgoingRecord]) -> "asyncio.Future[list[LogPosition]]":
        """Send records and return at once; the future resolves to their positions, in order, when all are acknowledged.

        Records of one partition are appended in the order of the calls. The future raises `LogUnavailable` when the brokers
        did not acknowledge within the bound: then each record may or may not be on the log.
        """
        answer: asyncio.Future[list[LogPosition]] = asyncio.get_running_loop().create_future()
        if not records:
            answer.set_result([])
            return answer
        self._unacknowledged.add(answer)
        answer.add_done_callback(self._unacknowledged.discard)
        call = _Call(len(records), answer)
        lanes = self._lanes
        for index, record in enumerate(records):
            partition = (record.topic, record.partition)
            lane = lanes.get(partition)
            if lane is None:
                lane = lanes[partition] = _Lane(partition)
            lane.waiting.append((record, call, index))
            if not lane.sending:
                lane.sending = True
                lane.task = asyncio.create_task(self._drain(lane))
        return answer

    async def publish(
        self, event: msgspec.Struct, *, partition: int | None = None, headers: Headers = ()
    ) -> LogPosition:
        """Send one event and return its position once it is acknowledged.

        Raises:
            LogUnavailable: it was not acknowledged within the bound.
            RecordTooLarge: the log does not take records of that size.
        """
        return (await self.send([self.record(event, partition=partition, headers=headers)]))[0]

    async def _drain(self, lane: _Lane) -> None:
        """Send what waits in a lane, batch by batch, until nothing does."""
        try:
            while lane.waiting:
                batch: list[_Waiting] = []
                try:
                    kafka = self._kafka or await self._reconnect()
                    builder = kafka.create_batch()
                    now_milliseconds = time.time_ns() // 1_000_000
                    while lane.waiting:
                        record = lane.waiting[0][0]
                        added = builder.append(
                            timestamp=now_milliseconds, key=record.key, value=record.value, headers=list(record.headers)
                        )
                        if added is None:
                            break
                        batch.append(lane.waiting.popleft())
                    topic, partition = lane.partition
                    delivered = await kafka.send_batch(builder, topic, partition=partition)
                except (KafkaError, LogUnavailable) as error:
                    # Everything that waits would wait in vain: its callers decide, they know what may be repeated.
                    batch.extend(lane.waiting)
                    lane.waiting.clear()
                    await self._fail(batch, error)
                else:
                    outcome = asyncio.ensure_future(self._settle(delivered, lane.partition, batch))
                    self._batches.add(outcome)
                    outcome.add_done_callback(self._batches.discard)
        finally:
            lane.sending = False

    async def _settle(self, delivered: "asyncio.Future[object]", partition: Partition, batch: list[_Waiting]) -> None:
        """Answer the callers of one batch when the brokers have answered."""
        try:
            metadata = await delivered
        except KafkaError as error:
            await self._fail(batch, error)
            return
        topic, number = partition
        offset: int = metadata.offset  # type: ignore[attr-defined] # aiokafka's RecordMetadata
        for _, call, index in batch:
            call.acknowledged(index, LogPosition(topic=topic, partition=number, offset=offset))
            offset += 1

    async def _fail(self, batch: Iterable[_Waiting], error: Exception) -> None:
        """Tell the callers, and give up the connection: after a lost batch its sequence numbers have a gap."""
        for _, call, _ in batch:
            call.failed(
                LogUnavailable(f"Expected the log to take the records within {DELIVERY_SECONDS} s, but: {error!r}")
            )
        broken, self._kafka = self._kafka, None
        if broken is not None:
            await broken.stop()

    async def _reconnect(self) -> AIOKafkaProducer:
        async with self._restarting:
            if self._kafka is None:
                self._kafka = await self._connect()
            return self._kafka

    async def _connect(self) -> AIOKafkaProducer:
        kafka = AIOKafkaProducer(
            client_id=f"controlplane-{self.identity.service}-{self.identity.instance}", acks="all", enable_idempotence=True,
            linger_ms=0, max_batch_size=BATCH_BYTES, max_request_size=REQUEST_BYTES,
            request_timeout_ms=int(DELIVERY_SECONDS * 1000), retry_backoff_ms=50, **self._connection.client_arguments(),
        )  # fmt: skip
        try:
            await kafka.start()
        except KafkaError as error:
            await kafka.stop()
            raise LogUnavailable(f"Expected a Kafka broker at {self._connection.bootstrap}, but: {error}") from error
        return kafka
