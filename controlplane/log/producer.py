"""Producing: idempotent, acknowledged by all in-sync replicas, in order per partition, with one future per call instead of per record.

Each partition has a lane of waiting records; each broker has one request on its way at most. When it returns, all that has come to
wait meanwhile leaves in the next: a lone record leaves at once, a flood leaves in large batches, and nothing lingers.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
from aiokafka.errors import KafkaError

from controlplane import __version__
from controlplane.events.catalog import EVENT_TYPES, Service, record_key
from controlplane.events.codec import encode
from controlplane.events.identity import partition_of, random_id
from controlplane.events.types import LogPosition, Producer
from controlplane.log.cloudevents import CloudEvents
from controlplane.log.connection import LogConnection, LogUnavailable, refusal
from controlplane.log.positions import Partition
from controlplane.log.session import (
    BATCH_BYTES,
    RETRY_SECONDS,
    Headers,
    OutgoingRecord,
    ProducerSession,
    SealedBatch,
)
from controlplane.log.topics import LARGEST_BATCH_BYTES, LARGEST_RECORD_BYTES, partition_counts
from controlplane.log.traces import current_headers, sent

__all__ = ["LogProducer", "OutgoingRecord", "RecordTooLarge"]

REQUEST_BYTES: Final = 4 * 1024 * 1024
DELIVERY_SECONDS: Final = 30.0
REQUESTS_PER_DELIVERY: Final = 3
"""A broker that takes a request and never answers is given up so often before the records are."""
RECONNECT_SECONDS: Final = 0.5
CANCEL_AGAIN_SECONDS: Final = 0.1
OVERHEAD_BYTES: Final = 512
"""What Kafka's format may add to one record in a batch of its own."""

assert BATCH_BYTES <= LARGEST_BATCH_BYTES
assert LARGEST_RECORD_BYTES + OVERHEAD_BYTES <= LARGEST_BATCH_BYTES  # The largest record travels in a batch of its own.

logger = logging.getLogger(__name__)


class RecordTooLarge(ValueError):
    """Expected a record within the limit of the log, but found a larger one."""


class _Call:
    """The records of one `send`, counted down to its answer."""

    __slots__ = ("answer", "deadline", "missing", "positions")

    def __init__(self, size: int, answer: "asyncio.Future[list[LogPosition]]", deadline: float) -> None:
        self.positions: list[LogPosition] = [_NOWHERE] * size
        self.missing = size
        self.answer = answer
        self.deadline = deadline

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # Whoever sent without waiting learns it from the next call, not from a warning.


_NOWHERE: Final = LogPosition(topic="", partition=-1, offset=-1)
_Waiting = tuple[OutgoingRecord, _Call, int]


class _Lane:
    """What waits for one partition: a sealed batch that is on its way or will go again, and the records behind it."""

    __slots__ = ("attempts", "flying", "leader", "partition", "sealed", "waiting")

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.waiting: deque[_Waiting] = deque()
        self.forget()

    def forget(self) -> None:
        """Be as new: a session's batches and what it found out end with it."""
        self.sealed: SealedBatch | None = None
        self.attempts = 0
        self.leader: int | None = None
        self.flying = False

    @property
    def overdue(self) -> float:
        """Return the moment of the loop's clock at which the oldest record has waited too long."""
        return self.waiting[0][1].deadline

    def settle(self, offset: int) -> None:
        """Answer the callers of the sealed batch, whose first record has this offset."""
        assert self.sealed is not None
        topic, number = self.partition
        popleft = self.waiting.popleft
        for _ in range(self.sealed.size):
            _, call, index = popleft()
            call.positions[index] = LogPosition(topic=topic, partition=number, offset=offset)
            offset += 1
            call.missing -= 1
            if not call.missing and not call.answer.done():
                call.answer.set_result(call.positions)
        self.sealed = None
        self.attempts = 0


