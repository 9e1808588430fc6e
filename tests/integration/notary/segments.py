"""A broker's files as an intruder changes them: whole batches, with their checksums made right again.

Source: Kafka's message format, version 2: base offset (8 bytes) and length (4) in front of each batch; the CRC-32C at byte 17 covers what follows it.
"""

import struct
from collections.abc import Callable
from pathlib import Path

from aiokafka.record.util import calc_crc32c as crc32c

PREFIX = 12
CRC_AT = 17
COVERED_FROM = 21

Change = Callable[[list[bytes]], list[bytes]]


def batches_of(data: bytes) -> list[bytes]:
    """Return the batches of a segment."""
    found = []
    while len(data) > PREFIX:
        size = PREFIX + struct.unpack_from(">i", data, 8)[0]
        found.append(data[:size])
        data = data[size:]
    return found


def rewrite(folder: Path, change: Change) -> None:
    """Change the batches of a partition's only segment; its offsets are counted anew, and its indices are left to the broker to make."""
    [segment] = folder.glob("*.log")
    changed = change(batches_of(segment.read_bytes()))
    segment.write_bytes(b"".join(struct.pack(">q", offset) + batch[8:] for offset, batch in enumerate(changed)))
    for index in (*folder.glob("*.index"), *folder.glob("*.timeindex")):
        index.unlink()


def with_value(batch: bytes, old: bytes, new: bytes) -> bytes:
    """Return a batch in which a text is another of the same length, and whose checksum is right."""
    assert len(old) == len(new)
    assert old in batch
    body = batch[COVERED_FROM:].replace(old, new)
    return batch[:CRC_AT] + struct.pack(">I", crc32c(body)) + body
