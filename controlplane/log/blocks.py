"""Records as columns over the bytes that hold them: no Python object per record."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


class RecordBlock(msgspec.Struct, frozen=True, kw_only=True):
    """Records of one partition in order of their offsets: where in `data` each key and value is; a size of -1 is null."""

    topic: str
    partition: int
    data: bytes
    offsets: Integers
    timestamps: Integers
    """Milliseconds."""
    key_at: Integers
    key_sizes: Integers
    value_at: Integers
    value_sizes: Integers

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.offsets)

    def between(self, first: int, end: int) -> "RecordBlock":
        """Return the records from one offset up to, and without, another."""
        low, high = np.searchsorted(self.offsets, (first, end)).tolist()
        if low == 0 and high == len(self.offsets):
            return self
        columns = ("offsets", "timestamps", "key_at", "key_sizes", "value_at", "value_sizes")
        return msgspec.structs.replace(self, **{name: getattr(self, name)[low:high] for name in columns})


def block_of(records: Sequence[Any]) -> RecordBlock:
    """Return single records of one partition, with `key` and `value`, as a block."""
    keys, values = [one.key for one in records], [one.value for one in records]
    parts: list[bytes] = [part or b"" for pair in zip(keys, values, strict=True) for part in pair]
    ends = np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)))
    starts = np.concatenate(([0], ends[:-1])) if parts else ends
    sizes = ends - starts
    null = np.fromiter((part is None for pair in zip(keys, values, strict=True) for part in pair), np.bool_, len(parts))
    sizes[null] = -1
    return RecordBlock(
        topic=records[0].topic, partition=records[0].partition, data=b"".join(parts),
        offsets=np.fromiter((one.offset for one in records), np.int64, len(records)),
        timestamps=np.fromiter((one.timestamp for one in records), np.int64, len(records)),
        key_at=starts[0::2], key_sizes=sizes[0::2], value_at=starts[1::2], value_sizes=sizes[1::2],
    )  # fmt: skip


def blocks_of(records: Iterable[Any]) -> list[RecordBlock]:
    """Return single records as one block per partition, each in the order given."""
    by_partition: dict[tuple[str, int], list[Any]] = {}
    for record in records:
        by_partition.setdefault((record.topic, record.partition), []).append(record)
    return [block_of(some) for some in by_partition.values()]
