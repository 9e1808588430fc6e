"""The live projection: reads every topic from its own positions, writes batch by batch, says how far it is."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Final

import duckdb

from controlplane.api.models import Reflects
from controlplane.events.catalog import PROGRESS, RUNNERS, SUBMISSIONS, TOPICS, Service
from controlplane.events.errors import envelope
from controlplane.events.header import Cause, caused_header
from controlplane.events.identity import Instant, name_based_id
from controlplane.events.types import LogPosition, RecordRefused
from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.log.positions import Partition
from controlplane.log.producer import LogProducer
from controlplane.log.reader import Batches, LogReader
from controlplane.truthcore_projector.decode import Decoder, Refused
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
            Cause(position=place, correlation_id=text), "RecordRefused/truthcore", 0, producer.identity, Instant(record.timestamp * 1000)
        ),
        position=place, key=record.key, value=value[:REFUSED_VALUE_BYTES], value_size_bytes=len(value), consumer="truthcore",
        error=envelope(refused.code, refused.reason, error_id=name_based_id(f"{text}/refused/truthcore"), field="value", found=value[:50]),
    )  # fmt: skip


class Projector:
    """Keeps the store up to date while `run` runs."""

    def __init__(self, connection: LogConnection, store: Store, counts: Mapping[str, int]) -> None:
        """Prepare a projector that reads on where the store is."""
        self._connection = connection
        self._store = store
        self._decoder = Decoder()
        self._producer = LogProducer(connection, service=Service.TRUTHCORE, partitions=counts)
        self._partitions = [(topic, number) for topic, count in counts.items() for number in range(count)]
        self.positions: dict[Partition, int] = dict.fromkeys(self._partitions, 0) | store.positions()
        self.ends: dict[Partition, int] = {}
        self._last_log_time_milliseconds = 0
        self._moved = asyncio.Condition()
        self._waiting = 0
        self._wanted = asyncio.Event()
        """Set while somebody waits for a record that is not reflected yet."""
        self.reading = False

    def reflects(self, positions: Mapping[Partition, int] | None = None) -> Reflects:
        """Return what an answer made now knows, and how far behind the log that is."""
        positions = dict.fromkeys(self._partitions, 0) | dict(self.positions if positions is None else positions)
        by_topic: dict[str, dict[int, int]] = {}
        for (topic, partition), offset in sorted(positions.items()):
            by_topic.setdefault(topic, {})[partition] = offset
        lag = sum(max(0, end - positions.get(one, 0)) for one, end in self.ends.items())
        seconds = max(0.0, time.time() - self._last_log_time_milliseconds / 1000) if lag else 0.0
        return Reflects(positions=by_topic, lag_records=lag, lag_seconds=round(seconds, 3))

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

    async def run(self) -> None:
        """Project until cancelled; a blip of the log is waited out."""
        while True:
            reader = LogReader(self._connection, client_id="controlplane-truthcore")
            watcher = LogReader(self._connection, client_id="controlplane-truthcore-ends")
            watching: asyncio.Task[None] | None = None
            try:
                await self._producer.start()
                await reader.start()
                await watcher.start()
                watching = asyncio.create_task(self._watch_ends(watcher))
                await reader.assign(dict(self.positions))
                self.reading = True
                while True:
                    await self._take(await reader.batch(timeout_seconds=1.0, max_records=BATCH_RECORDS))
                    if watching.done():
                        watching.result()
            except (LogUnavailable, duckdb.OutOfMemoryException) as error:
                # A large query shares the database's memory; what it took comes back when it ends.
                logger.warning("The projection waits: %s", error)
                await asyncio.sleep(AGAIN_SECONDS)
            finally:
                self.reading = False
                if watching is not None:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
                await reader.stop()
                await watcher.stop()
                await self._producer.stop()

    async def _take(self, batches: Batches) -> None:
        if not batches:
            return
        records = [record for batch in batches.values() for record in batch]
        following = {one: batch[-1].offset + 1 for one, batch in batches.items()}
        # Step 1. A crash after the letters: the batch comes again, and they get the same ids.
        decoded = await asyncio.to_thread(self._decoder.decode, records)
        await self._send_letters(decoded.refused)
        # Step 2. A crash after the rows: reading goes on behind them.
        await asyncio.to_thread(self._store.write, decoded, following)
        self._last_log_time_milliseconds = max(record.timestamp for record in records)
        async with self._moved:
            self.positions.update(following)
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
        for refused in refusals:
            record = refused.record
            logger.warning("Refused %s/%s/%s: %s", record.topic, record.partition, record.offset, refused.reason)
        letters = [letter(one, self._producer) for one in refusals if one.record.topic in LETTERS_FOR]
        await self._producer.send([self._producer.record(one) for one in letters])

    async def _watch_ends(self, reader: LogReader) -> None:
        while True:
            self.ends = await reader.end_offsets(self._partitions)
            await asyncio.sleep(ENDS_EVERY_SECONDS)
