"""Folding a range of the log into a database as fast as it goes: reading, decoding and writing at once, in bounded memory.

DataFusion, Arrow, NumPy and DuckDB let go of the interpreter while they work, so threads are enough. What waits between two stages is bounded in
bytes; memory does not grow with the log.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from controlplane.log.block_reader import BlockReader
from controlplane.log.blocks import RecordBlock
from controlplane.log.connection import LogConnection
from controlplane.log.positions import Partition
from controlplane.truthcore_projector.decode import Decoded, Decoder
from controlplane.truthcore_projector.store import Store

TRANSACTION_RECORDS: Final = 130_000
"""More than a row group of the database (122,880), so that most rows are written once, past the write-ahead log."""
TRANSACTION_BYTES: Final = 96 * 1024 * 1024
DECODERS: Final = 2
"""Decoding one transaction takes longer than writing it."""

Progress = Callable[[int, int, float], None]
"""Called with (records done, records in all, seconds so far)."""


class _Gathered(msgspec.Struct, frozen=True, kw_only=True):
    """What one transaction will hold, and the positions after it."""

    blocks: list[RecordBlock]
    following: dict[Partition, int]
    records: int


async def fold(
    connection: LogConnection, store: Store, until: Mapping[Partition, int], progress: Progress | None = None
) -> int:
    """Fold the log from the store's own positions up to these; returns how many records that were.

    Each transaction holds rows and positions: after a crash, the same call goes on where the last one committed.

    Raises:
        LogUnavailable: the log does not give the range.
    """
    positions = store.positions()
    total = sum(max(0, end - positions.get(one, 0)) for one, end in until.items())
    started = time.perf_counter()
    waiting: asyncio.Queue[tuple[_Gathered, asyncio.Future[Decoded]] | None] = asyncio.Queue(1)
    decoders = [Decoder() for _ in range(DECODERS)]
    loop = asyncio.get_running_loop()

    async def read(pool: ThreadPoolExecutor) -> None:
        async with BlockReader(connection, client_id="controlplane-fold") as reader:
            number = 0
            last: dict[int, asyncio.Future[Decoded]] = {}
            async for gathered in _transactions(reader.blocks(positions, until)):
                mine = number % DECODERS
                if mine in last:  # A decoder works on one transaction at a time.
                    await asyncio.wait({last[mine]})
                last[mine] = loop.run_in_executor(pool, decoders[mine].decode_blocks, gathered.blocks)
                await waiting.put((gathered, last[mine]))
                number += 1
        await waiting.put(None)

    async def write() -> int:
        done = 0
        while (one := await waiting.get()) is not None:
            gathered, decoding = one
            await asyncio.to_thread(store.write, await decoding, gathered.following)
            done += gathered.records
            if progress is not None:
                progress(done, total, time.perf_counter() - started)
        return done

    with ThreadPoolExecutor(DECODERS, "decode") as pool:
        reading, writing = asyncio.create_task(read(pool)), asyncio.create_task(write())
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


async def _transactions(blocks: AsyncIterator[RecordBlock]) -> AsyncIterator[_Gathered]:
    """Gather blocks into transactions of bounded size."""
    some: list[RecordBlock] = []
    following: dict[Partition, int] = {}
    records = size = 0
    async for block in blocks:
        some.append(block)
        following[(block.topic, block.partition)] = int(block.offsets[-1]) + 1
        records += len(block)
        size += len(block.data)
        if records >= TRANSACTION_RECORDS or size >= TRANSACTION_BYTES:
            yield _Gathered(blocks=some, following=following, records=records)
            some, following, records, size = [], {}, 0, 0
    if some:
        yield _Gathered(blocks=some, following=following, records=records)
