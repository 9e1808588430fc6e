"""Golden records, kept as they are on the wire: two for each released version of a schema, one with everything in it and one with as little as may be."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import fastavro

from controlplane.events.catalog import EVENT_TYPES
from controlplane.events.codec import MAGIC, PREFIX
from controlplane.events.schemas import Schema, released_schemas, schema_id, without_logical_types

FOLDER: Final = Path(__file__).parent
EXPECTED: Final = FOLDER / "expected.json"
FILLINGS: Final = ("full", "bare")
BEGUN_MILLISECONDS: Final = 1_767_225_600_000


def released() -> Iterator[tuple[str, int, Schema]]:
    """Yield (event, version, schema) of every released version of an event."""
    for name, version, schema in released_schemas():
        if (event := name.rpartition(".")[2]) in EVENT_TYPES:
            yield event, version, schema


def file_of(event: str, version: int, filling: str) -> Path:
    return FOLDER / event / f"v{version}.{filling}.json"


def filled(schema: Any, path: str, filling: str, named: dict[str, Any]) -> Any:
    """Return a value of a schema that follows from its place: every option taken, or none."""
    match schema:
        case str() if schema in named:
            return filled(named[schema], path, filling, named)
        case str():
            return _primitive(schema, path)[FILLINGS.index(filling)]
        case list():
            wanted = [one for one in schema if (one == "null") is (filling == "bare")]
            return filled((wanted or schema)[0], path, filling, named)
        case {"type": "record", "fields": fields}:
            return {one["name"]: filled(one["type"], f"{path}.{one['name']}", filling, named) for one in fields}
        case {"type": "enum", "symbols": symbols}:
            return symbols[-1] if filling == "full" else symbols[0]
        case {"type": "array", "items": items}:
            return [filled(items, f"{path}.{one}", filling, named) for one in range(2 if filling == "full" else 0)]
        case {"type": "map", "values": values}:
            return {"a key": filled(values, f"{path}.value", filling, named)} if filling == "full" else {}
        case {"type": plain}:
            return filled(plain, path, filling, named)
    raise ValueError(f"Expected an Avro schema at {path}, but found {schema!r}.")


def _primitive(name: str, path: str) -> tuple[Any, Any]:
    values: dict[str, tuple[Any, Any]] = {
        "null": (None, None), "boolean": (True, False), "int": (1 + len(path), 0), "long": (1 + len(path), 0), "float": (0.5, 0.0),
        "double": (0.5, 0.0), "string": (f"{path} \u2713", ""), "bytes": (b'{"at":"%s"}' % path.encode(), b""),
    }  # fmt: skip
    return values[name]


def named_in(schema: Any) -> Iterator[tuple[str, Any]]:
    """Yield every named type that a schema defines, also in branches that no value takes."""
    match schema:
        case {"type": "record", "fields": fields}:
            yield f"{schema['namespace']}.{schema['name']}", schema
            for one in fields:
                yield from named_in(one["type"])
        case {"type": "enum"}:
            yield f"{schema['namespace']}.{schema['name']}", schema
        case {"items": inner} | {"values": inner}:
            yield from named_in(inner)
        case list():
            for one in schema:
                yield from named_in(one)


def on_the_wire(event: str, schema: Schema, filling: str) -> tuple[bytes, Any]:
    """Return the bytes of a golden record, and what was written into them."""
    value = filled(schema, event, filling, dict(named_in(schema)))
    buffer = io.BytesIO(PREFIX.pack(MAGIC, schema_id(schema)))
    buffer.seek(0, io.SEEK_END)
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(without_logical_types(schema)), value)
    return buffer.getvalue(), value


def plain(value: Any) -> Any:
    """Return a value as JSON holds it: bytes as Base64."""
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case dict():
            return {name: plain(one) for name, one in value.items()}
        case list() | tuple():
            return [plain(one) for one in value]
        case _:
            return value


def golden_log() -> list[Any]:
    """Return every golden record as one log: a partition for each version, so that a new one moves no other."""
    log: list[Any] = []
    for file in sorted(FOLDER.glob("*/v*.json")):
        kept = json.loads(file.read_text())
        version, filling = file.name.split(".")[:2]
        log.append(
            SimpleNamespace(
                topic=EVENT_TYPES[file.parent.name].topic.name, partition=int(version[1:]), key=file.parent.name.encode(),
                offset=2 * sorted(EVENT_TYPES).index(file.parent.name) + FILLINGS.index(filling), event=file.parent.name,
                timestamp=BEGUN_MILLISECONDS + int(version[1:]), value=bytes.fromhex(kept["wire"]), written=kept["written"],
            )
        )  # fmt: skip
    return sorted(log, key=lambda one: (one.topic, one.partition, one.offset))
