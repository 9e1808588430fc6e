"""Publishing what was decided: at once, again until it is acknowledged, and never awaited by whoever decides."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import redis

from controlplane.events.types import LogPosition
from controlplane.jobforge_agent.moments import elapsed
from controlplane.jobforge_agent.store import Store
from controlplane.log.connection import LogUnavailable
from controlplane.log.producer import LogProducer, OutgoingRecord

Entries = Mapping[str, Sequence[OutgoingRecord]]
"""What an instance decided, by the names of the entries in the outbox."""

AGAIN_AFTER_SECONDS: Final = 0.5
CLEAR_EVERY_SECONDS: Final = 0.02

logger = logging.getLogger(__name__)


class Outbox:
    """The published and not yet acknowledged decisions of one instance."""

    def __init__(self, producer: LogProducer, store: Store, instance: str) -> None:
        """Prepare an empty outbox."""
        self._producer = producer
        self._store = store
        self._instance = instance
        self._number = 0
        self._pending: dict[str, Sequence[OutgoingRecord]] = {}
        self._since: dict[str, float] = {}
        self._acknowledged: list[str] = []
        self._strange: set[str] = set()

    def next_name(self) -> str:
        """Return the name of the next entry: unique in this instance."""
        self._number += 1
        return f"{self._number:x}"

    @property
    def pending(self) -> set[str]:
        """Return the entries that are not acknowledged yet."""
        return set(self._pending)

    def age_seconds(self) -> float:
        """Return for how long the oldest entry waits for its acknowledgement."""
        oldest = next(iter(self._since.values()), None)
        return 0.0 if oldest is None else elapsed() - oldest

    def publish(self, name: str, records: Sequence[OutgoingRecord]) -> None:
        """Send an entry that is in the store (step 2); it is removed there once it is acknowledged (step 3)."""
        if not records:
            return
        self._pending[name] = records
        self._since[name] = elapsed()
        self._send(name)

    def _send(self, name: str) -> None:
        answer = self._producer.send(self._pending[name])
        answer.add_done_callback(lambda done: self._answered(name, done))

    def _answered(self, name: str, answer: "asyncio.Future[list[LogPosition]]") -> None:
        if answer.cancelled():
            return
        error = answer.exception()
        if error is None:
            self._pending.pop(name, None)
            self._since.pop(name, None)
            self._acknowledged.append(name)
        elif isinstance(error, LogUnavailable):
            logger.warning("A decision waits for the log: %s", error)
            asyncio.get_running_loop().call_later(AGAIN_AFTER_SECONDS, self._send, name)
        else:
            raise error

    async def clear(self) -> None:
        """Remove acknowledged entries from the store, for as long as the task runs."""
        while True:
            await asyncio.sleep(CLEAR_EVERY_SECONDS)
            entries, self._acknowledged = self._acknowledged, []
            try:
                await self._store.published(entries)
            except redis.RedisError:
                self._acknowledged = (
                    entries + self._acknowledged
                )  # They stay until Redis is back; repeats are harmless.

    async def catch_up(self) -> None:
        """Send what the store has of this instance and nobody sends: the answer to the commit was lost.

        An entry that was there at the look before, too, is no commit whose answer is still to come.
        """
        stored = (await self._store.unpublished()).get(self._instance, set())
        strange = stored - self._pending.keys() - set(self._acknowledged)
        if stuck := strange & self._strange:
            entries = await self._store.outbox(self._instance)
            for name in sorted(stuck & entries.keys()):
                self.publish(name, entries[name])
        self._strange = strange

    async def adopt(self, instance: str, publishable: Callable[[Entries], Awaitable[Entries | None]]) -> int | None:
        """Publish what another instance decided and cannot publish any more; returns how many entries there were, None if it has to wait."""
        entries = await self._store.outbox(instance)
        true = await publishable(entries)
        if true is None:
            return None
        await asyncio.gather(*(self._producer.send(records) for records in true.values()))
        await self._store.drop_outbox(instance, list(entries))
        return len(entries)
