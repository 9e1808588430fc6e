"""Which datums of a batch end exactly where their records end, walked over column by column with NumPy.

An Avro reader takes the datums of a block one after another and trusts each to end where the next begins. One record with a byte
too many shifts all that follow, and some readers then never return. So every record's extent is checked before they are joined.

Source: Avro 1.12 specification, "Binary Encoding".
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

VARINT_BYTES: Final = 10
FIXED_SIZES: Final = {"null": 0, "boolean": 1, "float": 4, "double": 8}

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def whole(schema: Any, datums: Sequence[bytes]) -> Flags:
    """Return for each datum whether the schema's fields take up exactly its bytes; values of strings are not looked at."""
    ends = np.cumsum(np.fromiter(map(len, datums), np.int64, len(datums)))
    starts = np.concatenate(([0], ends[:-1])) if len(datums) else ends
    return whole_within(schema, np.frombuffer(b"".join(datums) + b"\0", np.uint8), starts, ends)


def whole_within(schema: Any, buffer: npt.NDArray[np.uint8], starts: Integers, ends: Integers) -> Flags:
    """Return the same for datums that lie in one buffer, which has at least one byte behind the last of them."""
    walk = _Walk(buffer, starts, ends, dict(_named(schema)))
    walk.over(schema, np.arange(len(starts)))
    fits: Flags = walk.fits & (walk.at == walk.end)
    return fits


def _named(schema: Any) -> Iterator[tuple[str, Any]]:
    """Yield the types that a schema names; one may be defined in a branch that no datum of a batch takes."""
    match schema:
        case list():
            for branch in schema:
                yield from _named(branch)
        case dict():
            if "name" in schema:
                yield schema["name"], schema
                yield f"{schema.get('namespace', '')}.{schema['name']}", schema
            parts = [field["type"] for field in schema.get("fields", ())]
            for part in (*parts, schema.get("items"), schema.get("values"), schema["type"]):
                yield from _named(part)


class _Walk:
    """Where each datum has been walked to, in one buffer that holds them all."""

    def __init__(
        self, buffer: npt.NDArray[np.uint8], starts: Integers, ends: Integers, named: dict[str, Any]
    ) -> None:  # fmt: skip
        self.end = ends
        self.at = starts.copy()
        self.fits: Flags = np.ones(len(starts), np.bool_)
        self.buffer = buffer
        self.named = named

    def over(self, schema: Any, who: Integers) -> None:
        """Step over one value of a schema in each of these datums; one that does not have it no longer fits and stands still."""
        match schema:
            case "int" | "long":
                self._number(who)
            case "string" | "bytes":
                self._stretch(who)
            case str() if schema in FIXED_SIZES:
                self._skip(who, np.full(len(who), FIXED_SIZES[schema], np.int64))
            case str():
                self.over(self.named[schema], who)
            case list():
                self._union(schema, who)
            case {"type": "record", "fields": fields}:
                for field in fields:
                    self.over(field["type"], who)
            case {"type": "enum", "symbols": symbols}:
                self._choice(who, len(symbols))
            case {"type": "array", "items": items}:
                self._blocks([items], who)
            case {"type": "map", "values": values}:
                self._blocks(["string", values], who)
            case {"type": plain}:
                self.over(plain, who)

    def _skip(self, who: Integers, sizes: Integers) -> None:
        """Move on by so many bytes where the datum has them."""
        good = self.fits[who] & (sizes >= 0) & (sizes <= self.end[who] - self.at[who])
        self.fits[who[~good]] = False
        self.at[who] += np.where(good, sizes, 0)

    def _number(self, who: Integers) -> Integers:
        """Return the number that each datum has here, zero where it has none, and move on behind it."""
        at, end = self.at[who], self.end[who]
        first = self.buffer[at]
        value = (first & 0x7F).astype(np.uint64)
        size = np.ones(len(who), np.int64)
        going = np.flatnonzero((first >= 0x80) & (at < end))
        for place in range(1, VARINT_BYTES):
            if not len(going):
                break
            byte = self.buffer[np.minimum(at[going] + place, end[going])]
            value[going] |= (byte & 0x7F).astype(np.uint64) << np.uint64(7 * place)
            size[going] += 1
            going = going[(byte >= 0x80) & (at[going] + place < end[going])]
        self.fits[who[going]] = False
        self._skip(who, size)
        half = (value >> np.uint64(1)).astype(np.int64)
        signed: Integers = half ^ -(value & np.uint64(1)).astype(np.int64)
        return np.where(self.fits[who], signed, 0)

    def _stretch(self, who: Integers) -> None:
        self._skip(who, self._number(who))

    def _union(self, branches: list[Any], who: Integers) -> None:
        chosen = self._choice(who, len(branches))
        for number, branch in enumerate(branches):
            those = who[(chosen == number) & self.fits[who]]
            if branch != "null" and len(those):
                self.over(branch, those)

    def _choice(self, who: Integers, size: int) -> Integers:
        """Return which of so many branches or symbols each datum has here."""
        chosen = self._number(who)
        self.fits[who[(chosen < 0) | (chosen >= size)]] = False
        return chosen

    def _blocks(self, items: list[Any], who: Integers) -> None:
        """Step over the blocks of an array or a map: a count, then so many items, until a count of zero."""
        while len(who):
            count = self._number(who)
            sized = who[count < 0]
            if len(sized):
                self._number(sized)
            count = np.abs(count)
            more = self.fits[who] & (count > 0)
            who, left = who[more], count[more]
            inside = who
            while len(inside):
                for item in items:
                    self.over(item, inside)
                left = left - 1
                more = self.fits[inside] & (left > 0)
                inside, left = inside[more], left[more]
            who = who[self.fits[who]]
