"""Whatever the events hold, their bytes are Avro: fastavro reads them, and writes the same."""

import io
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.events import types
from controlplane.events.catalog import EVENT_TYPES
from controlplane.events.codec import PREFIX_BYTES, UndecodableRecord, current_schemas, decode, encode

TEXT = st.text(max_size=40)


PRIMITIVES: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXT,
    "bytes": st.binary(max_size=60),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(allow_nan=False),
    "boolean": st.booleans(),
}


def values(schema: Any, named: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return values of an Avro schema as fastavro gives them, so that msgspec turns them into events."""
    match schema:
        case str() if schema in named:
            return values(named[schema], named)
        case str():
            return PRIMITIVES[schema]
        case ["null", inner]:
            return st.none() | values(inner, named)
        case {"type": "array", "items": items}:
            return st.lists(values(items, named), max_size=3)
        case {"type": "map", "values": inner}:
            return st.dictionaries(TEXT, values(inner, named), max_size=3)
        case {"type": "enum", "symbols": symbols}:
            named[f"{schema['namespace']}.{schema['name']}"] = schema
            return st.sampled_from(symbols)
        case {"type": "record", "fields": fields}:
            named[f"{schema['namespace']}.{schema['name']}"] = schema
            return st.fixed_dictionaries({field["name"]: values(field["type"], named) for field in fields})
        case {"type": inner}:
            return values(inner, named)
    raise AssertionError(schema)


@pytest.mark.parametrize("name", sorted(EVENT_TYPES))
@given(data=st.data())
def test_bytes_equal_fastavros_and_come_back(name: str, data: st.DataObject) -> None:
    schema = current_schemas()[name]
    fields = data.draw(values(schema.schema, {}))
    event = msgspec.convert(fields, EVENT_TYPES[name].event)
    written = io.BytesIO()
    fastavro.schemaless_writer(written, schema.parsed, msgspec.to_builtins(event, builtin_types=(bytes,)))
    assert encode(event)[PREFIX_BYTES:] == written.getvalue()
    assert decode(encode(event)) == event


@given(value=st.binary(max_size=80))
def test_garbage_is_refused_with_words(value: bytes) -> None:
    for candidate in (value, b"\0" + value, current_schemas()["JobSubmitted"].prefix + value):
        assert isinstance(outcome(candidate), types.JobSubmitted) or str(outcome(candidate)).startswith("Expected ")


def outcome(value: bytes) -> Any:
    """Return what decoding gives: an event, or the refusal."""
    try:
        return decode(value)
    except UndecodableRecord as error:
        return error
