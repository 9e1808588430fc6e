"""Write `controlplane/events/types.py` from the Avro schemas: `python -m controlplane.events.generate`."""

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from controlplane.events.schemas import Schema, written_schemas

TARGET = Path(__file__).with_name("types.py")
HEADING = '''"""The events as Python values. Generated from schemas/avro by `make schemas`: do not edit."""

from enum import StrEnum

import msgspec
'''
PYTHON_TYPES = {
    "string": "str", "bytes": "bytes", "int": "int", "long": "int", "float": "float", "double": "float", "boolean": "bool",
}  # fmt: skip


def dependencies(schema: Any) -> Iterator[str]:
    """Yield the names of the shared types that a schema uses."""
    match schema:
        case str() if "." in schema:
            yield schema
        case list():
            for branch in schema:
                yield from dependencies(branch)
        case {"type": "record", "fields": fields}:
            for field in fields:
                yield from dependencies(field["type"])
        case {"items": inner} | {"values": inner}:
            yield from dependencies(inner)


def in_order_of_use(schemas: Mapping[str, Schema]) -> list[str]:
    """Return the names so that each type comes after the types that it uses."""
    ordered: dict[str, None] = {}

    def visit(name: str) -> None:
        for used in dependencies(schemas[name]):
            visit(used)
        ordered.setdefault(name)

    for name in sorted(schemas):
        visit(name)
    return list(ordered)


def annotation(schema: Any) -> str:
    """Return the Python annotation of a field's schema."""
    match schema:
        case str() if schema in PYTHON_TYPES:
            return PYTHON_TYPES[schema]
        case str():
            return schema.rpartition(".")[2]
        case ["null", inner]:
            return f"{annotation(inner)} | None"
        case {"type": "array", "items": items}:
            return f"tuple[{annotation(items)}, ...]"
        case {"type": "map", "values": values}:
            return f"dict[str, {annotation(values)}]"
        case {"type": inner}:
            return annotation(inner)
        case _:
            raise ValueError(f"Expected a nullable, array, map, record, enum or primitive type, but found {schema!r}.")


def default(field: Schema, schemas: Mapping[str, Schema]) -> str:
    """Return the Python default of a field, or nothing."""
    if "default" not in field:
        return ""
    value = field["default"]
    match field["type"]:
        case {"type": "array"}:
            return " = ()"
        case {"type": "map"}:
            return " = {}"
        case "bytes":
            return f" = {value.encode('latin-1')!r}"
        case str() as name if name in schemas:
            return f" = {annotation(name)}.{value}"
        case _:
            return f" = {value!r}"


def render(name: str, schemas: Mapping[str, Schema]) -> str:
    """Return the class of one schema."""
    schema = schemas[name]
    doc = f'    """{schema["doc"]}"""'
    if schema["type"] == "enum":
        members = "\n".join(f'    {symbol} = "{symbol}"' for symbol in schema["symbols"])
        return f"class {schema['name']}(StrEnum):\n{doc}\n\n{members}\n"
    fields = []
    for field in schema["fields"]:
        fields.append(f"    {field['name']}: {annotation(field['type'])}{default(field, schemas)}")
        fields.append(textwrap.indent(f'"""{field["doc"]}"""', "    "))
    return f"class {schema['name']}(msgspec.Struct, frozen=True, kw_only=True):\n{doc}\n\n" + "\n".join(fields) + "\n"


def generated(schemas: Mapping[str, Schema]) -> str:
    """Return the whole module as text."""
    return HEADING + "".join(f"\n\n{render(name, schemas)}" for name in in_order_of_use(schemas))


if __name__ == "__main__":
    TARGET.write_text(generated(written_schemas()))
    print(f"wrote {TARGET.name} from {len(written_schemas())} schemas")
