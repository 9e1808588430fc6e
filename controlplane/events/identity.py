"""Identities: who, what and which, and how they follow from their cause."""

import re
import uuid
import zlib
from hashlib import sha1
from typing import Final, NewType

JobId = NewType("JobId", str)
AttemptId = NewType("AttemptId", str)
RunnerId = NewType("RunnerId", str)
EventId = NewType("EventId", str)
Instant = NewType("Instant", int)
"""Microseconds since 1970-01-01T00:00:00Z."""

NAMESPACE: Final = uuid.UUID("6f0d8a52-9a3c-5f0e-8d51-3b1c0b7a2f11")
IDENTIFIER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,127}")
"""Job ids, runner ids, pools, job types and keys: 1 to 128 characters, safe in URLs, keys and metrics."""
TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
"""Tenants: an identifier without / and :, which part a tenant's name from that of its key, secret or limit."""

_NAMESPACE_BYTES: Final = NAMESPACE.bytes


def name_based_id(name: str) -> EventId:
    """Return the UUID version 5 (RFC 9562, section 5.5) of a name in our namespace: equal names, equal ids."""
    digest = bytearray(sha1(_NAMESPACE_BYTES + name.encode(), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return EventId(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")


def random_id() -> str:
    """Return a random UUID for what has no cause on the log: a client's job id, an attempt's lease, a process start."""
    return str(uuid.uuid4())


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of a record key: CRC-32 modulo the count, librdkafka's `consistent` partitioner."""
    return zlib.crc32(key) % partitions
