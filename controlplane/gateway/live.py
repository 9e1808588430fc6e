"""The newest records of the whole log, read once in this process for all live streams, while there is any.

A stream knows the next offset of each of its partitions. It takes what it lacks from here while that is still kept, and reads
for itself what is older; so where it is on the log is at any moment exact, and resuming there repeats and loses nothing.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import Any, Final

import msgspec

from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.log.positions import Partition
from controlplane.log.reader import LogReader

KEPT_BYTES: Final = 32 * 1024 * 1024
RECORD_BYTES: Final = 500
"""What a record takes beside its key and value."""
AT_ONCE: Final = 500
AGAIN_SECONDS: Final = 1.0
READY_SECONDS: Final = 10.0

logger = logging.getLogger(__name__)


class LiveRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record as it came."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """Append time, milliseconds."""
    key: bytes
    value: bytes

    @property
    def position(self) -> str:
        """Return where it stands, as text."""
        return f"{self.topic}/{self.partition}/{self.offset}"


def live_records(records: Iterable[Any]) -> list[LiveRecord]:
    """Return aiokafka's records as ours."""
    return [
        LiveRecord(
            topic=one.topic, partition=one.partition, offset=one.offset, timestamp=one.timestamp, key=one.key or b"",
            value=one.value or b"",
        )
        for one in records
    ]  # fmt: skip


class Tail:
    """The newest records of every partition; what is kept is bounded in bytes, over all of them."""

    def __init__(self, connection: LogConnection, counts: Mapping[str, int], kept_bytes: int = KEPT_BYTES) -> None:
        """Read nothing yet."""
        self.connection = connection
        self.places: Final = [(topic, number) for topic, count in counts.items() for number in range(count)]
        self.next: dict[Partition, int] = {}
        """The offset after the newest record."""
        self._first: dict[Partition, int] = {}
        self._kept: dict[Partition, deque[LiveRecord]] = {}
        self._order: deque[Partition] = deque()
        self._bytes = 0
        self._kept_bytes = kept_bytes
        self._moved = asyncio.Condition()
        self.closing = False
        """Every stream has to end."""
        self._listeners = 0
        self._reading: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Keep the newest records while the block runs.

        Raises:
            LogUnavailable: the log does not answer.
        """
        self._listeners += 1
        try:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read(), name="tail")
            await self._ready()
            yield
        finally:
            self._listeners -= 1
            if not self._listeners:
                await self.stop()

    async def close(self) -> None:
        """Tell every stream to end."""
        self.closing = True
        async with self._moved:
            self._moved.notify_all()

    async def stop(self) -> None:
        """Read no longer, and keep nothing."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        if self._reading is None:  # Nobody began again meanwhile.
            self._forget()

    def _forget(self) -> None:
        self.next, self._first, self._kept = {}, {}, {}
        self._order.clear()
        self._bytes = 0

    async def _ready(self) -> None:
        try:
            async with asyncio.timeout(READY_SECONDS), self._moved:
                await self._moved.wait_for(lambda: bool(self.next))
        except TimeoutError as error:
            raise LogUnavailable(f"Expected the log to answer within {READY_SECONDS:g} s, but it did not.") from error

    async def _read(self) -> None:
        while True:
            try:
                async with LogReader(self.connection, client_id="controlplane-gateway-live") as reader:
                    starts = dict(self.next) or await reader.end_offsets(self.places)
                    await reader.assign(starts)
                    async with self._moved:
                        if not self.next:
                            self.next, self._first = dict(starts), dict(starts)
                        self._moved.notify_all()
                    while True:
                        await self._take(await reader.batch(timeout_seconds=1.0, max_records=5000))
            except LogUnavailable as error:
                logger.warning("Live streams wait for the log: %s", error)
                await asyncio.sleep(AGAIN_SECONDS)

    async def _take(self, batches: Mapping[Partition, Iterable[Any]]) -> None:
        if not batches:
            return
        for place, batch in batches.items():
            records = live_records(batch)
            kept = self._kept.setdefault(place, deque())
            kept.extend(records)
            self._order.extend([place] * len(records))
            self._bytes += sum(len(one.key) + len(one.value) + RECORD_BYTES for one in records)
            self.next[place] = records[-1].offset + 1
        while self._bytes > self._kept_bytes and self._order:
            place = self._order.popleft()
            oldest = self._kept[place].popleft()
            self._bytes -= len(oldest.key) + len(oldest.value) + RECORD_BYTES
            self._first[place] = oldest.offset + 1
        async with self._moved:
            self._moved.notify_all()

    def older(self, positions: Mapping[Partition, int]) -> dict[Partition, int]:
        """Return, of these positions, those of which records are no longer kept here."""
        return {place: offset for place, offset in positions.items() if offset < self._first[place]}

    def first(self, place: Partition) -> int:
        """Return the offset from which on records are kept."""
        return self._first[place]

    def after(self, positions: dict[Partition, int]) -> list[LiveRecord]:
        """Return kept records from these positions on, oldest first, not more than can be told at once; moves the positions behind them."""
        found: list[LiveRecord] = []
        for place, offset in positions.items():
            if len(found) >= AT_ONCE:
                break
            following = self.next[place]
            if offset >= following:
                continue
            newer: list[LiveRecord] = []
            for record in reversed(self._kept.get(place, ())):
                if record.offset < offset:
                    break
                newer.append(record)
            newer.reverse()
            taken = newer[:AT_ONCE]
            positions[place] = following if len(taken) == len(newer) else taken[-1].offset + 1
            found += taken
        found.sort(key=lambda one: one.timestamp)
        return found

    async def moved(self, positions: Mapping[Partition, int], within_seconds: float) -> bool:
        """Wait until there is more than these positions, or every stream has to end; False when there is nothing in time."""
        places: Collection[Partition] = positions.keys()
        try:
            async with asyncio.timeout(within_seconds), self._moved:
                await self._moved.wait_for(
                    lambda: self.closing or any(self.next[one] > positions[one] for one in places)
                )
        except TimeoutError:
            return False
        return True


async def read_older(
    tail: Tail, positions: dict[Partition, int], within_seconds: float
) -> AsyncIterator[list[LiveRecord]]:
    """Yield records from positions that the tail no longer keeps, until it keeps what follows; moves the positions behind them.

    Yields nothing in a list when nothing came for `within_seconds`.

    Raises:
        LogUnavailable: the log does not answer, or has no such offset.
    """
    async with LogReader(tail.connection, client_id="controlplane-gateway-stream") as reader:
        behind = tail.older(positions)
        await reader.assign(behind)
        while behind:
            batches = await reader.batch(timeout_seconds=within_seconds, max_records=AT_ONCE)
            found: list[LiveRecord] = []
            for place, batch in batches.items():
                records = live_records(batch)
                found += records
                positions[place] = records[-1].offset + 1
            found.sort(key=lambda one: one.timestamp)
            yield found
            still = {place: positions[place] for place in behind if positions[place] < tail.first(place)}
            if len(still) < len(behind) and still:
                await reader.assign(still)
            behind = still
