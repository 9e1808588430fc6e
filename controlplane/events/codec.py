"""Events to bytes and back, in the Confluent wire format: 0, schema id (4 bytes, big-endian), Avro datum."""

import io
import struct
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import fastavro
import msgspec
from fastavro.types import Schema as ParsedSchema

from controlplane.events import encoders
from controlplane.events.catalog import EVENT_TYPES
from controlplane.events.schemas import (
    NAMESPACE,
    Schema,
    released_schemas,
    schema_id,
    self_contained,
    without_logical_types,
    written_schemas,
)

MAGIC: Final = 0
PREFIX: Final = struct.Struct(">bI")
PREFIX_BYTES: Final = PREFIX.size


class UndecodableRecord(ValueError):
    """A record's value is not an event of the contract; the message says what was expected and what was found."""


class EventSchema(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one event's schema, as written on the log and as parsed for this process."""

    event_name: str
    id: int
    schema: Schema
    """Self-contained, with logical types: what the registry serves."""
    parsed: ParsedSchema
    """Without logical types: instants are integers."""
    prefix: bytes


def _event_schema(name: str, schema: Schema) -> EventSchema:
    identity = schema_id(schema)
    return EventSchema(
        event_name=name, id=identity, schema=schema, prefix=PREFIX.pack(MAGIC, identity),
        parsed=fastavro.parse_schema(without_logical_types(schema)),
    )  # fmt: skip


@cache
def current_schemas() -> Mapping[str, EventSchema]:
    """Return the schema in force of every event in the catalog, by event name."""
    written = written_schemas()
    return {name: _event_schema(name, self_contained(f"{NAMESPACE}.{name}", written)) for name in EVENT_TYPES}


@cache
def schemas_by_id() -> Mapping[int, EventSchema]:
    """Return every schema that a record on the log may have been written with: released ones and those in force."""
    released = (_event_schema(name.rpartition(".")[2], schema) for name, _, schema in released_schemas())
    return {schema.id: schema for schema in (*released, *current_schemas().values())}


@cache
def _encoder(event_class: type[msgspec.Struct]) -> tuple[bytes, Callable[[Any], bytes]]:
    name = event_class.__name__
    return current_schemas()[name].prefix, getattr(encoders, f"encode_{name}")


def encode(event: msgspec.Struct) -> bytes:
    """Return the value bytes of an event.

    Raises:
        AttributeError, KeyError, TypeError, struct.error: a field holds what its schema cannot.
    """
    prefix, datum = _encoder(type(event))
    return prefix + datum(event)


def schema_of(value: bytes) -> EventSchema:
    """Return the schema that a record's value was written with.

    Raises:
        UndecodableRecord: it has no such prefix, or names a schema that is not of the contract.
    """
    if len(value) < PREFIX_BYTES or value[0] != MAGIC:
        raise UndecodableRecord(f"Expected a value that starts with byte 0 and a schema id, but found {value[:8]!r}.")
    identity = PREFIX.unpack_from(value)[1]
    schema = schemas_by_id().get(identity)
    if schema is None:
        raise UndecodableRecord(f"Expected the id of a schema of the contract, but found {identity}.")
    return schema


def decode(value: bytes) -> Any:
    """Return the event of a record's value, read with today's schema whatever version it was written with.

    Raises:
        UndecodableRecord: it is no event of the contract.
    """
    written = schema_of(value)
    in_force = current_schemas()[written.event_name]
    reader = None if written.id == in_force.id else in_force.parsed
    buffer = io.BytesIO(value)
    buffer.seek(PREFIX_BYTES)
    try:
        fields = fastavro.schemaless_reader(buffer, written.parsed, reader)
        if buffer.tell() != len(value):
            raise ValueError(f"{len(value) - buffer.tell()} bytes follow it")
        return msgspec.convert(fields, EVENT_TYPES[written.event_name].event)
    except (ValueError, TypeError, EOFError, IndexError, OverflowError, msgspec.ValidationError) as error:
        raise UndecodableRecord(
            f"Expected a whole {written.event_name}, but {error or 'the bytes end early'}."
        ) from error
