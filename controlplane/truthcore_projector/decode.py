"""Records to Arrow, without a Python object per field: datums of one schema, put behind an Avro container header, are one file.

Source: Avro 1.12 specification, "Object Container Files".
"""

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import datafusion
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from controlplane.events.avro_binary import blob, long
from controlplane.events.catalog import EVENT_TYPES
from controlplane.events.codec import PREFIX_BYTES, EventSchema, UndecodableRecord, decode, schemas_by_id
from controlplane.log.blocks import Integers, RecordBlock, blocks_of
from controlplane.truthcore_projector.boundaries import whole_within

MEMORY: Final = Path("/dev/shm")  # noqa: S108 -- a file that is never on a disk, where the system has one
MARKER: Final = b"controlplane-avr"
NO_SCHEMA: Final = -1

COORDINATES: Final = pa.schema(
    [
        ("_topic", pa.string()), ("_partition", pa.int32()), ("_offset", pa.int64()), ("_log_time", pa.timestamp("us")),
        ("_key", pa.binary()), ("_value", pa.binary()), ("_event_type", pa.string()),
    ]
)  # fmt: skip


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One record by itself, where it has to be looked at alone; `timestamp` in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A record that is no event of the contract, and why: the code of an error envelope, and words."""

    record: Record
    code: str = "record_undecodable"
    reason: str


class Decoded(msgspec.Struct, frozen=True, kw_only=True):
    """A batch by event type; each table has the event's columns and those of `COORDINATES`."""

    tables: dict[str, pa.Table]
    refused: list[Refused]


class _Batch:
    """The records of some blocks as columns over one buffer."""

    def __init__(self, blocks: Sequence[RecordBlock]) -> None:
        counts = [len(block) for block in blocks]
        before = np.repeat(np.cumsum([0, *(len(block.data) for block in blocks[:-1])]), counts)
        self.data = b"".join([*(block.data for block in blocks), b"\0" * PREFIX_BYTES])
        self.buffer = np.frombuffer(self.data, np.uint8)
        self.topics = pa.array([block.topic for block in blocks], pa.string())
        self.home = np.repeat(np.arange(len(blocks)), counts)
        self.partition = np.repeat(np.array([block.partition for block in blocks], np.int32), counts)
        self.offset = np.concatenate([block.offsets for block in blocks])
        self.timestamp = np.concatenate([block.timestamps for block in blocks])
        self.key_at = np.concatenate([block.key_at for block in blocks]) + before
        self.key_size = np.concatenate([block.key_sizes for block in blocks])
        self.value_at = np.concatenate([block.value_at for block in blocks]) + before
        self.value_size = np.concatenate([block.value_sizes for block in blocks])

    def schema_ids(self) -> Integers:
        """Return the schema id that each value names; `NO_SCHEMA` where it has no such prefix."""
        at = self.value_at
        identity = np.zeros(len(at), np.int64)
        for place in range(1, PREFIX_BYTES):
            identity = (identity << 8) | self.buffer[at + place]
        return np.where((self.value_size >= PREFIX_BYTES) & (self.buffer[at] == 0), identity, NO_SCHEMA)

    def record(self, number: int) -> Record:
        """Return one record by itself."""

        def cut(at: Integers, size: Integers) -> bytes | None:
            return None if size[number] < 0 else self.data[at[number] : at[number] + size[number]]

        return Record(
            topic=self.topics[int(self.home[number])].as_py(), partition=int(self.partition[number]), offset=int(self.offset[number]),
            timestamp=int(self.timestamp[number]), key=cut(self.key_at, self.key_size), value=cut(self.value_at, self.value_size),
        )  # fmt: skip

    def bytes_of(self, who: Integers, at: Integers, size: Integers) -> pa.Array:
        """Return stretches of the buffer, given for these records in their order, as one Arrow column."""
        starts, sizes = at[who], size[who]
        ends = starts + np.maximum(sizes, 0)
        # Arrow's values lie end to end: every second one is the gap before ours.
        offsets = np.empty(2 * len(who) + 1, np.int32)
        offsets[0], offsets[1::2], offsets[2::2] = 0, starts, ends
        column = pa.Array.from_buffers(
            pa.binary(), 2 * len(who), [None, pa.py_buffer(offsets), pa.py_buffer(self.data)]
        )
        return column.take(pa.array(np.arange(1, 2 * len(who), 2), mask=sizes < 0))

    def coordinates(self, who: Integers, event_type: str) -> list[pa.Array]:
        """Return the columns of `COORDINATES` of these records."""
        return [
            self.topics.take(pa.array(self.home[who])), pa.array(self.partition[who]), pa.array(self.offset[who]),
            pa.array(self.timestamp[who] * 1000).cast(pa.timestamp("us")), self.bytes_of(who, self.key_at, self.key_size),
            self.bytes_of(who, self.value_at, self.value_size), pa.repeat(pa.scalar(event_type, pa.string()), len(who)),
        ]  # fmt: skip


