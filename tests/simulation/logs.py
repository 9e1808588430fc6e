"""The log in memory: partitions with append times, and the surfaces of it that JobForge uses."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Self

import msgspec

from controlplane.events.catalog import JOBS, ROUTING, TOPICS, Service
from controlplane.events.types import LogPosition
from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.log.positions import Partition
from controlplane.log.producer import LogProducer, OutgoingRecord
from tests.simulation.world import BEGIN, Bell, Process, World

SKEW_SECONDS: Final = 1.0
"""The clocks of two brokers differ by so much, at most."""
READ_AT_ONCE: Final = 50
AGAIN_SECONDS: Final = 0.5


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A record as a reader gets it, and its place in the order of all appends."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    order: int = 0
    seconds: float = 0.0
    """Virtual time of the append."""


class SimulatedLog(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was appended."""

    world: World
    counts: dict[str, int]
    partitions: dict[Partition, list[Record]] = {}
    skews: dict[Partition, float] = {}
    books: dict[str, dict[Partition, int]] = {}
    appended: list[Record] = []
    grew: Bell = msgspec.field(default_factory=Bell)
    """Rings with every append that instances read."""
    routed: Bell = msgspec.field(default_factory=Bell)
    """Rings with every append that runners read."""

    @classmethod
    def empty(cls, world: World, jobs: int, routing: int, other: int) -> "SimulatedLog":
        """Return a log without records; every partition's broker has a clock of its own."""
        sizes = {"jobs": jobs, "routing": routing, "other": other}
        counts = {name: sizes[topic.partitions_like] for name, topic in TOPICS.items()}
        places = [(name, number) for name, count in counts.items() for number in range(count)]
        skews = {place: world.random.uniform(0, SKEW_SECONDS) for place in places}
        return cls(world=world, counts=counts, partitions={place: [] for place in places}, skews=skews)

    def append(self, outgoing: OutgoingRecord) -> LogPosition:
        """Append a record; returns its position."""
        place = (outgoing.topic, outgoing.partition)
        records = self.partitions[place]
        milliseconds = BEGIN // 1000 + int((self.world.seconds + self.skews[place]) * 1000)
        record = Record(
            topic=place[0], partition=place[1], offset=len(records), timestamp=milliseconds, key=outgoing.key,
            value=outgoing.value, headers=outgoing.headers, order=len(self.appended), seconds=self.world.seconds,
        )  # fmt: skip
        records.append(record)
        self.appended.append(record)
        if outgoing.topic == ROUTING.name:
            self.routed.ring()
        elif outgoing.topic != JOBS.name:
            self.grew.ring()
        return LogPosition(topic=place[0], partition=place[1], offset=record.offset)


class Link(LogConnection, frozen=True, kw_only=True):
    """A process's connection to the log in memory: handed to the agent, whose readers and books find the log here."""

    log: SimulatedLog
    process: Process


class _Call(msgspec.Struct, kw_only=True):
    """The records of one `send` and what became of them."""

    records: Sequence[OutgoingRecord]
    answer: "asyncio.Future[list[LogPosition]]"
    positions: list[LogPosition | None]
    missing: int


