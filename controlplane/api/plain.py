"""Records of the log as plain JSON values, for answers that people and programs read."""

from typing import Any

import msgspec
from pydantic_core import from_json

from controlplane.events.codec import UndecodableRecord, decode


def json_value(data: bytes | None) -> Any:
    """Return what bytes hold as JSON, or say that they do not."""
    if not data:
        return None
    try:
        return from_json(data, allow_inf_nan=False)
    except ValueError:
        return f"{len(data)} bytes that are not JSON"


def plain_event(event: Any) -> Any:
    """Return an event as JSON values: bytes that hold JSON as that JSON, other bytes as text or their size."""
    fields = msgspec.to_builtins(event, builtin_types=(bytes,))

    def readable(value: Any) -> Any:
        match value:
            case bytes():
                return (
                    json_value(value)
                    if value[:1] in b'{["0123456789tfn'
                    else value.decode("utf-8", "backslashreplace")[:2000]
                )
            case dict():
                return {name: readable(one) for name, one in value.items()}
            case list() | tuple():
                return [readable(one) for one in value]
            case _:
                return value

    return readable(fields)


def plain_record(value: bytes | None) -> dict[str, Any]:
    """Return the event of a record's value as JSON values, or say why it is none."""
    try:
        found: dict[str, Any] = plain_event(decode(value or b""))
    except UndecodableRecord as error:
        return {"undecodable": str(error), "value": (value or b"")[:200].decode("utf-8", "backslashreplace")}
    return found
