"""A log in memory: one partition per topic, records with positions and append times, held to the schemas and limits of the real one."""

from collections import defaultdict
from collections.abc import Callable

import msgspec

from controlplane.events.catalog import EVENT_TYPES, record_key
from controlplane.events.codec import encode
from controlplane.events.types import LogPosition
from controlplane.log.positions import Partition
from controlplane.log.producer import RecordTooLarge
from controlplane.log.topics import LARGEST_RECORD_BYTES


class MemoryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record as readers get it; `timestamp` in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def position(self) -> LogPosition:
        """Return where it stands."""
        return LogPosition(topic=self.topic, partition=self.partition, offset=self.offset)


class MemoryLog:
    """Topics by name, in the order of their appends; `records` has them all."""

    def __init__(self, now_micros: Callable[[], int]) -> None:
        """Begin empty; the clock says when records are appended."""
        self.records: list[MemoryRecord] = []
        self._ends: dict[str, int] = defaultdict(int)
        self._now_micros = now_micros

    def append(self, event: msgspec.Struct) -> LogPosition:
        """Append an event to its topic and return where it stands.

        Raises:
            RecordTooLarge: the log does not take records of that size.
        """
        topic, key, value = EVENT_TYPES[type(event).__name__].topic.name, record_key(event), encode(event)
        if len(key) + len(value) > LARGEST_RECORD_BYTES:
            size = len(key) + len(value)
            raise RecordTooLarge(f"Expected a record of at most {LARGEST_RECORD_BYTES} bytes, but found {size}.")
        record = MemoryRecord(
            topic=topic,
            partition=0,
            offset=self._ends[topic],
            timestamp=self._now_micros() // 1000,
            key=key,
            value=value,
        )
        self._ends[topic] += 1
        self.records.append(record)
        return record.position

    @property
    def ends(self) -> dict[Partition, int]:
        """Return the next offset of each partition."""
        return {(topic, 0): end for topic, end in self._ends.items()}