class SimulatedProducer(LogProducer):
    """The shipped producer's records and partitions, appending to the log in memory: in the order of the calls, later."""

    def __init__(self, link: Link, service: Service) -> None:
        """Belong to a process."""
        super().__init__(link, service=service, partitions=link.log.counts, instance=link.process.name)
        self._log = link.log
        self._process = link.process
        self._lane_free: dict[Partition, float] = {}
        self._pending: list[tuple[asyncio.TimerHandle, Partition]] = []
        self._calls: list[_Call] = []

    async def start(self) -> None:
        """Connect."""

    async def stop(self) -> None:
        """Disconnect."""

    @property
    def unacknowledged(self) -> int:
        """Return how many calls of `send` have no answer yet."""
        return len(self._calls)

    def send(self, records: Sequence[OutgoingRecord]) -> "asyncio.Future[list[LogPosition]]":
        """Append records after a while, and answer some time after that."""
        world = self._process.world
        answer: asyncio.Future[list[LogPosition]] = world.loop.create_future()
        if not records:
            answer.set_result([])
            return answer
        if not self._process.alive:
            return answer
        call = _Call(records=records, answer=answer, positions=[None] * len(records), missing=len(records))
        self._calls.append(call)
        for index, record in enumerate(records):
            lane = (record.topic, record.partition)
            arrives = max(world.seconds, world.log_away_until) + world.random.uniform(0.0005, 0.02)
            at = max(self._lane_free.get(lane, 0.0), arrives)
            self._lane_free[lane] = at
            handle = world.loop.call_at(at, self._append, call, index)
            self._pending.append((handle, lane))
        if world.happens(world.faults.log_gives_up):
            world.loop.call_later(world.random.uniform(0, 0.03), self.give_up)
        return answer

    def _append(self, call: _Call, index: int) -> None:
        world = self._process.world
        self._pending = [one for one in self._pending if one[0].when() > world.seconds]
        call.positions[index] = self._log.append(call.records[index])
        call.missing -= 1
        if call.missing == 0:
            world.loop.call_later(world.random.uniform(0.0005, 0.01), self._acknowledge, call)

    def _acknowledge(self, call: _Call) -> None:
        if self._process.frozen:
            self._process.world.loop.call_later(0.05, self._acknowledge, call)
        elif call in self._calls and self._process.alive:
            self._calls.remove(call)
            if not call.answer.done():  # Whoever waited may have been cancelled.
                call.answer.set_result([one for one in call.positions if one is not None])

    def _drop_some(self) -> None:
        """Lose the end of every lane, from somewhere on: what was on the wire arrives, what was not does not."""
        cut: set[Partition] = set()
        for handle, lane in self._pending:
            if lane in cut or self._process.world.happens(0.5):
                cut.add(lane)
                handle.cancel()
        self._pending.clear()

    def give_up(self) -> None:
        """End the session: everything unanswered fails, whether or not it is on the log."""
        calls, self._calls = self._calls, []
        if not calls or not self._process.alive:
            self._calls = calls
            return
        self._drop_some()
        self._process.world.note(f"{self._process.name} loses its producer session with {len(calls)} calls unanswered")
        for call in calls:
            if call.answer.done():
                continue
            call.answer.set_exception(LogUnavailable("Expected an acknowledgement, but the session ended."))
            call.answer.exception()

    async def deliver(self, record: OutgoingRecord) -> LogPosition:
        """Send a record again and again until it is acknowledged: it may be on the log more than once."""
        while True:
            await self._process.step()
            try:
                return (await self.send([record]))[0]
            except LogUnavailable:
                await asyncio.sleep(AGAIN_SECONDS)

    def crash(self) -> None:
        """Die with the process: some of what was sent still arrives, nobody hears of it."""
        self._drop_some()
        self._calls.clear()


class SimulatedReader:
    """Reads the log in memory with the surface of `LogReader`; each call is a step of its process."""

    def __init__(self, link: Link, *, client_id: str, wait_milliseconds: int = 500) -> None:
        """Prepare a reader; it answers at once whatever it may wait."""
        self.client_id = client_id
        self._log = link.log
        self._process = link.process
        self._at: dict[Partition, int] = {}

    async def __aenter__(self) -> Self:
        """Connect."""
        await self._process.step()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""

    async def assign(self, positions: Mapping[Partition, Any]) -> None:
        """Read these partitions from here on."""
        ends = {one: len(self._log.partitions[one]) for one in positions}
        named = {"earliest": dict.fromkeys(positions, 0), "latest": ends}
        self._at = {one: named[start][one] if isinstance(start, str) else start for one, start in positions.items()}

    async def beginning_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Return the first offsets."""
        await self._process.step()
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Return the next offsets."""
        await self._process.step()
        return {one: len(self._log.partitions[one]) for one in partitions}

    async def offsets_at(self, moments_milliseconds: Mapping[Partition, int]) -> dict[Partition, int]:
        """Return the first offset at or after each moment; the end where there is none."""
        await self._process.step()
        found = {}
        for one, moment in moments_milliseconds.items():
            records = self._log.partitions[one]
            found[one] = next((record.offset for record in records if record.timestamp >= moment), len(records))
        return found

    async def position(self, partition: Partition) -> int:
        """Return the offset of the next record."""
        return self._at[partition]

    async def batch(
        self, *, timeout_seconds: float, max_records: int | None = None
    ) -> dict[Partition, Sequence[Record]]:
        """Return some of what is there."""
        await self._process.step()
        found: dict[Partition, Sequence[Record]] = {}
        left = max_records or READ_AT_ONCE
        for one, offset in self._at.items():
            if records := self._log.partitions[one][offset : offset + left]:
                found[one] = records
                left -= len(records)
                self._at[one] = offset + len(records)
            if left <= 0:
                break
        if not found:
            await asyncio.sleep(timeout_seconds)
        return found


class SimulatedOffsetBook:
    """Keeps offsets with the surface of `OffsetBook`."""

    def __init__(self, link: Link, group: str) -> None:
        """Prepare the book of one group."""
        self._book = link.log.books.setdefault(group, {})
        self._process = link.process

    async def __aenter__(self) -> Self:
        """Connect."""
        await self._process.step()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""

    async def read(self, partitions: Iterable[Partition]) -> dict[Partition, int | None]:
        """Return the offset written for each partition."""
        await self._process.step()
        return {one: self._book.get(one) for one in partitions}

    async def write(self, offsets: Mapping[Partition, int]) -> None:
        """Write the offsets."""
        await self._process.step()
        self._book.update(offsets)
