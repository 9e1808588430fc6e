"""The checkpoints on the log: all of them, the last one of each partition, and the two around a record."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from controlplane.events.catalog import CHECKPOINTS, TOPICS
from controlplane.events.codec import UndecodableRecord, decode
from controlplane.events.identity import partition_of
from controlplane.events.types import CheckpointSigned
from controlplane.log.positions import Partition
from controlplane.log.reader import LogReader
from controlplane.security.checkpoint import origin_of

FIRST_WINDOW_RECORDS: Final = 2_000
WINDOW_GROWTH: Final = 4
WAIT_SECONDS: Final = 0.5
CLOCKS_DIFFER_MILLISECONDS: Final = 10_000
"""So much may the broker that appended a checkpoint be behind the one that appended the record."""


class LedgerInvalid(ValueError):
    """Expected checkpoints on their topic, but found a record that is none."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One checkpoint, and where on the log it is."""

    position: str
    event: CheckpointSigned


def signed_partitions(counts: Mapping[str, int]) -> list[Partition]:
    """Return the partitions that have trees: all but those of the checkpoints, which are signed one by one."""
    return [(topic, n) for topic in TOPICS if topic != CHECKPOINTS.name for n in range(counts.get(topic, 0))]


async def read_range(reader: LogReader, partition: Partition, first: int, end: int) -> list[Any]:
    """Return the records of a partition from one offset up to before another, which the log must have.

    Raises:
        LogUnavailable: the log does not have them, or the brokers refuse.
    """
    records: list[Any] = []
    if first >= end:
        return records
    await reader.assign({partition: first})
    while not records or records[-1].offset + 1 < end:
        records += (await reader.batch(timeout_seconds=WAIT_SECONDS)).get(partition, ())
    return [record for record in records if record.offset < end]


def entry_of(record: Any) -> Entry:
    """Return the checkpoint of a record.

    Raises:
        LedgerInvalid: it is none.
    """
    position = f"{record.topic}/{record.partition}/{record.offset}"
    try:
        event = decode(record.value or b"")
    except UndecodableRecord as error:
        raise LedgerInvalid(f"Expected a checkpoint at {position}, but: {error}") from error
    if not isinstance(event, CheckpointSigned):
        raise LedgerInvalid(f"Expected a checkpoint at {position}, but found a {type(event).__name__}.")
    return Entry(position=position, event=event)


def _homes(origins: Iterable[str], partitions: int) -> dict[Partition, set[bytes]]:
    homes: dict[Partition, set[bytes]] = {}
    for origin in origins:
        key = origin.encode()
        homes.setdefault((CHECKPOINTS.name, partition_of(key, partitions)), set()).add(key)
    return homes


async def last_entries(reader: LogReader, origins: Iterable[str], partitions: int) -> dict[str, Entry]:
    """Return the last checkpoint of each tree that has one, read backwards from the end.

    Raises:
        LogUnavailable: the brokers did not answer.
        LedgerInvalid: where a checkpoint of such a tree should be is something else.
    """
    found: dict[str, Entry] = {}
    homes = _homes(origins, partitions)
    begins, ends = await reader.beginning_offsets(homes), await reader.end_offsets(homes)
    for place, wanted in homes.items():
        window, end = FIRST_WINDOW_RECORDS, ends[place]
        while wanted and end > begins[place]:
            first = max(begins[place], end - window)
            for record in reversed(await read_range(reader, place, first, end)):
                if record.key in wanted:
                    wanted.discard(record.key)
                    found[record.key.decode()] = entry_of(record)
            end, window = first, window * WINDOW_GROWTH
    return found


async def entries_around(
    reader: LogReader, partition: Partition, offset: int, log_time_milliseconds: int, partitions: int
) -> tuple[Entry | None, Entry | None]:
    """Return a checkpoint close before a record, and one that covers it; None where there is none.

    The covering one was appended after the record, so the search begins at the record's append time.

    Raises:
        LogUnavailable: the brokers did not answer.
        LedgerInvalid: where such a checkpoint should be is something else.
    """
    key = origin_of(*partition).encode()
    place = (CHECKPOINTS.name, partition_of(key, partitions))
    begin = (await reader.beginning_offsets([place]))[place]
    end = (await reader.end_offsets([place]))[place]
    middle = (await reader.offsets_at({place: log_time_milliseconds - CLOCKS_DIFFER_MILLISECONDS}))[place]
    before: Entry | None = None
    covering: Entry | None = None
    for record in await read_range(reader, place, middle, end):
        if record.key == key:
            entry = entry_of(record)
            if entry.event.end_offset > offset:
                covering = entry
                break
            before = entry
    window = FIRST_WINDOW_RECORDS
    while before is None and middle > begin:
        first = max(begin, middle - window)
        for record in reversed(await read_range(reader, place, first, middle)):
            if record.key == key and (entry := entry_of(record)).event.end_offset <= offset:
                before = entry
                break
        middle, window = first, window * WINDOW_GROWTH
    return before, covering
