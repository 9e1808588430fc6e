"""Each bit of a batch as it lies in a segment, changed with its checksum made right again: a reader sees the same record, none, or it is found."""

import struct
from typing import Any

from aiokafka.errors import KafkaError
from aiokafka.record import MemoryRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from controlplane.notary.heads import TreeHead
from controlplane.notary.history import PartitionHistory
from controlplane.notary.tree import PartitionTree
from tests.unit.notary.test_history import EVERY, PLACE, Record

RECORDS = 6
CRC_AT = 17
COVERED_FROM = 21
BATCH_HEADER_BYTES = 61


def segment() -> bytes:
    """A batch of records as a producer seals it."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, 7, 0, 0, 4096)
    for number in range(RECORDS):
        builder.append(number, 1_700_000_000_000, b"job-%d" % number, b"value-%d" % number, [("trace", b"%d" % number)])
    return bytes(builder.build())


def read(data: bytes) -> list[Record] | None:
    """Return the records that a consumer sees, or None when it cannot read them."""
    found: list[Record] = []
    try:
        batches = MemoryRecords(data)
        while batches.has_next():
            batch: Any = batches.next_batch()
            if not batch.validate_crc():
                return None
            found += [
                Record(
                    offset=one.offset, timestamp=one.timestamp, key=one.key, value=one.value, headers=tuple(one.headers)
                )
                for one in batch
            ]
    except (KafkaError, OSError, EOFError, ValueError, IndexError, TypeError, struct.error, OverflowError, MemoryError):
        return None
    return found


def is_found(records: list[Record], heads: list[TreeHead]) -> bool:
    history = PartitionHistory("controlplane.jobs/3", heads)
    history.take(records)
    history.finish(RECORDS)
    return bool(history.findings)


def test_each_bit_of_a_batch_is_found_or_says_nothing_that_a_reader_sees() -> None:
    whole = segment()
    original = read(whole)
    assert original is not None
    assert len(original) == RECORDS
    tree = PartitionTree(PLACE, 0)
    heads = tree.take(original, EVERY) + [head for head in [tree.seal()] if head]
    assert not is_found(original, heads)
    seen, unreadable, unseen = 0, 0, set()
    for bit in range(COVERED_FROM * 8, len(whole) * 8):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        struct.pack_into(">I", changed, CRC_AT, calc_crc32c(bytes(changed[COVERED_FROM:])))
        records = read(bytes(changed))
        if records is None:
            unreadable += 1
        elif records == original:
            unseen.add(bit // 8)
        else:
            assert is_found(records, heads), (bit, records)
            seen += 1
    assert seen > 900
    assert seen + unreadable + 8 * len(unseen) >= 8 * (len(whole) - COVERED_FROM)
    # What no reader gets to see: the producer's id and sequence and the batch's own sums in its header, and one unused byte per record.
    assert len([place for place in unseen if place >= BATCH_HEADER_BYTES]) == RECORDS
