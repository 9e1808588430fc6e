"""Where in time the log speaks of a name: with it, a question about one job or subject does not read everything.

Rows lie in every table in the order in which they came, so the database passes over what is outside of a span of `log_time`. A *stretch* is what was
written in a row: its span, and the CRC-32 of every name in it. All rows about a name lie in the stretches that have its CRC; one that has it by
chance costs its reading. A name takes four bytes per stretch, however many rows share it.
"""

import zlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

import duckdb
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from controlplane.truthcore_projector.decode import Decoded
from controlplane.truthcore_projector.tables import TABLES, stored

STRETCH_RECORDS: Final = 50_000
"""Fewer make more stretches to look through, more make more rows to read for one name."""
SPANS_LIMIT: Final = 16
"""A condition of more spans takes longer to plan than it saves; those with the shortest gaps become one."""
RECOVERED_LIMIT: Final = 2_000_000
"""A file with more records outside of its stretches is from before there were any: it is read whole until it is folded again."""
EVERYWHERE: Final = "true"
NOWHERE: Final = "false"

STRETCHES: Final = (
    "CREATE TABLE IF NOT EXISTS stretches (since TIMESTAMP, until TIMESTAMP, names BLOB)",
    "CREATE TABLE IF NOT EXISTS stretched (topic VARCHAR, partition INTEGER, next_offset BIGINT, PRIMARY KEY (topic, partition))",
)
"""The stretches, and the positions that they reach to; the names behind those are looked for when the file is opened."""
NAMES: Final = [("events", "key")] + [
    (table, column) for table, columns in TABLES.items() for column in ("job_id", "subject", "assertion_id") if f"{column} VARCHAR" in columns
]  # fmt: skip
"""The columns that hold names."""

Span = tuple[datetime, datetime]


class _Stretch(msgspec.Struct, kw_only=True):
    span: Span
    codes: npt.NDArray[np.uint32]
    """Sorted."""

    def has(self, codes: npt.NDArray[np.uint32]) -> bool:
        # Methods of the array: the functions of the same names take longer to find these than they to answer.
        return bool((self.codes.take(self.codes.searchsorted(codes), mode="clip") == codes).any())


class _Growing(msgspec.Struct, kw_only=True):
    span: Span | None = None
    codes: set[int] = msgspec.field(default_factory=set)
    records: int = 0