class Decoder:
    """Decodes batches; keeps one file in memory-backed storage for its own use."""

    def __init__(self) -> None:
        """Prepare the scratch file."""
        folder = MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None
        self._folder = tempfile.TemporaryDirectory(prefix="controlplane-", dir=folder)
        self._file = Path(self._folder.name) / "batch.avro"
        self._headers: dict[int, bytes] = {}

    def close(self) -> None:
        """Remove the scratch file."""
        self._folder.cleanup()

    def decode(self, records: Iterable[Any]) -> Decoded:
        """Return single records by event type; what cannot be read is refused by itself, alone."""
        return self.decode_blocks(blocks_of(records))

    def decode_blocks(self, blocks: Sequence[RecordBlock]) -> Decoded:
        """Return the records of blocks by event type; what cannot be read is refused by itself, alone."""
        if not blocks:
            return Decoded(tables={}, refused=[])
        batch = _Batch(blocks)
        tables: dict[str, list[pa.Table]] = {}
        refused: list[Refused] = []
        identities = batch.schema_ids()
        for identity in np.unique(identities).tolist():
            who = np.flatnonzero(identities == identity)
            schema = schemas_by_id().get(identity)
            if schema is None:
                refused += [refusal(batch.record(number)) for number in who.tolist()]
                continue
            table, bad = self._group(batch, schema, who)
            refused += bad
            if table is not None:
                tables.setdefault(schema.event_name, []).append(table)
        merged = {name: pa.concat_tables(parts, promote_options="permissive") for name, parts in tables.items()}
        return Decoded(tables=merged, refused=refused)

    def _group(self, batch: _Batch, schema: EventSchema, who: Integers) -> tuple[pa.Table | None, list[Refused]]:
        good, bad = _belonging(batch, schema, who)
        try:
            return self._vectorised(batch, schema, good), bad
        except Exception:
            readable = np.array([is_readable(batch.record(number)) for number in good.tolist()], np.bool_)
            if readable.all():
                raise
            bad += [refusal(batch.record(number)) for number in good[~readable].tolist()]
            return self._vectorised(batch, schema, good[readable]), bad

    def _vectorised(self, batch: _Batch, schema: EventSchema, who: Integers) -> pa.Table | None:
        if not len(who):
            return None
        header = self._headers.get(schema.id)
        if header is None:
            metadata = (
                blob(b"avro.schema") + blob(json.dumps(schema.schema).encode()) + blob(b"avro.codec") + blob(b"null")
            )
            header = self._headers[schema.id] = b"Obj\x01" + long(2) + metadata + b"\0" + MARKER
        datums = batch.bytes_of(who, batch.value_at + PREFIX_BYTES, batch.value_size - PREFIX_BYTES)
        body = datums.buffers()[2].slice(0, int((batch.value_size[who] - PREFIX_BYTES).sum()))
        with self._file.open("wb") as file:
            file.write(header + long(len(who)) + long(len(body)))
            file.write(body)
            file.write(MARKER)
        context = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(1))
        table = context.read_avro(str(self._file)).to_arrow_table()
        if table.num_rows != len(who):
            raise ValueError(f"Expected {len(who)} rows of {schema.event_name}, but found {table.num_rows}.")
        for field, column in zip(COORDINATES, batch.coordinates(who, schema.event_name), strict=True):
            table = table.append_column(field, column)
        return table


def _belonging(batch: _Batch, schema: EventSchema, who: Integers) -> tuple[Integers, list[Refused]]:
    """Return the records whose bytes are one whole event of their topic, and the others with the reason."""
    home = EVENT_TYPES[schema.event_name].topic.name
    starts = batch.value_at[who] + PREFIX_BYTES
    fits = whole_within(schema.schema, batch.buffer, starts, starts + batch.value_size[who] - PREFIX_BYTES)
    at_home: npt.NDArray[np.bool_] = np.array([topic == home for topic in batch.topics.to_pylist()])[batch.home[who]]
    bad = [refusal(batch.record(number)) for number in who[~fits].tolist()]
    for number in who[fits & ~at_home].tolist():
        record = batch.record(number)
        reason = f"Expected {schema.event_name} on {home}, but found it on {record.topic}."
        bad.append(Refused(record=record, code="event_unexpected", reason=reason))
    return who[fits & at_home], bad


def is_readable(record: Record) -> bool:
    """Say whether a record is an event of the contract."""
    try:
        decode(record.value or b"")
    except UndecodableRecord:
        return False
    return True


def refusal(record: Record) -> Refused:
    """Return why a record is no event of the contract."""
    value = record.value or b""
    try:
        event = decode(value)
    except UndecodableRecord as error:
        return Refused(record=record, reason=str(error))
    reason = f"Expected a whole {type(event).__name__} and nothing behind it, but found other bytes in {len(value)}."
    return Refused(record=record, reason=reason)
