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
import pyarrow as pa

from controlplane.events.avro_binary import blob, long
from controlplane.events.catalog import EVENT_TYPES
from controlplane.events.codec import PREFIX_BYTES, EventSchema, UndecodableRecord, decode, schemas_by_id
from controlplane.truthcore_projector.boundaries import whole

MEMORY: Final = Path("/dev/shm")  # noqa: S108 -- a file that is never on a disk, where the system has one
MARKER: Final = b"controlplane-avr"

COORDINATES: Final = pa.schema(
    [
        ("_topic", pa.string()), ("_partition", pa.int32()), ("_offset", pa.int64()), ("_log_time", pa.timestamp("us")),
        ("_key", pa.binary()), ("_value", pa.binary()), ("_event_type", pa.string()),
    ]
)  # fmt: skip


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A record that is no event of the contract, and why: the code of an error envelope, and words."""

    record: Any
    code: str = "record_undecodable"
    reason: str


class Decoded(msgspec.Struct, frozen=True, kw_only=True):
    """A batch by event type; each table has the event's columns and those of `COORDINATES`."""

    tables: dict[str, pa.Table]
    refused: list[Refused]


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
        """Return the records of a batch by event type; what cannot be read is refused by itself, alone."""
        groups: dict[bytes, list[Any]] = {}
        for record in records:
            groups.setdefault((record.value or b"")[:PREFIX_BYTES], []).append(record)
        tables: dict[str, list[pa.Table]] = {}
        refused: list[Refused] = []
        for group in groups.values():
            name, table, bad = self._group(group)
            refused += bad
            if table is not None:
                tables.setdefault(name, []).append(table)
        merged = {name: pa.concat_tables(parts, promote_options="permissive") for name, parts in tables.items()}
        return Decoded(tables=merged, refused=refused)

    def _group(self, group: Sequence[Any]) -> tuple[str, pa.Table | None, list[Refused]]:
        value = group[0].value or b""
        identity = int.from_bytes(value[1:PREFIX_BYTES], "big") if len(value) >= PREFIX_BYTES and value[0] == 0 else -1
        schema = schemas_by_id().get(identity)
        if schema is None:
            return "", None, [refusal(record) for record in group]
        good, bad = _belonging(schema, group)
        try:
            return schema.event_name, self._vectorised(identity, schema.schema, schema.event_name, good), bad
        except Exception:
            readable = [record for record in good if is_readable(record)]
            if len(readable) == len(good):
                raise
            bad += [refusal(record) for record in good if not is_readable(record)]
            return schema.event_name, self._vectorised(identity, schema.schema, schema.event_name, readable), bad

    def _vectorised(self, identity: int, schema: Any, name: str, group: Sequence[Any]) -> pa.Table | None:
        if not group:
            return None
        header = self._headers.get(identity)
        if header is None:
            metadata = blob(b"avro.schema") + blob(json.dumps(schema).encode()) + blob(b"avro.codec") + blob(b"null")
            header = self._headers[identity] = b"Obj\x01" + long(2) + metadata + b"\0" + MARKER
        values = [record.value for record in group]
        body = b"".join([value[PREFIX_BYTES:] for value in values])
        self._file.write_bytes(header + long(len(values)) + long(len(body)) + body + MARKER)
        context = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(1))
        table = context.read_avro(str(self._file)).to_arrow_table()
        if table.num_rows != len(group):
            raise ValueError(f"Expected {len(group)} rows of {name}, but found {table.num_rows}.")
        columns: list[Any] = [
            [record.topic for record in group], [record.partition for record in group], [record.offset for record in group],
            pa.array([record.timestamp * 1000 for record in group], pa.int64()).cast(pa.timestamp("us")),
            [record.key for record in group], values, [name] * len(group),
        ]  # fmt: skip
        for field, column in zip(COORDINATES, columns, strict=True):
            array = column if isinstance(column, pa.Array) else pa.array(column, field.type)
            table = table.append_column(field, array)
        return table


def _belonging(schema: EventSchema, group: Sequence[Any]) -> tuple[list[Any], list[Refused]]:
    """Return the records whose bytes are one whole event of their topic, and the others with the reason."""
    home = EVENT_TYPES[schema.event_name].topic.name
    fits = whole(schema.schema, [record.value[PREFIX_BYTES:] for record in group]).tolist()
    good: list[Any] = []
    bad: list[Refused] = []
    for record, fitting in zip(group, fits, strict=True):
        if not fitting:
            bad.append(refusal(record))
        elif record.topic != home:
            reason = f"Expected {schema.event_name} on {home}, but found it on {record.topic}."
            bad.append(Refused(record=record, code="event_unexpected", reason=reason))
        else:
            good.append(record)
    return good, bad


def is_readable(record: Any) -> bool:
    """Say whether a record is an event of the contract."""
    try:
        decode(record.value or b"")
    except UndecodableRecord:
        return False
    return True


def refusal(record: Any) -> Refused:
    """Return why a record is no event of the contract."""
    try:
        event = decode(record.value or b"")
    except UndecodableRecord as error:
        return Refused(record=record, reason=str(error))
    reason = (
        f"Expected a whole {type(event).__name__} and nothing behind it, but found other bytes in {len(record.value)}."
    )
    return Refused(record=record, reason=reason)