class Whereabouts:
    """The stretches of one file: kept by its one writer, asked by any thread."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Read what the file knows of itself, and look through what came after that."""
        self._connection = connection
        self._growing = _Growing()
        self._written: list[_Stretch] = []
        """Within the transaction that is open."""
        self._lost: list[_Stretch] = []
        """Written in one that was rolled back."""
        for statement in STRETCHES:
            connection.execute(statement)
        found = connection.execute("SELECT since, until, names FROM stretches").fetchall()
        self._stretches = [
            _Stretch(span=(since, until), codes=np.frombuffer(codes, "<u4")) for since, until, codes in found
        ]
        self._complete = self._recovered()

    def note(self, decoded: Decoded) -> None:
        """Take in a batch before its rows are committed, so that nobody sees rows which are not found; what never comes is looked for in vain."""
        times = [pc.min_max(table.column("_log_time")).as_py() for table in decoded.tables.values()]
        late = [
            datetime.fromtimestamp(one.record.timestamp / 1000, UTC).replace(tzinfo=None) for one in decoded.refused
        ]
        spans = [(one["min"], one["max"]) for one in times] + [(one, one) for one in late]
        if spans:
            span = (min(since for since, _ in spans), max(until for _, until in spans))
            self._grow(span, names_in(decoded), sum(map(len, decoded.tables.values())) + len(late))

    def begin(self) -> None:
        """Note that a transaction begins: what was written in one before, and is not saved, was rolled back."""
        self._lost += self._written
        self._written = []

    def save(self, *, all_of_it: bool = False) -> None:
        """Write, within the transaction of a batch and behind its positions, the stretch that is long enough, and those of one that was rolled back."""
        grown = self._growing
        if not self._complete or grown.span is None:
            return
        if grown.records < STRETCH_RECORDS and not self._lost and not all_of_it:
            return
        # Whoever looks meanwhile finds the names in one place or in both.
        stretch = _Stretch(span=grown.span, codes=np.array(sorted(grown.codes), "<u4"))
        self._stretches.append(stretch)
        self._growing = _Growing()
        missing, self._lost = [*self._lost, stretch], []
        self._written += missing
        for one in missing:
            self._connection.execute("INSERT INTO stretches VALUES (?, ?, ?)", [*one.span, one.codes.tobytes()])
        self._connection.execute("INSERT OR REPLACE INTO stretched FROM positions")

    def saved(self) -> None:
        """Note that the transaction was committed."""
        self._written.clear()

    def lose(self) -> None:
        """Read everything from now on, because rows come in by another way; the next opening looks for their names."""
        self._complete = False

    def condition(self, names: Iterable[str]) -> str:
        """Return the condition on `log_time` that every row about one of these names meets."""
        if not self._complete:
            return EVERYWHERE
        wanted = {zlib.crc32(name.encode()) for name in names}
        growing, stretches = self._growing, self._stretches[:]  # In this order: what grows becomes a stretch.
        codes = np.array(sorted(wanted), "<u4")
        spans = [one.span for one in stretches if one.has(codes)]
        if not wanted.isdisjoint(growing.codes) and growing.span is not None:
            spans.append(growing.span)
        return _within(spans)

    def _grow(self, span: Span, names: Iterable[bytes], records: int) -> None:
        growing = self._growing
        known = growing.span or span
        growing.span = (
            min(known[0], span[0]),
            max(known[1], span[1]),
        )  # Before the names: who finds one finds its span.
        growing.codes.update(map(zlib.crc32, names))
        growing.records += records

    def _recovered(self) -> bool:
        """Look for the names behind the stretches, of which nothing is archived yet; False if that would be most of the file."""
        behind = "FROM positions AS p LEFT JOIN stretched AS s ON s.topic = p.topic AND s.partition = p.partition"
        query = f"SELECT coalesce(sum(p.next_offset - coalesce(s.next_offset, 0)), 0) {behind}"
        (records,) = self._connection.execute(query).fetchone() or (0,)
        if not 0 < records <= RECOVERED_LIMIT:
            return bool(records == 0)
        for table, column in NAMES:
            query = f"""SELECT list(DISTINCT t.{column}), min(t.log_time), max(t.log_time) FROM {stored(table)} AS t
              LEFT JOIN stretched AS s ON s.topic = t.topic AND s.partition = t.partition
              WHERE t."offset" >= coalesce(s.next_offset, 0) AND t.{column} IS NOT NULL"""
            names, since, until = self._connection.execute(query).fetchone() or (None, None, None)
            if names and since is None:
                return False  # Rows without a time are found by reading everything.
            if names:
                self._grow((since, until), map(_bytes, names), 0)
        self._growing.records = int(records)
        return True


def names_in(decoded: Decoded) -> set[bytes]:
    """Return every name that a batch speaks of: keys, jobs, subjects and assertions."""
    found: set[Any] = {one.record.key for one in decoded.refused}
    for event_type, table in decoded.tables.items():
        columns = [
            table.column(name) for name in ("_key", "job_id", "subject", "assertion_id") if name in table.column_names
        ]
        if event_type == "TruthAsserted":
            columns += [pc.struct_field(chunk, "event_id") for chunk in table.column("header").chunks]
            columns += [pc.struct_field(chunk, "job_id") for chunk in table.column("evidence").chunks]
        for column in columns:
            found.update(pc.unique(column).cast(pa.binary()).to_pylist())
    return found - {None}


def _bytes(name: str | bytes) -> bytes:
    return name if isinstance(name, bytes) else name.encode()


def _within(spans: Sequence[Span]) -> str:
    """Return the condition that `log_time` is in one of the spans."""
    if not spans:
        return NOWHERE
    apart: list[Span] = []
    for since, until in sorted(spans):
        if apart and since <= apart[-1][1]:
            apart[-1] = (apart[-1][0], max(apart[-1][1], until))
        else:
            apart.append((since, until))
    breaks = sorted(range(1, len(apart)), key=lambda place: apart[place][0] - apart[place - 1][1])[1 - SPANS_LIMIT :]
    edges = [0, *sorted(breaks), len(apart)]
    few = [(apart[first][0], apart[end - 1][1]) for first, end in pairwise(edges)]
    each = [f"log_time BETWEEN TIMESTAMP '{since}' AND TIMESTAMP '{until}'" for since, until in few]
    return f"({' OR '.join(each)})"
