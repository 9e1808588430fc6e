"""Faust with one event per fetched partition batch, and positions that the application keeps.

Four things differ from Faust's own transport (ADR 3 says why, each is held by a test):
- An event is a batch: Faust takes several tasks per event, so one event per record is some twenty times as slow.
- Positions are the application's: Faust's committed offset is only a hint, for tools that show a group's lag. On each assignment the
  application says where to read on (`take_over`), from positions that it stored together with its data, and nothing else is read.
- Everything runs in one loop: with the consumer in a thread of its own, each fetch costs two changes of thread, and both want the
  interpreter.
- What fails ends the application: Faust would restart the agent and hand it the next batch.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, cast

import faust
from aiokafka import AIOKafkaConsumer, OffsetAndMetadata, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError, NoOffsetForPartitionError
from faust.app.base import BootStrategy
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.supervisors import CrashingSupervisor
from yarl import URL

from controlplane.log.clients import disconnect
from controlplane.log.connection import LogConnection, LogUnavailable, refusal
from controlplane.log.positions import Partition

RECORDS_AT_ONCE: Final = 2000
BATCHES_AHEAD: Final = 64
"""Batches that may wait for the application; Faust's own buffer is larger, so that it never blocks."""
COMMIT_SECONDS: Final = 5.0
FETCH_WAIT_MILLISECONDS: Final = 500
REQUEST_SECONDS: Final = 15.0
METADATA_SECONDS: Final = 5.0
"""A broker that has just come back may not know of the partitions yet: the group's leader then shares out none, and looks again only so often."""
HEARTBEATS_PER_SESSION: Final = 6
LEAVE_WITHIN_SECONDS: Final = 5.0
FAUST_PATIENCE_SECONDS: Final = 30 * 24 * 3600.0
"""Faust takes a take-over that lasts longer for the end of the application, and hangs."""

TakeOver = Callable[[set[Partition]], Awaitable[Mapping[Partition, int]]]
"""Gets the assigned partitions, returns the offset of the next record to read of each."""
HandOver = Callable[[set[Partition]], Awaitable[None]]
"""Gets the partitions that this member had, before the next assignment is made."""

logger = logging.getLogger(__name__)


