"""The live projection: reads every topic from its own positions, writes batch by batch, says how far it is."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import duckdb

from controlplane.api.models import Reflects
from controlplane.api.problems import refused
from controlplane.api.replicas import Standing
from controlplane.events.catalog import JOBS, PROGRESS, RUNNERS, SUBMISSIONS, TOPICS, Service
from controlplane.events.errors import envelope
from controlplane.events.header import EVERY_TENANT, Cause, caused_header
from controlplane.events.identity import Instant, name_based_id
from controlplane.events.types import LogPosition, RecordRefused
from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.log.positions import Partition, PositionInvalid, parse_position
from controlplane.log.producer import LogProducer
from controlplane.log.reader import Batches, LogReader
from controlplane.truthcore_projector.background import giving_way
from controlplane.truthcore_projector.decode import Decoder, Refused
from controlplane.truthcore_projector.shards import WHOLE_LOG, Shard
from controlplane.truthcore_projector.store import Store

BATCH_RECORDS: Final = 20_000
FRESH_SECONDS: Final = 0.02
GATHER_SECONDS: Final = 0.25
"""A transaction costs milliseconds: so long records gather, then they are written together; the shorter time while somebody waits."""
ENDS_EVERY_SECONDS: Final = 0.5
AGAIN_SECONDS: Final = 1.0
REFUSED_VALUE_BYTES: Final = 64 * 1024
LETTERS_FOR: Final = frozenset(TOPICS) - {SUBMISSIONS.name, PROGRESS.name, RUNNERS.name}
"""Topics whose garbage only TruthCore refuses; JobForge refuses that of its own inputs."""

logger = logging.getLogger(__name__)


def letter(refused: Refused, producer: LogProducer) -> RecordRefused:
    """Return the dead letter of a record that TruthCore could not use; the same record always gives the same letter."""
    record = refused.record
    place = LogPosition(topic=record.topic, partition=record.partition, offset=record.offset)
    text = f"{place.topic}/{place.partition}/{place.offset}"
    value = record.value or b""
    return RecordRefused(
        header=caused_header(
            Cause(position=place, correlation_id=text, tenant=EVERY_TENANT), "RecordRefused/truthcore", 0, producer.identity, Instant(record.timestamp * 1000)
        ),
        position=place, key=record.key, value=value[:REFUSED_VALUE_BYTES], value_size_bytes=len(value), consumer="truthcore",
        error=envelope(refused.code, refused.reason, error_id=name_based_id(f"{text}/refused/truthcore"), field="value", found=value[:50]),
    )  # fmt: skip


class Projector:
    """Keeps the store up to date while `run` runs."""

    def __init__(
        self, connection: LogConnection, store: Store, counts: Mapping[str, int], *, shard: Shard = WHOLE_LOG, name: str = "truthcore",
    ) -> None:  # fmt: skip
        """Prepare a projector that reads its shard on where the store is."""
        self.shard = shard
        self.name = name
        self._counts = dict(counts)
        self._connection = connection
        self._store = store
        self._decoder = Decoder()
        self._folding = giving_way("fold")
        self._producer = LogProducer(connection, service=Service.TRUTHCORE, partitions=counts)
        places = [(topic, number) for topic, count in counts.items() for number in range(count)]
        self._partitions = [place for place in places if shard.reads(place)]
        self.positions: dict[Partition, int] = dict.fromkeys(self._partitions, 0) | store.positions()
        self.ends: dict[Partition, int] = {}
        self._folded_records = 0
        self._last_log_time_milliseconds = 0
        self._moved = asyncio.Condition()
        self.version = 0
        """Counts how often the projection moved."""
        self._waiting = 0
        self._wanted = asyncio.Event()
        """Set while somebody waits for a record that is not reflected yet."""
        self.reading = False
        self.on_batch: Callable[[int, float], None] = lambda records, seconds: None
        """Told of each batch: records, and seconds to project them."""
        self.on_letter: Callable[[str], None] = lambda code: None
        """Told of each record that is put aside: why."""

    def standing(self, positions: Mapping[Partition, int] | None = None) -> Standing:
        """Return how this process stands; `reflects` is what an answer made of these positions knows, by default now."""
        reflects = self.reflects(positions)
        return Standing(
            name=self.name,
            shard=self.shard.number,
            shards=self.shard.of,
            folded_records=self._folded_records,
            reading=self.reading,
            reflects=reflects,
        )

    def reflects(self, positions: Mapping[Partition, int] | None = None) -> Reflects:
        """Return what an answer made of these positions knows, and how far behind the log that is."""
        positions = dict.fromkeys(self._partitions, 0) | dict(self.positions if positions is None else positions)
        by_topic: dict[str, dict[int, int]] = {}
        for (topic, partition), offset in sorted(positions.items()):
            by_topic.setdefault(topic, {})[partition] = offset
        lag = sum(max(0, end - positions.get(one, 0)) for one, end in self.ends.items())
        seconds = max(0.0, time.time() - self._last_log_time_milliseconds / 1000) if lag else 0.0
        return Reflects(positions=by_topic, lag_records=lag, lag_seconds=round(seconds, 3), answered_by=[self.name])

    def close(self) -> None:
        """End the thread that folds, and remove what decoding keeps on the side."""
        self._folding.shutdown()
        self._decoder.close()

    def count(self, topic: str) -> int:
        """Return how many partitions a topic has."""
        return self._counts[topic]

    def wanted(self, texts: Sequence[str]) -> dict[Partition, int]:
        """Return the positions that a question wants reflected.

        Raises:
            Refused: one is no position of this log.
        """
        wanted: dict[Partition, int] = {}
        for text in texts:
            try:
                position = parse_position(text)
            except PositionInvalid as error:
                raise refused("request_invalid", str(error), field="min_position", found=text) from error
            if position.partition >= self._counts.get(position.topic, 0):
                known = f"Expected a position in a partition of the log, but there is no such partition: {text[:200]}."
                raise refused("not_found", known, field="min_position", found=text)
            place = (position.topic, position.partition)
            wanted[place] = max(wanted.get(place, 0), position.offset)
        return wanted

    async def wait_for(self, texts: Sequence[str], wait_seconds: float) -> None:
        """Wait until the projection reflects what a question wants of this shard.

        Raises:
            Refused: one is no position of this log, or it is not reached in time.
        """
        mine = {place: offset for place, offset in self.wanted(texts).items() if self.shard.reads(place)}
        if mine and not await self.reached(mine, wait_seconds):
            text = (
                f"Expected the projection to reach {', '.join(texts)[:300]} within {wait_seconds:g} s, but it did not."
            )
            raise refused("projection_behind", text, field="min_position")

    async def reached(self, wanted: Mapping[Partition, int], timeout_seconds: float) -> bool:
        """Wait until the projection reflects these records; False when it did not in time."""

        def there() -> bool:
            return all(self.positions.get(one, 0) > offset for one, offset in wanted.items())

        self._waiting += 1
        self._wanted.set()
        try:
            async with asyncio.timeout(timeout_seconds), self._moved:
                await self._moved.wait_for(there)
        except TimeoutError:
            return there()
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._wanted.clear()
        return True

    async def moved(self, since: int, within_seconds: float) -> bool:
        """Wait until the projection reflects more than it did at a `version`; False when it does not in time."""
        self._waiting += 1
        self._wanted.set()
        try:
            async with asyncio.timeout(within_seconds), self._moved:
                await self._moved.wait_for(lambda: self.version > since)
        except TimeoutError:
            return self.version > since
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._wanted.clear()
        return True

    async def run(self) -> None:
        """Project until cancelled; a blip of the log is waited out."""
        while True:
            try:
                await self._producer.start()
                await self._read_on()
            except (LogUnavailable, duckdb.OutOfMemoryException) as error:
                # A large query shares the database's memory; what it took comes back when it ends.
                logger.warning("The projection waits: %s", error)
                await asyncio.sleep(AGAIN_SECONDS)
            finally:
                self.reading = False
                await self._producer.stop()

    async def _read_on(self) -> None:
        async with (
            LogReader(self._connection, client_id="controlplane-truthcore") as reader,
            LogReader(self._connection, client_id="controlplane-truthcore-ends") as watcher,
        ):
            watching = asyncio.create_task(self._watch_ends(watcher))
            try:
                await reader.assign(dict(self.positions))
                self.reading = True
                while True:
                    await self._take(await reader.batch(timeout_seconds=1.0, max_records=BATCH_RECORDS))
                    if watching.done():
                        watching.result()
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    async def _take(self, batches: Batches) -> None:
        if not batches:
            return
        records = [record for batch in batches.values() for record in batch]
        following = {one: batch[-1].offset + 1 for one, batch in batches.items()}
        began = time.perf_counter()
        # Step 1. A crash after the letters: the batch comes again, and they get the same ids.
        mine = [one for one in records if self.shard.keeps(one.topic, one.key, self._counts[JOBS.name])]
        loop = asyncio.get_running_loop()
        decoded = await loop.run_in_executor(self._folding, self._decoder.decode, mine)
        await self._send_letters(decoded.refused)
        # Step 2. A crash after the rows: reading goes on behind them.
        await loop.run_in_executor(self._folding, self._store.write, decoded, following)
        self._folded_records += len(records)
        self.on_batch(len(records), time.perf_counter() - began)
        self._last_log_time_milliseconds = max(record.timestamp for record in records)
        async with self._moved:
            self.positions.update(following)
            self.version += 1
            self._moved.notify_all()
        if len(records) < BATCH_RECORDS:
            await self._gather()

    async def _gather(self) -> None:
        """Let records gather, not for long while somebody waits for one of them."""
        await asyncio.sleep(FRESH_SECONDS)
        try:
            async with asyncio.timeout(GATHER_SECONDS - FRESH_SECONDS):
                await self._wanted.wait()
        except TimeoutError:
            return

    async def _send_letters(self, refusals: Sequence[Refused]) -> None:
        for one in refusals:
            record = one.record
            logger.warning("Refused %s/%s/%s: %s", record.topic, record.partition, record.offset, one.reason)
        letters = [letter(one, self._producer) for one in refusals if one.record.topic in LETTERS_FOR]
        await self._producer.send([self._producer.record(one) for one in letters])
        for put_aside in letters:
            self.on_letter(put_aside.error.code)

    async def _watch_ends(self, reader: LogReader) -> None:
        while True:
            self.ends = await reader.end_offsets(self._partitions)
            await asyncio.sleep(ENDS_EVERY_SECONDS)