class LogProducer:
    """Write events to the log. Belongs to the event loop that starts it."""

    def __init__(
        self,
        connection: LogConnection,
        *,
        service: Service,
        partitions: Mapping[str, int] | None = None,
        instance: str | None = None,
        delivery_seconds: float = DELIVERY_SECONDS,
    ) -> None:
        """Prepare a producer for one service; the number of partitions of each topic is asked for unless it is given."""
        self.identity: Final = Producer(
            service=service.value, version=__version__, instance=instance or random_id()[:8]
        )
        self._connection = connection
        self._cloudevents = CloudEvents(self.identity) if connection.cloudevents else None
        self._partitions = dict(partitions or {})
        self._delivery_seconds = delivery_seconds
        self._lanes: dict[Partition, _Lane] = {}
        self._ready: dict[_Lane, None] = {}
        self._busy: set[int] = set()
        self._wake = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        self._unacknowledged = 0
        self._settled = asyncio.Event()

    async def start(self) -> None:
        """Connect.

        Raises:
            LogUnavailable: no broker answers.
            LogRefused: the brokers refuse this service.
        """
        if not self._partitions:
            self._partitions = await partition_counts(self._connection)
        session = await self._open(self._delivery_seconds)
        self._work = asyncio.create_task(self._run(session))
        self._work.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Deliver what waits, within the bound, and disconnect; what is not delivered then fails with `LogUnavailable`."""
        work, self._work = self._work, None
        if work is None:
            return
        while self._unacknowledged and not work.done():
            self._settled.clear()
            await self._settled.wait()  # Bounded: every call is answered by its deadline.
        while not work.done():  # aiokafka's client swallows a cancellation that meets it while it closes.
            work.cancel()
            await asyncio.wait({work}, timeout=CANCEL_AGAIN_SECONDS)

    @property
    def unacknowledged(self) -> int:
        """Return how many calls of `send` have no answer yet."""
        return self._unacknowledged

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
        size = len(key) + len(value)
        headers = headers or current_headers()
        if self._cloudevents is not None:
            headers = (*headers, *self._cloudevents.headers(event))
        if headers:
            size += sum(len(name) + len(content) for name, content in headers)
        if size > LARGEST_RECORD_BYTES:
            raise RecordTooLarge(f"Expected a record of at most {LARGEST_RECORD_BYTES} bytes, but found {size}.")
        place = partition_of(key, self._partitions[topic]) if partition is None else partition
        return OutgoingRecord(topic=topic, partition=place, key=key, value=value, headers=headers)

    def send(self, records: Sequence[OutgoingRecord]) -> "asyncio.Future[list[LogPosition]]":
        """Send records and return at once; the future resolves to their positions, in order, when all are acknowledged.

        Records of one partition are appended in the order of the calls. The future raises `LogUnavailable` when the brokers
        did not acknowledge within the bound: then each record may or may not be on the log.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[LogPosition]] = loop.create_future()
        if not records:
            answer.set_result([])
            return answer
        call = _Call(len(records), answer, loop.time() + self._delivery_seconds)
        if self._work is None or self._work.done():
            call.fail(LogUnavailable("Expected a producer that runs, but it was stopped."))
            return answer
        self._unacknowledged += 1
        answer.add_done_callback(self._answered)
        lanes = self._lanes
        for index, record in enumerate(sent(records, answer)):
            partition = (record.topic, record.partition)
            lane = lanes.get(partition)
            if lane is None:
                lane = lanes[partition] = _Lane(partition)
            if not lane.waiting:
                self._ready[lane] = None
                if lane.leader not in self._busy:
                    self._wake.set()
            lane.waiting.append((record, call, index))
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

    def _answered(self, _: "asyncio.Future[list[LogPosition]]") -> None:
        self._unacknowledged -= 1
        self._settled.set()

    # Sessions

    async def _open(self, within_seconds: float) -> ProducerSession:
        return await ProducerSession.open(
            self._connection, f"controlplane-{self.identity.service}-{self.identity.instance}", self._partitions,
            request_seconds=self._delivery_seconds / REQUESTS_PER_DELIVERY, within_seconds=within_seconds,
        )  # fmt: skip

    def _ended(self, work: asyncio.Task[None]) -> None:
        """Leave no call without its answer, however the work ended."""
        if not work.cancelled():
            logger.critical("The producer ended by a fault of ours.", exc_info=work.exception())
        self._fail_all(LogUnavailable("Expected a producer that runs, but it was stopped."))

    async def _run(self, session: ProducerSession) -> None:
        """Deliver until cancelled, in one session after the other.

        When a batch is given up its producer id has a gap, so the session ends and everything unanswered fails with it: what is sent
        again by its callers then keeps their order.
        """
        while True:
            try:
                await self._deliver(session)
            except* LogUnavailable as lost:
                error = lost.exceptions[0]
                assert isinstance(error, LogUnavailable)
                logger.warning("Starts a new producer session: %s", error)
                self._fail_all(error)
            finally:
                await session.close()
            session = await self._open_again()

    async def _open_again(self) -> ProducerSession:
        while True:
            try:
                return await self._open(self._delivery_seconds / REQUESTS_PER_DELIVERY)
            except LogUnavailable as error:
                now = asyncio.get_running_loop().time()
                if any(lane.waiting and lane.overdue <= now for lane in self._lanes.values()):
                    self._fail_all(error)
                await asyncio.sleep(RECONNECT_SECONDS)

    def _fail_all(self, error: LogUnavailable) -> None:
        for lane in self._lanes.values():
            for _, call, _ in lane.waiting:
                call.fail(error)
            lane.waiting.clear()
            lane.forget()
        self._ready.clear()
        self._busy.clear()

    # Requests

    async def _deliver(self, session: ProducerSession) -> None:
        """Give each broker that is free a request with what waits for it, until a batch has to be given up."""
        async with asyncio.TaskGroup() as requests:
            while True:
                for node, lanes in self._by_free_broker(session):
                    self._busy.add(node)
                    requests.create_task(self._request(session, node, lanes))
                await self._wake.wait()
                self._wake.clear()

    def _by_free_broker(self, session: ProducerSession) -> Iterator[tuple[int, list[_Lane]]]:
        """Yield each broker without a request on its way, and the lanes that it leads; those are no longer ready."""
        chosen: dict[int, list[_Lane]] = {}
        for lane in self._ready:
            if lane.leader is None:
                lane.leader = session.leader(lane.partition)
            if lane.leader is None:
                _give_up_when_overdue(
                    lane, LogUnavailable(f"Expected a leader of {lane.partition}, but none is known.")
                )
                asyncio.get_running_loop().call_later(RETRY_SECONDS, self._wake.set)
            elif lane.leader not in self._busy:
                chosen.setdefault(lane.leader, []).append(lane)
        for node, lanes in chosen.items():
            for lane in lanes:
                del self._ready[lane]
            yield node, lanes

    async def _request(self, session: ProducerSession, node: int, lanes: Sequence[_Lane]) -> None:
        batches: dict[Partition, SealedBatch] = {}
        size = 0
        now_milliseconds = time.time_ns() // 1_000_000
        for lane in lanes:
            if size >= REQUEST_BYTES:
                self._ready[lane] = None  # First in the next request: those after it in this one are put behind it.
                continue
            if lane.sealed is None:
                lane.sealed = session.seal(lane.partition, (entry[0] for entry in lane.waiting), now_milliseconds)
            lane.flying = True
            batches[lane.partition] = lane.sealed
            size += len(lane.sealed.data)
        outcomes = await session.append(node, batches)
        self._busy.discard(node)
        for lane in lanes:
            if lane.partition in batches:
                self._settle(session, lane, outcomes[lane.partition])
        if self._ready:
            self._wake.set()

    def _settle(self, session: ProducerSession, lane: _Lane, outcome: int | KafkaError) -> None:
        """Answer a batch's callers, or send it again, or give it up.

        Raises:
            LogUnavailable: it is given up, and the session with it.
        """
        lane.flying = False
        if isinstance(outcome, int) and outcome >= 0:
            lane.settle(outcome)
            if lane.waiting:
                self._ready[lane] = None
            return
        if isinstance(outcome, int):  # A repeat that the broker knows, of which it no longer knows the offset.
            raise LogUnavailable(f"Expected the offset of a batch in {lane.partition}, but the broker gave none.")
        error = refusal(outcome, f"the records in {lane.partition} on the log within {self._delivery_seconds} s")
        if not outcome.retriable:
            raise error
        _give_up_when_overdue(lane, error)
        lane.attempts += 1
        lane.leader = None
        session.look_again()
        pause_seconds = min(RECONNECT_SECONDS, RETRY_SECONDS * lane.attempts)
        asyncio.get_running_loop().call_later(pause_seconds, self._again, lane)

    def _again(self, lane: _Lane) -> None:
        if lane.waiting and not lane.flying:  # The lane may have begun anew meanwhile.
            self._ready[lane] = None
            self._wake.set()


def _give_up_when_overdue(lane: _Lane, error: LogUnavailable) -> None:
    if lane.overdue <= asyncio.get_running_loop().time():
        raise error
