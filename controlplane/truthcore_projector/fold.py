"""Folding a range of the log into a database as fast as it goes: reading, decoding and writing at once, in bounded memory.

DataFusion, Arrow, NumPy and DuckDB let go of the interpreter while they work, so threads are enough. What waits between two stages is bounded in
bytes; memory does not grow with the log.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import msgspec

from controlplane.log.block_reader import BlockReader
from controlplane.log.blocks import RecordBlock
from controlplane.log.connection import LogConnection
from controlplane.log.positions import Partition
from controlplane.truthcore_projector.decode import Decoded, Decoder

CHUNK_RECORDS: Final = 65_000
"""What is decoded at once: a vectorised step costs nothing beside its records, and memory stays small."""
CHUNK_BYTES: Final = 48 * 1024 * 1024
TRANSACTION_RECORDS: Final = 1_000_000
"""Rows that do not fill a row group (122,880) when a transaction ends go through the write-ahead log and are written twice:
transactions of one row group cost nearly twice the work of this. A crash costs the seconds since the last one."""
DECODERS: Final = 2

Progress = Callable[[int, int, float], None]
"""Called with (records done, records in all, seconds so far)."""


class Projection(Protocol):
    """What a log is folded into: rows and the positions after them, in transactions that hold or do not."""

    def positions(self) -> dict[Partition, int]:
        """Return the next offset of each partition that is committed."""

    def begin(self) -> None:
        """Begin a transaction."""

    def add(self, decoded: Decoded, positions: Mapping[Partition, int], /) -> None:
        """Take the rows of a batch and the positions after it."""

    def commit(self) -> None:
        """Make what was added last."""

    def rollback(self) -> None:
        """Forget what was added."""


class _Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """What is decoded at once, and the positions after it."""

    blocks: list[RecordBlock]
    following: dict[Partition, int]
    records: int


_Waiting = asyncio.Queue[tuple[_Chunk, asyncio.Future[Decoded]] | None]


async def fold(
    connection: LogConnection, store: Projection, until: Mapping[Partition, int], progress: Progress | None = None
) -> int:
    """Fold the log from the store's own positions up to these; returns how many records that were.

    Each transaction holds rows and positions: after a crash, the same call goes on where the last one committed.

    Raises:
        LogUnavailable: the log does not give the range.
    """
    positions = store.positions()
    total = sum(max(0, end - positions.get(one, 0)) for one, end in until.items())
    async with BlockReader(connection, client_id="controlplane-fold") as reader:
        return await fold_blocks(reader.blocks(positions, until), store, total, progress)


async def fold_blocks(
    blocks: AsyncIterator[RecordBlock], store: Projection, total: int, progress: Progress | None = None
) -> int:
    """Fold blocks of records, wherever they come from; returns how many records that were."""
    waiting: _Waiting = asyncio.Queue(1)
    decoders = [Decoder() for _ in range(DECODERS)]
    writer = _Writer(store, waiting, total, progress)

    async def read(pool: ThreadPoolExecutor) -> None:
        await _decoded(_chunks(blocks), decoders, pool, waiting)

    with ThreadPoolExecutor(DECODERS, "decode") as pool:
        reading, writing = asyncio.create_task(read(pool)), asyncio.create_task(writer.run())
        try:
            await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in (reading, writing):
                task.cancel()
            outcomes = await asyncio.gather(reading, writing, return_exceptions=True)
            pool.shutdown(cancel_futures=True)
            for decoder in decoders:
                decoder.close()
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return writing.result()


async def _decoded(
    chunks: AsyncIterator[_Chunk], decoders: Sequence[Decoder], pool: ThreadPoolExecutor, waiting: _Waiting
) -> None:
    """Put the chunks into the queue in their order while they are decoded, None behind the last."""
    last: dict[int, asyncio.Future[Decoded]] = {}
    number = 0
    async for chunk in chunks:
        mine = number % len(decoders)
        if mine in last:  # A decoder works on one chunk at a time.
            await asyncio.wait({last[mine]})
        last[mine] = asyncio.get_running_loop().run_in_executor(pool, decoders[mine].decode_blocks, chunk.blocks)
        await waiting.put((chunk, last[mine]))
        number += 1
    await waiting.put(None)


class _Writer:
    """Writes what comes out of a queue, many chunks to a transaction."""

    def __init__(self, store: Projection, waiting: _Waiting, total: int, progress: Progress | None) -> None:
        self._store = store
        self._waiting = waiting
        self._total = total
        self._progress = progress
        self._started = time.perf_counter()
        self._done = 0

    async def run(self) -> int:
        """Write until the queue ends; return how many records that were."""
        more = True
        while more:
            self._store.begin()
            try:
                more = await self._fill()
            except BaseException:
                self._store.rollback()
                raise
            await _in_thread(self._store.commit)
        return self._done

    async def _fill(self) -> bool:
        """Add chunks to the transaction until it is large enough; False when none is left."""
        enough = self._done + TRANSACTION_RECORDS
        while self._done < enough:
            if (one := await self._waiting.get()) is None:
                return False
            chunk, decoding = one
            await _in_thread(self._store.add, await decoding, chunk.following)
            self._done += chunk.records
            if self._progress is not None:
                self._progress(self._done, self._total, time.perf_counter() - self._started)
        return True


async def _in_thread(work: Callable[..., None], *arguments: Any) -> None:
    """Do blocking work; who is cancelled meanwhile waits for its end, because a database has one user at a time."""
    working = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        raise


async def _chunks(blocks: AsyncIterator[RecordBlock]) -> AsyncIterator[_Chunk]:
    """Gather blocks into chunks of bounded size."""
    some: list[RecordBlock] = []
    following: dict[Partition, int] = {}
    records = size = 0
    async for block in blocks:
        some.append(block)
        following[(block.topic, block.partition)] = int(block.offsets[-1]) + 1
        records += len(block)
        size += len(block.data)
        if records >= CHUNK_RECORDS or size >= CHUNK_BYTES:
            yield _Chunk(blocks=some, following=following, records=records)
            some, following, records, size = [], {}, 0, 0
    if some:
        yield _Chunk(blocks=some, following=following, records=records)
