"""Write `types.py` and `encoders.py` from the Avro schemas: `python -m controlplane.events.generate`."""

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from controlplane.events.schemas import Schema, written_schemas

TYPES: Final = Path(__file__).with_name("types.py")
ENCODERS: Final = Path(__file__).with_name("encoders.py")
TYPES_HEADING: Final = '''"""The events as Python values. Generated from schemas/avro by `make schemas`: do not edit."""

from enum import StrEnum

import msgspec
'''
ENCODERS_HEADING: Final = '''"""The events as Avro datums. Generated from schemas/avro by `make schemas`: do not edit."""

# fmt: off
# ruff: noqa: E501, N802 -- one field a line, functions named like the records they encode

from controlplane.events import types
from controlplane.events.avro_binary import NULL, PRESENT, array, blob, boolean, double, long, mapping, text
'''
PYTHON_TYPES: Final = {
    "string": "str",
    "bytes": "bytes",
    "int": "int",
    "long": "int",
    "double": "float",
    "boolean": "bool",
}
PRIMITIVE_ENCODERS: Final = {
    "string": "text",
    "bytes": "blob",
    "int": "long",
    "long": "long",
    "double": "double",
    "boolean": "boolean",
}


class UnsupportedSchema(ValueError):
    """A schema uses a type that the generated code has no form for."""

    def __init__(self, schema: Any) -> None:
        super().__init__(f"Expected a nullable, array, map, record, enum or primitive type, but found {schema!r}.")


def dependencies(schema: Any) -> Iterator[str]:
    """Yield the names of the shared types that a schema uses."""
    match schema:
        case {"type": "record", "fields": fields}:
            for field in fields:
                yield from dependencies(field["type"])
        case {"items": inner} | {"values": inner}:
            yield from dependencies(inner)
        case list():
            for branch in schema:
                yield from dependencies(branch)
        case str() if "." in schema:
            yield schema


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


def short(name: str) -> str:
    """Return a full name without its namespace."""
    return name.rpartition(".")[2]


def annotation(schema: Any) -> str:
    """Return the Python annotation of a field's schema."""
    match schema:
        case str() if schema in PYTHON_TYPES:
            return PYTHON_TYPES[schema]
        case str():
            return short(schema)
        case ["null", inner]:
            return f"{annotation(inner)} | None"
        case {"type": "array", "items": items}:
            return f"tuple[{annotation(items)}, ...]"
        case {"type": "map", "values": values}:
            return f"dict[str, {annotation(values)}]"
        case {"type": str() as inner}:
            return annotation(inner)
        case _:
            raise UnsupportedSchema(schema)


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
            return f' = b"{value}"'
        case str() as name if name in schemas:
            return f" = {annotation(name)}.{value}"
        case _:
            return f' = "{value}"' if isinstance(value, str) else f" = {value!r}"


def render_type(name: str, schemas: Mapping[str, Schema]) -> str:
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


def encoder(schema: Any) -> str:
    """Return the name of the function that encodes a value of the schema."""
    match schema:
        case str() if schema in PRIMITIVE_ENCODERS:
            return PRIMITIVE_ENCODERS[schema]
        case str():
            return f"encode_{short(schema)}"
        case {"type": str() as inner} if inner not in {"array", "map"}:
            return encoder(inner)
        case _:
            raise UnsupportedSchema(schema)


def encoding(schema: Any, value: str) -> str:
    """Return the expression that encodes `value` as the schema says."""
    match schema:
        case ["null", inner]:
            name = value.rpartition(".")[2]
            return f"NULL if ({name} := {value}) is None else PRESENT + {encoding(inner, name)}"
        case {"type": "array", "items": items}:
            return f"array({value}, {encoder(items)})"
        case {"type": "map", "values": values}:
            return f"mapping({value}, {encoder(values)})"
        case _:
            return f"{encoder(schema)}({value})"


def render_encoder(name: str, schemas: Mapping[str, Schema]) -> str:
    """Return the encoder of one schema."""
    schema = schemas[name]
    own = schema["name"]
    if schema["type"] == "enum":
        table = "".join(f'    "{symbol}": long({index}),\n' for index, symbol in enumerate(schema["symbols"]))
        return f"_{own.upper()} = {{\n{table}}}\n\n\ndef encode_{own}(event: types.{own}) -> bytes:\n    return _{own.upper()}[event]\n"
    fields = "".join(
        f"            {encoding(field['type'], 'event.' + field['name'])},\n" for field in schema["fields"]
    )
    body = f'    return b"".join(\n        (\n{fields}        )\n    )\n'
    return f"def encode_{own}(event: types.{own}) -> bytes:\n{body}"


def generated(schemas: Mapping[str, Schema]) -> dict[Path, str]:
    """Return the text of each generated module."""
    names = in_order_of_use(schemas)
    return {
        TYPES: TYPES_HEADING + "".join(f"\n\n{render_type(name, schemas)}" for name in names),
        ENCODERS: ENCODERS_HEADING + "".join(f"\n\n{render_encoder(name, schemas)}" for name in names),
    }


if __name__ == "__main__":
    for path, content in generated(written_schemas()).items():
        path.write_text(content)
        print(f"wrote {path.name} from {len(written_schemas())} schemas")
