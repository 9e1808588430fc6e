"""What a runner process says of itself: that it is there, that it lives, that it goes.

It speaks from a thread with an event loop and a connection of its own, so that handlers cannot starve it.
"""

import asyncio
import concurrent.futures
import logging
import threading
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from controlplane.events.catalog import ROUTING, Service
from controlplane.events.header import Cause, caused_header, outside_header
from controlplane.events.identity import partition_of
from controlplane.events.types import (
    EventHeader,
    LogPosition,
    RunnerDraining,
    RunnerHeartbeat,
    RunnerLeft,
    RunnerRegistered,
)
from controlplane.log.connection import LogConnection, LogRefused, LogUnavailable
from controlplane.log.producer import LogProducer
from controlplane.runner.attempt import now_micros
from controlplane.runner.definition import Runner

AGAIN_SECONDS: Final = 0.5
REGISTER_EVERY_SECONDS: Final = 30.0
"""Registered again and again, so that whoever lost the registry finds every living runner near the end of its topic."""

logger = logging.getLogger(__name__)


class Presence:
    """The presence of one runner process on the log, from its registration to its farewell."""

    def __init__(
        self, runner: Runner, connection: LogConnection, partitions: Mapping[str, int], held: Mapping[str, object], *,
        runner_id: str, slots: int, heartbeat_seconds: float,
    ) -> None:  # fmt: skip
        """Prepare the presence of one process; heartbeats list the keys of `held`."""
        self.ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        """Done when the thread is over; before the farewell that is a fault."""
        self.last_beat_at: float | None = None
        """When a heartbeat was acknowledged last, on the monotonic clock."""
        self._runner = runner
        self._runner_id = runner_id
        self._slots = slots
        self._inbox_partition = partition_of(runner_id.encode(), partitions[ROUTING.name])
        self._heartbeat_seconds = heartbeat_seconds
        self._held = held
        self._producer = LogProducer(connection, service=Service.RUNNER, partitions=partitions, instance=runner_id)
        self._registered: concurrent.futures.Future[LogPosition] = concurrent.futures.Future()
        self._draining = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self._counts = {"RunnerRegistered": 0, "RunnerHeartbeat": 0, "RunnerDraining": 0, "RunnerLeft": 0}
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    async def register(self) -> LogPosition:
        """Register, however long the log takes, and begin to beat; returns where the registration stands."""
        self._thread.start()
        return await asyncio.wrap_future(self._registered)

    async def drain(self, reason: str) -> None:
        """Say that no new work is taken.

        Raises:
            LogUnavailable: the log did not take it.
        """
        self._draining = True
        await self._within(self._tell_draining(reason))

    async def leave(self, reason: str) -> None:
        """Say farewell and end.

        Raises:
            LogUnavailable: the log did not take it; the process is then found missing by its silence.
        """
        try:
            await self._within(self._tell_left(reason))
        finally:
            await self.stop()

    async def stop(self) -> None:
        """End without a word."""
        if self._loop is not None and self._over is not None and not self.ended.done():
            try:
                self._loop.call_soon_threadsafe(self._over.set)
            except RuntimeError:
                logger.debug("The presence ended by itself between the look and the call.")
            await asyncio.wrap_future(self.ended)

    async def _within(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None, "Expected to be registered first."
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    # In the thread.

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except asyncio.CancelledError:
            self._registered.cancel()
        except BaseException as error:
            self.ended.set_exception(error)
            if not self._registered.done():
                self._registered.set_exception(error)
            raise
        self.ended.set_result(None)

    async def _live(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        try:
            self._registered.set_result(await self._register_patiently())
            registered_at = time.monotonic()
            while not self._over.is_set():
                if time.monotonic() - registered_at > REGISTER_EVERY_SECONDS:
                    await self._tell_patiently(self._register())
                    registered_at = time.monotonic()
                await self._tell_patiently(self._beat())
                try:
                    async with asyncio.timeout(self._heartbeat_seconds):
                        await self._over.wait()
                except TimeoutError:
                    continue
        finally:
            await self._producer.stop()

    async def _register_patiently(self) -> LogPosition:
        assert self._over is not None, "Expected to run in the thread's loop."
        while not self._over.is_set():
            try:
                await self._producer.start()
                return await self._register()
            except LogRefused:
                raise  # Waiting does not help; somebody has to give this runner the right.
            except LogUnavailable as error:
                logger.warning("Waiting for the log to register: %s", error)
                await asyncio.sleep(AGAIN_SECONDS)
        raise asyncio.CancelledError("The process ends before it could register.")

    @staticmethod
    async def _tell_patiently(telling: Coroutine[Any, Any, object]) -> None:
        """Tell it once; what the log does not take is overtaken by the next."""
        try:
            await telling
        except LogUnavailable as error:
            logger.warning("The log does not hear this runner: %s", error)

    async def _register(self) -> LogPosition:
        runner = self._runner
        registered = RunnerRegistered(
            header=self._header("RunnerRegistered"), runner_id=self._runner_id, name=runner.name, pool=runner.pool,
            slots=self._slots, labels=runner.labels, inbox_partition=self._inbox_partition,
            capabilities=tuple(handler.contract() for handler in runner.handlers.values()),
            heartbeat_seconds=self._heartbeat_seconds,
        )  # fmt: skip
        return await self._producer.publish(registered)

    async def _beat(self) -> None:
        sequence = self._counts["RunnerHeartbeat"]
        heartbeat = RunnerHeartbeat(
            header=self._header("RunnerHeartbeat"), runner_id=self._runner_id, sequence=sequence,
            attempt_ids=tuple(self._held), draining=self._draining,
        )  # fmt: skip
        await self._producer.publish(heartbeat)
        self.last_beat_at = time.monotonic()

    async def _tell_draining(self, reason: str) -> None:
        header = self._header("RunnerDraining")
        await self._producer.publish(RunnerDraining(header=header, runner_id=self._runner_id, reason=reason))

    async def _tell_left(self, reason: str) -> None:
        header = self._header("RunnerLeft")
        if self._over is not None:
            self._over.set()  # No heartbeat after the farewell.
        await self._producer.publish(RunnerLeft(header=header, runner_id=self._runner_id, reason=reason))

    def _header(self, event_name: str) -> EventHeader:
        """Return the next header of a kind: all follow from the first registration, which comes from outside."""
        ordinal = self._counts[event_name]
        self._counts[event_name] = ordinal + 1
        runner_id, identity = self._runner_id, self._producer.identity
        if self._registered.done():
            cause = Cause(position=self._registered.result(), correlation_id=runner_id)
            return caused_header(cause, event_name, ordinal, identity, now_micros())
        return outside_header(event_name, f"{runner_id}/{ordinal}", identity, now_micros(), correlation_id=runner_id)
