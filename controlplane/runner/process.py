"""The runner process: registers, reads its inbox, runs attempts, reports; its heart beats in a thread of its own."""

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from controlplane.contents import ContentStore
from controlplane.events import types
from controlplane.events.catalog import ROUTING, Service
from controlplane.events.codec import UndecodableRecord, decode
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant, partition_of, random_id
from controlplane.events.types import LogPosition
from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.log.producer import LogProducer, OutgoingRecord
from controlplane.log.reader import LogReader
from controlplane.runner.definition import Runner
from controlplane.runner.errors import refusal
from controlplane.runner.execution import Attempt

AGAIN_SECONDS: Final = 0.5
REGISTER_EVERY_SECONDS: Final = 30.0
"""Registered again and again, so that whoever lost the registry finds every living runner near the end of its topic."""
DRAIN_SECONDS: Final = 30.0

logger = logging.getLogger(__name__)


def _now() -> Instant:
    return Instant(time.time_ns() // 1000)


class Heart(threading.Thread):
    """Sends heartbeats from a thread and an event loop of its own, so that user code cannot starve them."""

    def __init__(
        self, process: "RunnerProcess", connection: LogConnection, partitions: dict[str, int], seconds: float
    ) -> None:
        """Prepare the heart of one process."""
        super().__init__(name="heartbeats", daemon=True)
        self._process = process
        self._connection = connection
        self._partitions = partitions
        self._seconds = seconds
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the heartbeats."""
        self._stopped.set()
        self.join()

    def run(self) -> None:
        """Beat until stopped."""
        asyncio.run(self._beat())

    async def _beat(self) -> None:
        producer = LogProducer(self._connection, service=Service.RUNNER, partitions=self._partitions)
        registered_at, sequence = time.monotonic(), 0
        while not self._stopped.is_set():
            try:
                await producer.publish(self._process.heartbeat(sequence, producer))
                if time.monotonic() - registered_at > REGISTER_EVERY_SECONDS:
                    await producer.publish(self._process.registration(producer))
                    registered_at = time.monotonic()
                sequence += 1
            except LogUnavailable as error:
                logger.warning("A heartbeat waits for the log: %s", error)
            await asyncio.to_thread(self._stopped.wait, self._seconds)
        await producer.stop()


class RunnerProcess:
    """One process of a runner, unique from its start to its end."""

    def __init__(
        self, runner: Runner, connection: LogConnection, partitions: dict[str, int], contents: ContentStore, *, heartbeat_seconds: float
    ) -> None:  # fmt: skip
        """Prepare a process with a new id."""
        self.runner = runner
        self.runner_id = f"{runner.name}@{random_id()[:12]}"
        self.attempts: dict[str, Attempt] = {}
        self._connection = connection
        self._contents = contents
        self._heartbeat_seconds = heartbeat_seconds
        self._producer = LogProducer(connection, service=Service.RUNNER, partitions=partitions, instance=self.runner_id)
        self._inbox = (ROUTING.name, partition_of(self.runner_id.encode(), partitions[ROUTING.name]))
        self._heart = Heart(self, connection, partitions, heartbeat_seconds)
        self._threads = ThreadPoolExecutor(runner.slots, thread_name_prefix="handler")
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._waiting: list[OutgoingRecord] = []
        self._draining = False

    # What the process says of itself

    def registration(self, producer: LogProducer) -> types.RunnerRegistered:
        """Return the event that offers this process."""
        header = outside_header("RunnerRegistered", f"{self.runner_id}/{_now()}", producer.identity, _now())
        return types.RunnerRegistered(
            header=header, runner_id=self.runner_id, name=self.runner.name, pool=self.runner.pool, slots=self.runner.slots,
            labels=self.runner.labels, capabilities=tuple(one.contract() for one in self.runner.handlers.values()),
            inbox_partition=self._inbox[1], heartbeat_seconds=self._heartbeat_seconds,
        )  # fmt: skip

    def heartbeat(self, sequence: int, producer: LogProducer) -> types.RunnerHeartbeat:
        """Return the event that says that this process lives, and which leases it holds."""
        header = outside_header("RunnerHeartbeat", f"{self.runner_id}/{sequence}", producer.identity, _now())
        return types.RunnerHeartbeat(
            header=header,
            runner_id=self.runner_id,
            sequence=sequence,
            attempt_ids=tuple(self.attempts),
            draining=self._draining,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish what is in hand.

        1. Find the end of the inbox. 2. Register. 3. Read on from there: nothing that is routed here can be missed.
        """
        await self._producer.start()
        reader = LogReader(self._connection, client_id=f"controlplane-{self.runner_id}")
        await reader.start()
        try:
            end = (await reader.end_offsets([self._inbox]))[self._inbox]  # Step 1.
            await reader.assign({self._inbox: end})
            await self._producer.publish(self.registration(self._producer))  # Step 2.
            self._heart.start()
            logger.info(
                "Runner %s offers %s.", self.runner_id, ", ".join(one.label for one in self.runner.handlers.values())
            )
            await self._read(reader, stop)  # Step 3.
            await self._drain(reader)
        finally:
            await reader.stop()
            if self._heart.is_alive():
                self._heart.stop()
            self._threads.shutdown(wait=False, cancel_futures=True)
            await self._producer.stop()

    async def _read(self, reader: LogReader, stop: asyncio.Event) -> None:
        stopping = asyncio.create_task(stop.wait())
        while not stop.is_set():
            reading = asyncio.create_task(reader.batch(timeout_seconds=1.0))
            await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                break
            try:
                for batch in reading.result().values():
                    self._take(batch)
            except LogUnavailable as error:
                logger.warning("The inbox waits for the log: %s", error)
                await asyncio.sleep(AGAIN_SECONDS)
        stopping.cancel()

    async def _drain(self, reader: LogReader) -> None:
        """Take no new work, finish what is in hand within the bound, and say so."""
        self._draining = True
        header = outside_header("RunnerDraining", self.runner_id, self._producer.identity, _now())
        await self._producer.publish(
            types.RunnerDraining(header=header, runner_id=self.runner_id, reason="told to stop")
        )
        for batch in (await reader.batch(timeout_seconds=0.2)).values():
            self._take(batch)  # What was on its way when the draining was told.
        if self._tasks:
            await asyncio.wait(set(self._tasks.values()), timeout=DRAIN_SECONDS)
        header = outside_header("RunnerLeft", self.runner_id, self._producer.identity, _now())
        await self._producer.publish(types.RunnerLeft(header=header, runner_id=self.runner_id, reason="told to stop"))

    # Attempts

    def _take(self, batch: Sequence[Any]) -> None:
        needle = self.runner_id.encode()
        for record in batch:
            if needle not in record.value:
                continue  # Another runner's: several share a partition. Not worth decoding.
            try:
                event = decode(record.value)
            except UndecodableRecord as error:
                logger.warning("Refused %s/%s/%s: %s", record.topic, record.partition, record.offset, error)
                continue
            if getattr(event, "runner_id", None) != self.runner_id:
                continue
            if isinstance(event, types.JobRouted):
                self._begin(event, LogPosition(topic=record.topic, partition=record.partition, offset=record.offset))
            elif isinstance(event, types.AttemptRevoked) and event.attempt_id in self.attempts:
                self.attempts[event.attempt_id].revoke(event.reason)
                self._tasks[event.attempt_id].cancel()

    def _begin(self, routed: types.JobRouted, position: LogPosition) -> None:
        attempt = Attempt(routed, position, self.runner, self._producer, self._publish, self._contents)
        handler = self.runner.handler(routed.job_type, routed.contract_major)
        if handler is None:
            text = f"Expected a job that this runner offers, but found {routed.job_type} v{routed.contract_major}."
            self._tell(attempt.failed(refusal("job_type_unknown", text, routed.attempt_id, field="job_type")))
            return
        self.attempts[routed.attempt_id] = attempt
        self._tell(attempt.started())

        async def work() -> None:
            try:
                self._tell(await attempt.run(handler, self._threads))
            finally:
                self.attempts.pop(routed.attempt_id, None)
                self._tasks.pop(routed.attempt_id, None)

        self._tasks[routed.attempt_id] = asyncio.create_task(work())

    def _tell(self, record: OutgoingRecord) -> None:
        """Send an observation with the others of this turn of the loop: one call, one future."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting.append(record)

    def _flush(self) -> None:
        records, self._waiting = self._waiting, []
        self._send(records)

    def _send(self, records: list[OutgoingRecord]) -> None:
        self._producer.send(records).add_done_callback(lambda done: self._answered(records, done))

    def _answered(self, records: list[OutgoingRecord], done: "asyncio.Future[Any]") -> None:
        if not done.cancelled() and isinstance(done.exception(), LogUnavailable):
            # The work is done: its observation waits for the log. Repeats are harmless, their event ids are the same.
            asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._send, records)

    def _publish(self, record: OutgoingRecord) -> "asyncio.Future[Any]":
        return self._producer.send([record])
