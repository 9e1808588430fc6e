"""A fetch taken apart by columns holds what aiokafka's own reader finds in the same bytes, record by record."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from controlplane.log.blocks import RecordBlock, block_of, blocks_of
from controlplane.log.record_batches import BatchMalformed, parsed

UNCOMPRESSED, GZIP = 0, 1
PAIRS = st.lists(
    st.tuples(st.none() | st.binary(max_size=200), st.none() | st.binary(max_size=20_000)), min_size=1, max_size=30
)


def batch_of(pairs: list[tuple[bytes | None, bytes | None]], first: int, compression: int = UNCOMPRESSED) -> bytes:
    """Return a batch as a broker keeps it: records at consecutive offsets, times a second apart."""
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 10_000_000)
    for number, (key, value) in enumerate(pairs):
        builder.append(number, 1_700_000_000_000 + 1000 * number, key, value, [("h", b"v")] if number % 3 == 0 else [])
    data = bytearray(builder.build())
    data[0:8] = first.to_bytes(8, "big")
    return bytes(data)


def seen(blocks: list[RecordBlock]) -> list[tuple[int, int, bytes | None, bytes | None]]:
    """Return the records of blocks as plain values."""

    def cut(block: RecordBlock, at: Any, size: Any) -> bytes | None:
        return None if size < 0 else block.data[at : at + size]

    return [
        (int(b.offsets[n]), int(b.timestamps[n]), cut(b, b.key_at[n], b.key_sizes[n]), cut(b, b.value_at[n], b.value_sizes[n]))
        for b in blocks
        for n in range(len(b))
    ]  # fmt: skip


def as_aiokafka_sees(data: bytes) -> list[tuple[int, int, bytes | None, bytes | None]]:
    memory, found = MemoryRecords(data), []
    while (batch := memory.next_batch()) is not None:
        found += [(one.offset, one.timestamp, one.key, one.value) for one in batch]
    return found


@given(
    batches=st.lists(
        st.tuples(PAIRS, st.sampled_from([UNCOMPRESSED, UNCOMPRESSED, GZIP]), st.integers(0, 5)), max_size=5
    )
)
def test_every_record_is_found_whatever_the_batches(batches: list[Any]) -> None:
    data, offset = b"", 10
    for pairs, compression, gap in batches:
        data += batch_of(pairs, offset + gap, compression)
        offset += gap + len(pairs)
    blocks, following = parsed("t", 3, data)
    assert seen(blocks) == as_aiokafka_sees(data)
    assert following == (offset if batches else None)


def test_a_batch_cut_off_by_the_fetch_is_left_for_the_next() -> None:
    whole, cut = batch_of([(b"a", b"1"), (None, b"2")], 5), batch_of([(b"b", b"3")], 7)
    for size in range(len(cut)):
        blocks, following = parsed("t", 0, whole + cut[:size])
        assert (len(seen(blocks)), following) == (2, 7)


@pytest.mark.parametrize("place", [24, 57, 60, 61, 70, -1])
def test_a_batch_with_one_bit_changed_is_refused(place: int) -> None:
    broken = bytearray(batch_of([(b"a", b"1" * 50), (b"b", b"2" * 50)], 0))
    broken[place] ^= 0x02
    with pytest.raises(BatchMalformed):
        parsed("t", 0, bytes(broken))


def test_between_keeps_a_range_of_offsets() -> None:
    block = parsed("t", 0, batch_of([(b"k", bytes([n])) for n in range(10)], 100))[0][0]
    assert [one[0] for one in seen([block.between(103, 107)])] == [103, 104, 105, 106]
    assert block.between(0, 1000) is block
    assert len(block.between(110, 120)) == 0


@given(pairs=PAIRS)
def test_single_records_become_a_block(pairs: list[tuple[bytes | None, bytes | None]]) -> None:
    records = [
        SimpleNamespace(topic="t", partition=n % 2, offset=n, timestamp=n, key=key, value=value)
        for n, (key, value) in enumerate(pairs)
    ]
    blocks = blocks_of(records)
    assert sorted(seen(blocks)) == [(n, n, key, value) for n, (key, value) in enumerate(pairs)]
    assert seen([block_of(records[:1])])[0][2:] == pairs[0]