class _Reader(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, without the thread."""

    def __init__(self, consumer: "_BatchConsumer", **arguments: Any) -> None:
        super().__init__(consumer, thread_loop=asyncio.get_running_loop(), **arguments)

    async def start(self) -> None:
        self._thread_started.set()
        self._started.set()
        await self.on_start()

    async def stop(self) -> None:
        if not self._stopped.is_set():
            self._stopped.set()
            if self._consumer is not None:
                await disconnect(self._consumer, within_seconds=LEAVE_WITHIN_SECONDS / 2)
            self._shutdown.set()

    async def call_thread(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        called = fun(*args, **kwargs)
        return await called if asyncio.iscoroutine(called) else called

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await self.consumer.on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        if not assigned:
            logger.warning("The group gave this member no partitions.")
        await self.consumer.on_partitions_assigned(assigned, generation_id)

    def _create_worker_consumer(self, transport: driver.Transport) -> AIOKafkaConsumer:
        assert isinstance(transport, _BatchTransport)
        session_milliseconds = int(transport.session_seconds * 1000)
        return AIOKafkaConsumer(
            client_id=transport.client_id, group_id=self.app.conf.id, enable_auto_commit=False, auto_offset_reset="none",
            # Equal numbers of topics with equal counts go to one member: what is co-partitioned stays together.
            partition_assignment_strategy=[RangePartitionAssignor],
            session_timeout_ms=session_milliseconds, heartbeat_interval_ms=session_milliseconds // HEARTBEATS_PER_SESSION,
            rebalance_timeout_ms=session_milliseconds, max_poll_interval_ms=int(FAUST_PATIENCE_SECONDS * 1000),
            max_poll_records=RECORDS_AT_ONCE, fetch_max_wait_ms=FETCH_WAIT_MILLISECONDS, check_crcs=False,
            request_timeout_ms=int(REQUEST_SECONDS * 1000), metadata_max_age_ms=int(METADATA_SECONDS * 1000),
            **transport.connection.client_arguments(),
        )  # fmt: skip

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commit the hint; without it nothing is lost."""
        try:
            await self._ensure_consumer().commit(
                {TopicPartition(*partition): OffsetAndMetadata(offset, "") for partition, offset in offsets.items()}
            )
        except KafkaError as error:
            logger.debug("The group's offsets were not committed: %r", error)
            return False
        return True


class _BatchConsumer(driver.Consumer):
    """Delivers one message per partition batch; its value is the list of records."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._following: dict[TP, int] = {}
        """The offset that comes next, of the partitions that were taken over; others are not read."""
        self._done: dict[TP, int] = {}
        self._unsettled: set[Any] = set()
        self._moved = asyncio.Event()

    def _new_consumer_thread(self) -> _Reader:
        return _Reader(self, loop=self.loop, beacon=self.beacon)

    # Reading

    async def _drain_messages(self, fetcher: Any) -> None:
        while not (self.should_stop or fetcher.should_stop):
            if not self.flow_active:
                await self.wait(self.can_resume_flow.wait())
                continue
            try:
                fetched = await self._thread.getmany(None, 1.0)
            except NoOffsetForPartitionError as error:
                # aiokafka looks for a position as soon as a partition is assigned; it is sought only once it is taken over.
                if self._sought(error):
                    continue
                raise
            # Asked for only now: a fetch that a rebalance met returns what the new assignment has.
            generation = self.app.consumer_generation_id
            for partition, records in fetched.items():
                while len(self._unsettled) >= BATCHES_AHEAD and self._goes_on(generation):
                    self._moved.clear()
                    await self.wait_first(self._moved.wait())
                if not self._goes_on(generation):
                    break  # Whoever takes the partitions over seeks the position before these records.
                await self._deliver(TP(*partition), records)

    def _sought(self, error: NoOffsetForPartitionError) -> bool:
        return not self.flow_active or self._following.keys() >= {TP(*one) for one in error.args}

    def _goes_on(self, generation: int) -> bool:
        return not self.should_stop and self.app.consumer_generation_id == generation

    async def _deliver(self, partition: TP, records: list[Any]) -> None:
        following = self._following.get(partition)
        if following is None:
            return  # Fetched before the partition was taken over, which seeks the position anew.
        fresh = records if records[0].offset >= following else [one for one in records if one.offset >= following]
        if not fresh:
            return
        self._following[partition] = fresh[-1].offset + 1
        message = self._to_message(partition, fresh[0])
        message.value = fresh  # type: ignore[assignment] # Faust passes it on as it is.
        self._unsettled.add(message)
        await self.callback(message)

    def ack(self, message: Any) -> bool:
        self._unsettled.discard(message)
        self._moved.set()
        if message.acked or message.generation_id != self.app.consumer_generation_id:
            return False
        message.acked = True
        self._done[message.tp] = message.value[-1].offset + 1
        return True

    # The hint

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Any:
        return list(self._done)

    def _filter_committable_offsets(self, tps: Any) -> dict[TP, int]:
        done, self._done = self._done, {}
        return done

    # Assignment

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self._following.clear()
        self._done.clear()
        self._unsettled.clear()
        self._moved.set()
        self.stop_flow()  # Faust does not for a member that had none, which would be asked for positions before it took its first ones over.
        await super().on_partitions_revoked(revoked)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to the application's own positions; Faust is told the offset before, which it takes as read."""
        transport = cast(_BatchTransport, self.transport)
        assigned = {(one.topic, one.partition) for one in self.assignment()}
        generation = self.app.consumer_generation_id
        try:
            positions = await transport.take_over(assigned)
        except KafkaError as error:
            raise refusal(error, "the log while partitions are taken over") from error
        except asyncio.CancelledError as error:
            if cast(asyncio.Task[Any], asyncio.current_task()).cancelling():
                raise
            # Nobody cancelled this: Faust would let the task go in silence, and nothing would ever be read again.
            raise LogUnavailable("Expected the log while partitions are taken over, but it was left off.") from error
        consumer = self._thread._ensure_consumer()  # noqa: SLF001 -- the driver offers no other way to it
        if self.app.consumer_generation_id != generation:
            return {}  # They are assigned anew.
        for partition, offset in positions.items():
            consumer.seek(TopicPartition(*partition), offset)
            self._following[TP(*partition)] = offset
        return {TP(*partition): offset - 1 for partition, offset in positions.items()}

    def reached(self, positions: Mapping[Partition, int]) -> dict[Partition, int]:
        consumer = self._thread._ensure_consumer()  # noqa: SLF001 -- the driver offers no other way to it
        found: dict[Partition, int] = {}
        for place in consumer.assignment() & {TopicPartition(*one) for one in positions}:
            end, asked_at = consumer.highwater(place), consumer.last_poll_timestamp(place)
            if end is not None and asked_at is not None and positions[(place.topic, place.partition)] >= end:
                found[(place.topic, place.partition)] = asked_at * 1000
        return found

    # What Faust would watch over and change on its own

    def on_buffer_full(self, tp: TP) -> None: ...

    def on_buffer_drop(self, tp: TP) -> None: ...

    async def verify_all_partitions_active(self) -> None: ...


class _BatchTransport(driver.Transport):
    Consumer = _BatchConsumer
    connection: LogConnection
    take_over: TakeOver
    session_seconds: float
    client_id: str


class _WithoutProducer(BootStrategy):
    """Faust's producer is not used: what JobForge writes goes through its outbox."""

    enable_kafka_producer = False
    enable_web = False


class _BatchApp(faust.App):
    BootStrategy = _WithoutProducer


def batch_app(
    group: str, connection: LogConnection, *, take_over: TakeOver, hand_over: HandOver | None = None, session_seconds: float, client_id: str,
) -> faust.App:  # fmt: skip
    """Return a Faust application whose agents get one `list[ConsumerRecord]` of one partition per event.

    `group` is the consumer group: its members share the partitions. Use `stream.noack().events()` in agents, and `ack` events, those
    of one partition in order, after their effects are stored. An agent that raises ends the application with what it raised.
    """
    app = _BatchApp(
        group, broker=f"kafka://{connection.bootstrap.replace(',', ';kafka://')}", store="memory://",
        agent_supervisor=CrashingSupervisor, broker_commit_interval=COMMIT_SECONDS,
        broker_request_timeout=FAUST_PATIENCE_SECONDS, broker_session_timeout=session_seconds,
        stream_wait_empty=False, stream_buffer_maxsize=2 * BATCHES_AHEAD, table_standby_replicas=0,
        topic_allow_declare=False, topic_disable_leader=True, web_enabled=False, loghandlers=[], datadir="/nonexistent",
    )  # fmt: skip
    transport = _BatchTransport([URL(f"aiokafka://{address}") for address in connection.bootstrap.split(",")], app)
    transport.connection = connection
    transport.take_over = take_over
    transport.session_seconds = session_seconds
    transport.client_id = client_id
    app.transport = transport
    if hand_over is not None:

        async def revoked(_: Any, /, *partitions: Any, signal: Any, **__: Any) -> None:
            await hand_over({(one.topic, one.partition) for one in partitions[0]})

        app.on_partitions_revoked.connect(revoked)
    return app


def reached(app: faust.App, positions: Mapping[Partition, int]) -> dict[Partition, int]:
    """Return when the brokers last said (microseconds) that the log ends at these positions, of those that it does end at.

    `positions` are the offsets behind what was dealt with.
    """
    return app.consumer.reached(positions) if isinstance(app.consumer, _BatchConsumer) and app.consumer.started else {}


async def run_app(app: faust.App, stop: asyncio.Event) -> None:
    """Run a Faust application inside of this event loop until `stop` is set.

    Raises:
        LogUnavailable: no broker answers.
        BaseException: whatever else crashed the application.
    """
    stopped = asyncio.create_task(stop.wait())
    crashed: asyncio.Task[None] | None = None
    try:
        await app.start()
        crashed = asyncio.create_task(app.wait_until_stopped())
        await asyncio.wait({stopped, crashed}, return_when=asyncio.FIRST_COMPLETED)
        reason = app.crash_reason
    except KafkaError as error:
        reason = error
    finally:
        stopped.cancel()
        if crashed is not None:
            crashed.cancel()
        # Also when cancelled: a member that is left behind keeps its partitions for a session. Without brokers nobody can leave.
        stopping = asyncio.ensure_future(app.stop())
        await asyncio.wait({stopping}, timeout=LEAVE_WITHIN_SECONDS)
        if stopping.done():
            stopping.result()
    if isinstance(reason, KafkaError):
        raise refusal(reason, "the log") from reason
    if reason is not None:
        raise reason
