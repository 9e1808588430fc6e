"""The Avro 1.12 binary encoding of single values, as the generated encoders use it (specification, "Binary Encoding")."""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

NULL: Final = b"\x00"
PRESENT: Final = b"\x02"
"""Branch 1 of a union ["null", type]."""

_DOUBLE: Final = struct.Struct("<d")
_TABLE_SIZE: Final = 4096


def _variable_length(value: int) -> bytes:
    bits = (value << 1) ^ (value >> 63)
    encoded = bytearray()
    while bits > 0x7F:
        encoded.append(bits & 0x7F | 0x80)
        bits >>= 7
    encoded.append(bits)
    return bytes(encoded)


_SMALL: Final = tuple(_variable_length(value) for value in range(_TABLE_SIZE))


def long(value: int) -> bytes:
    """Encode an int or a long: zig-zag, then 7 bits a byte."""
    return _SMALL[value] if 0 <= value < _TABLE_SIZE else _variable_length(value)


def text(value: str) -> bytes:
    """Encode a string: its length in bytes, then UTF-8."""
    encoded = value.encode()
    size = len(encoded)
    return (_SMALL[size] if size < _TABLE_SIZE else _variable_length(size)) + encoded


def blob(value: bytes) -> bytes:
    """Encode bytes: their length, then they themselves."""
    return long(len(value)) + value


def double(value: float) -> bytes:
    """Encode a double: IEEE 754, little-endian."""
    return _DOUBLE.pack(value)


def boolean(value: bool) -> bytes:  # noqa: FBT001 -- an encoder takes the value by position like its siblings
    """Encode a boolean: one byte."""
    return b"\x01" if value else b"\x00"


def array(items: Sequence[T], encode: Callable[[T], bytes]) -> bytes:
    """Encode an array: one block of all items, then the empty block."""
    return b"".join((long(len(items)), *map(encode, items), NULL)) if items else NULL


def mapping(items: Mapping[str, T], encode: Callable[[T], bytes]) -> bytes:
    """Encode a map: one block of all entries, then the empty block."""
    if not items:
        return NULL
    return b"".join((long(len(items)), *(text(key) + encode(value) for key, value in items.items()), NULL))
