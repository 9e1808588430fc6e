"""What a fetch brings, taken apart with NumPy.

Source: Apache Kafka documentation, "Record Batch" (message format version 2). What is compressed or older goes through aiokafka's reader.
"""

import struct
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords

from controlplane.log.blocks import Integers, RecordBlock, block_of

NEWEST_MAGIC: Final = 2
COMPRESSION: Final = 0b111
APPEND_TIME: Final = 0b1000
CONTROL: Final = 0b100000
HEADER: Final = struct.Struct(">qiibIhiqqqhii")
"""First offset, size, epoch, magic, checksum, attributes, last offset's delta, first and last time, producer (id, epoch, sequence), count."""
SIZE_FROM: Final = 12
"""Bytes of a batch that its size does not count: the first offset and the size itself."""
VARINT_BYTES: Final = 10


class BatchMalformed(ValueError):
    """A record batch is not what was written: its checksum is of other bytes, or its records do not take up its bytes."""


def parsed(topic: str, partition: int, data: bytes) -> tuple[list[RecordBlock], int | None]:
    """Return the records of a fetch, in order, and the offset after it; None when it holds no whole batch.

    The last batch may be cut off by the fetch's limit: it is left for the next one. Markers of transactions are passed over.

    Raises:
        BatchMalformed: a batch does not add up.
    """
    blocks: list[RecordBlock] = []
    plain: list[tuple[int, ...]] = []
    following: int | None = None
    at, end = 0, len(data)
    while at + HEADER.size <= end:
        fields = HEADER.unpack_from(data, at)
        first, size, magic, attributes, last = fields[0], fields[1], fields[3], fields[5], fields[6]
        if at + SIZE_FROM + size > end:
            break
        whole_size = SIZE_FROM + size
        if magic == NEWEST_MAGIC:
            if not DefaultRecordBatch(data[at : at + whole_size]).validate_crc():
                raise BatchMalformed(
                    f"Expected the bytes that the checksum of the batch at {topic}/{partition}/{first} is of."
                )
            following = first + last + 1
        if magic == NEWEST_MAGIC and not attributes & (COMPRESSION | CONTROL):
            time = fields[8] if attributes & APPEND_TIME else fields[7]
            plain.append((at + HEADER.size, at + whole_size, fields[12], first, time, attributes & APPEND_TIME))
        elif not attributes & CONTROL or magic != NEWEST_MAGIC:
            blocks += _block(topic, partition, data, plain)
            plain = []
            if records := _unpacked(topic, partition, data[at : at + whole_size]):
                blocks.append(block_of(records))
                following = max(following or 0, records[-1].offset + 1)
        at += whole_size
    blocks += _block(topic, partition, data, plain)
    return blocks, following


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


def _unpacked(topic: str, partition: int, batch: bytes) -> list[_Record]:
    """Return the records of a batch that is compressed, or older than the newest format."""
    memory = MemoryRecords(batch)
    found: list[_Record] = []
    while (one := memory.next_batch()) is not None:
        found += [
            _Record(topic=topic, partition=partition, offset=r.offset, timestamp=r.timestamp, key=r.key, value=r.value)
            for r in one
        ]
    return found


def _block(topic: str, partition: int, data: bytes, batches: Sequence[tuple[int, ...]]) -> list[RecordBlock]:
    """Return plain batches, given as (begin, end, count, first offset, time, whether that time is all records'), as one block."""
    counts = [batch[2] for batch in batches]
    starts = np.array([at for begin, end, count, *_ in batches for at in _starts(data, begin, end, count)], np.int64)
    if not len(starts):
        return []
    firsts, times, same = (np.repeat(np.array([batch[n] for batch in batches], np.int64), counts) for n in (3, 4, 5))
    buffer = np.frombuffer(data, np.uint8)
    delta, at = _varints(buffer, starts + 1)  # The first byte of a record holds attributes, which mean nothing yet.
    offset, at = _varints(buffer, at)
    key_sizes, key_at = _varints(buffer, at)
    value_sizes, value_at = _varints(buffer, key_at + np.maximum(key_sizes, 0))
    return [
        RecordBlock(
            topic=topic, partition=partition, data=data, offsets=firsts + offset, timestamps=times + np.where(same, 0, delta),
            key_at=key_at, key_sizes=key_sizes, value_at=value_at, value_sizes=value_sizes,
        )
    ]  # fmt: skip


def _starts(data: bytes, at: int, end: int, count: int) -> list[int]:
    """Return where each record of a batch begins, behind its size: the one thing that has to be followed step by step."""
    starts = []
    try:
        for _ in range(count):
            size = data[at] & 0x7F
            shift = 7
            while data[at] & 0x80:
                at += 1
                size |= (data[at] & 0x7F) << shift
                shift += 7
            at += 1
            starts.append(at)
            at += size >> 1
    except IndexError:
        at = -1
    if at != end:
        raise BatchMalformed(f"Expected {count} records to take up {end} bytes, but they end at {at}.")
    return starts


def _varints(buffer: npt.NDArray[np.uint8], at: Integers) -> tuple[Integers, Integers]:
    """Return the zig-zag numbers at these places, and the places behind them."""
    byte = buffer[at]
    value = (byte & 0x7F).astype(np.uint64)
    at = at + 1
    going = np.flatnonzero(byte & 0x80)
    for place in range(1, VARINT_BYTES):
        if not len(going):
            break
        byte = buffer[at[going]]
        value[going] |= (byte & 0x7F).astype(np.uint64) << np.uint64(7 * place)
        at[going] += 1
        going = going[(byte & 0x80) != 0]
    half = (value >> np.uint64(1)).astype(np.int64)
    return half ^ -(value & np.uint64(1)).astype(np.int64), at
