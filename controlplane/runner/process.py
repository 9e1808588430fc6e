"""The runner process: registers, reads its inbox, runs attempts, reports, and goes in order."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

from prometheus_client import CollectorRegistry

from controlplane.contents import ContentStore
from controlplane.events.catalog import ROUTING, Service
from controlplane.events.codec import UndecodableRecord, decode
from controlplane.events.identity import partition_of, random_id
from controlplane.events.types import AttemptRevoked, JobRouted, LogPosition
from controlplane.log.connection import LogConnection, LogRefused, LogUnavailable
from controlplane.log.positions import Partition
from controlplane.log.producer import LogProducer
from controlplane.log.reader import LogReader
from controlplane.log.traces import traceparent_in
from controlplane.runner.attempts import Attempts
from controlplane.runner.definition import Runner
from controlplane.runner.metrics import Metrics
from controlplane.runner.outbox import Outbox
from controlplane.runner.presence import AGAIN_SECONDS, Presence
from controlplane.runner.processes import WorkerProcesses
from controlplane.runner.threads import HandlerThreads
from controlplane.telemetry.health import Check, Dependency, State

DRAIN_SECONDS: Final = 8.0
ON_THEIR_WAY_SECONDS: Final = 0.3
"""After the draining is told, so long leases may still arrive that were on their way; later ones are routed again."""
FAREWELL_SECONDS: Final = 5.0
READ_SECONDS: Final = 1.0
SILENT_AFTER_BEATS: Final = 2.5

logger = logging.getLogger(__name__)


class HandlersStuck(RuntimeError):
    """Expected handlers to stop when their time is over, but they hold all slots: the process ends to be started again."""


class RunnerProcess:
    """One process of a runner, unique from its start to its end. Made and run in the event loop."""

    def __init__(
        self, runner: Runner, connection: LogConnection, partitions: Mapping[str, int], contents: ContentStore, *,
        heartbeat_seconds: float, inline_limit_bytes: int, slots: int | None = None, target: str | None = None,
        registry: CollectorRegistry | None = None, drain_seconds: float = DRAIN_SECONDS,
    ) -> None:  # fmt: skip
        """Prepare a process with a new id; `target` is where worker processes find the runner."""
        self.runner = runner
        self.runner_id = f"{runner.name}@{random_id()[:12]}"
        self.slots = slots or runner.slots
        self._connection = connection
        self._heartbeat_seconds = heartbeat_seconds
        self._drain_seconds = drain_seconds
        self._inbox: Partition = (ROUTING.name, partition_of(self.runner_id.encode(), partitions[ROUTING.name]))
        self._producer = LogProducer(connection, service=Service.RUNNER, partitions=partitions, instance=self.runner_id)
        self._outbox = Outbox(self._producer)
        self._threads = HandlerThreads(self.slots, name="handler")
        in_processes = any(handler.executor == "process" for handler in runner.handlers.values())
        self._processes = WorkerProcesses(target) if target is not None and in_processes else None
        metrics = Metrics(registry or CollectorRegistry())
        metrics.slots.set(self.slots)
        self.attempts = Attempts(
            runner, slots=self.slots, sink=self._outbox, contents=contents, inline_limit_bytes=inline_limit_bytes,
            threads=self._threads, processes=self._processes, metrics=metrics,
        )  # fmt: skip
        self._presence = Presence(
            runner, connection, partitions, self.attempts.held, runner_id=self.runner_id, slots=self.slots,
            heartbeat_seconds=heartbeat_seconds,
        )  # fmt: skip
        self._draining = False

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish what is in hand.

        1. Find the end of the inbox and read from there. 2. Register: nothing that is routed here can be missed. 3. Work.
        4. Say that no new work is taken, and finish. 5. Say farewell. A crash before 5 is found by silence.

        Raises:
            HandlersStuck: handlers that do not stop hold all slots.
        """
        async with AsyncExitStack() as open_ones:
            open_ones.callback(self._close_handlers)
            if self._processes is not None:
                self._processes.warm_up()
            await self._patiently(self._producer.start)
            open_ones.push_async_callback(self._producer.stop)
            reader = LogReader(self._connection, client_id=f"controlplane-{self.runner_id}")
            await self._patiently(reader.start)
            open_ones.push_async_callback(reader.stop)
            ends = await reader.end_offsets([self._inbox])  # Step 1.
            await reader.assign(ends)
            open_ones.push_async_callback(self._presence.stop)
            await self._presence.register()  # Step 2.
            offers = ", ".join(handler.label for handler in self.runner.handlers.values())
            logger.info("Runner %s offers %s in %d slots.", self.runner_id, offers, self.slots)
            reading = asyncio.create_task(self._read(reader), name="inbox")
            try:
                await self._work(stop, reading)  # Step 3.
                await self._drain()  # Step 4.
            finally:
                reading.cancel()
                await asyncio.wait([reading])
            await self._leave()  # Step 5.
        if self.attempts.stuck.is_set():
            raise HandlersStuck(HandlersStuck.__doc__)

    def checks(self) -> dict[str, Check]:
        """Return what this process' health depends on."""

        async def log() -> Dependency:
            last = self._presence.last_beat_at
            if last is None:
                return Dependency(state=State.DOWN, detail="Not registered yet.")
            silence = time.monotonic() - last
            heard = silence < SILENT_AFTER_BEATS * self._heartbeat_seconds
            detail = f"last heartbeat {silence:.1f} s ago, {self._outbox.unacknowledged} observations on their way"
            return Dependency(state=State.OK if heard else State.DEGRADED, detail=detail)

        async def slots() -> Dependency:
            detail = f"{self.attempts.busy_slots} of {self.slots} in use"
            if self._draining:
                return Dependency(state=State.DEGRADED, detail=f"draining, {detail}")
            return Dependency(state=State.OK, detail=detail)

        return {"log": log, "slots": slots}

    # The steps.

    @staticmethod
    async def _patiently(start: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await start()
            except LogRefused:
                raise  # Waiting does not help; somebody has to give this runner the right.
            except LogUnavailable as error:
                logger.warning("Waiting for the log: %s", error)
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                return

    async def _read(self, reader: LogReader) -> None:
        while True:
            try:
                batches = await reader.batch(timeout_seconds=READ_SECONDS)
            except LogUnavailable as error:
                logger.warning("The inbox waits for the log: %s", error)
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            for records in batches.values():
                self._take(records)

    async def _work(self, stop: asyncio.Event, reading: "asyncio.Task[None]") -> None:
        """Return when told to stop or when handlers are stuck; raise what ended the inbox or the presence."""
        ends: list[asyncio.Future[Any]] = [
            asyncio.create_task(stop.wait()), asyncio.create_task(self.attempts.stuck.wait()),
            reading, asyncio.wrap_future(self._presence.ended),
        ]  # fmt: skip
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for one in ends[:2]:
            one.cancel()
        for one in ends[2:]:
            if one.done():
                one.result()

    async def _drain(self) -> None:
        self._draining = True
        reason = "handlers are stuck" if self.attempts.stuck.is_set() else "told to stop"
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._presence.drain(reason)
        except (LogUnavailable, TimeoutError) as error:
            logger.warning("The log did not hear that this runner is draining: %s", error)
        await asyncio.sleep(ON_THEIR_WAY_SECONDS)
        await self.attempts.finish(0 if self.attempts.stuck.is_set() else self._drain_seconds)

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._outbox.flush()
                await self._presence.leave("told to stop")
        except (LogUnavailable, TimeoutError) as error:
            logger.warning("The log did not hear the farewell of this runner: %s", error)
        logger.info("Runner %s left.", self.runner_id)

    def _close_handlers(self) -> None:
        self._threads.stop()
        if self._processes is not None:
            self._processes.close()

    # The inbox.

    def _take(self, records: Iterable[Any]) -> None:
        """Take what is meant for this runner from the inbox that it shares with others."""
        needle = self.runner_id.encode()
        for record in records:
            if record.value is None or needle not in record.value:
                continue  # Another runner's. Finding that out costs a hundredth of decoding it.
            try:
                event = decode(record.value)
            except UndecodableRecord as error:
                logger.warning("Cannot read %s/%s/%s: %s", record.topic, record.partition, record.offset, error)
                continue
            match event:
                case JobRouted(runner_id=self.runner_id):
                    position = LogPosition(topic=record.topic, partition=record.partition, offset=record.offset)
                    self.attempts.take(event, position, traceparent_in(record.headers))
                case AttemptRevoked(runner_id=self.runner_id):
                    self.attempts.revoke(event)
