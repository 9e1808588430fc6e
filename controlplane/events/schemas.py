"""The Avro schemas: read from their files, made self-contained, identified by their fingerprint."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from fastavro.schema import to_parsing_canonical_form

Schema = dict[str, Any]

NAMESPACE: Final = "controlplane.events"
PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


class SchemaMissing(LookupError):
    """A schema names a type that no file in the schema folder defines."""


def schema_folder() -> Path:
    """Return the folder of the schemas: inside of the installed package, or at the root of a checkout."""
    installed = Path(str(files("controlplane"))) / "_schemas"
    return installed if installed.is_dir() else Path(str(files("controlplane"))).parent / "schemas"


def read_files(folder: Path) -> dict[str, Schema]:
    """Return every schema of a folder as written, by full name."""
    written = (json.loads(path.read_text()) for path in sorted(folder.glob("*.avsc")))
    return {f"{schema['namespace']}.{schema['name']}": schema for schema in written}


@cache
def written_schemas() -> Mapping[str, Schema]:
    """Return the schemas of the contract in force, as written: shared types are named, not repeated."""
    return read_files(schema_folder() / "avro")


def self_contained(name: str, schemas: Mapping[str, Schema]) -> Schema:
    """Return one schema with each shared type defined at its first use, as stock Avro tools expect it.

    Raises:
        SchemaMissing: a type is used that `schemas` does not define.
    """
    defined: set[str] = set()

    def inline(schema: Any) -> Any:
        match schema:
            case str() if schema in PRIMITIVES or schema in defined:
                return schema
            case str() if schema in schemas:
                return inline(schemas[schema])
            case str():
                raise SchemaMissing(f"Expected a file that defines {schema}, used by {name}, but there is none.")
            case list():
                return [inline(branch) for branch in schema]
            case {"type": "array", "items": items}:
                return schema | {"items": inline(items)}
            case {"type": "map", "values": values}:
                return schema | {"values": inline(values)}
            case {"type": "record", "fields": fields}:
                defined.add(f"{schema['namespace']}.{schema['name']}")
                return schema | {"fields": [field | {"type": inline(field["type"])} for field in fields]}
            case {"type": "enum"}:
                defined.add(f"{schema['namespace']}.{schema['name']}")
                return schema
            case _:
                return schema

    inlined: Schema = inline(name)
    return inlined


def without_logical_types(schema: Any) -> Any:
    """Return the schema with plain integers for instants: what the services count with."""
    match schema:
        case dict():
            return {key: without_logical_types(value) for key, value in schema.items() if key != "logicalType"}
        case list():
            return [without_logical_types(branch) for branch in schema]
        case _:
            return schema


def schema_id(schema: Schema) -> int:
    """Return the id of a schema: a positive 32-bit number from the SHA-256 of its parsing canonical form (Avro 1.12)."""
    canonical = to_parsing_canonical_form(schema)
    return int.from_bytes(hashlib.sha256(canonical.encode()).digest()[:4], "big") & 0x7FFFFFFF or 1


def released_schemas() -> Iterator[tuple[str, int, Schema]]:
    """Yield (full name, version, self-contained schema) of every schema version that was ever released."""
    for path in sorted((schema_folder() / "released").glob("*/v*.avsc")):
        schema = json.loads(path.read_text())
        yield f"{schema['namespace']}.{schema['name']}", int(path.stem.removeprefix("v")), schema
