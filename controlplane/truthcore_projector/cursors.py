"""What questions are asked of: one snapshot of a database, or one of each shard as if they were one.

A question is a handful of statements. Each holds for one shard by itself, because what it joins lies in one shard (a job's rows, a subject's); `tail` (order and
limit, by names of the result) and `gather` (over `parts`, the shards' results end to end) say how the whole follows from the parts.

A statement about names (jobs, subjects) says so in `about`, and has `{near}` where each part puts the condition on `log_time` that rows about them meet there.
"""

import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

import duckdb
import pyarrow as pa

from controlplane.truthcore_projector.whereabouts import EVERYWHERE

WHOLE: Final = "SELECT * FROM parts"
DISTINCT: Final = "SELECT DISTINCT * FROM parts"
_ENDS_WITH_ORDER: Final = re.compile(r"\b(ORDER\s+BY|LIMIT)\b[^()]*$", re.IGNORECASE)
_POOL: Final = ThreadPoolExecutor(32, "part")
"""Statements wait in it for other processes; what they cost, they cost there."""

_OWN: Final = threading.local()


def _scratch() -> duckdb.DuckDBPyConnection:
    """Return this thread's own empty database, in which parts are put together: opening one takes longer than most questions."""
    if not hasattr(_OWN, "scratch"):
        _OWN.scratch = duckdb.connect(":memory:", config={"threads": 1})
        _OWN.scratch.execute("SET TimeZone = 'UTC'")
    own: duckdb.DuckDBPyConnection = _OWN.scratch
    return own


Parameters = Sequence[Any] | dict[str, Any]
NEAR: Final = "{near}"
VALUES_LIMIT: Final = 200

FINDING: Final[WeakKeyDictionary[duckdb.DuckDBPyConnection, Callable[[tuple[str, ...]], str]]] = WeakKeyDictionary()
"""What says of a cursor where names are in its snapshot; one without reads everything."""


def _placed(cursor: duckdb.DuckDBPyConnection, query: str, about: Sequence[str]) -> str:
    if NEAR not in query:
        return query
    finding = FINDING.get(cursor)
    return query.replace(NEAR, finding(tuple(about)) if finding else EVERYWHERE)


class Part(Protocol):
    """A snapshot of one shard."""

    def table(self, query: str, parameters: Parameters, about: Sequence[str] = ()) -> pa.Table:
        """Return the rows of a statement."""


class Snapshot:
    """A snapshot in this process, as a part."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Take a cursor in a transaction."""
        self._cursor = cursor

    def table(self, query: str, parameters: Parameters, about: Sequence[str] = ()) -> pa.Table:
        """Return the rows of a statement."""
        given = parameters if isinstance(parameters, dict) else list(parameters)
        return self._cursor.sql(_placed(self._cursor, query, about), params=given).to_arrow_table()


class Gathered:
    """The snapshots of all shards, asked as one."""

    def __init__(self, parts: Sequence[Part]) -> None:
        """Take one snapshot of each shard."""
        self.parts = list(parts)

    def tables(self, query: str, parameters: Parameters = (), about: Sequence[str] = ()) -> list[pa.Table]:
        """Return the rows of a statement, part by part."""
        return list(_POOL.map(lambda part: part.table(query, parameters, about), self.parts))

    def found(
        self, query: str, parameters: Parameters, tail: str, gather: str, about: Sequence[str]
    ) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Return the names of the columns and the rows of a statement over all parts.

        Raises:
            ValueError: the statement orders or limits by itself, which would hold within each part only.
        """
        if _ENDS_WITH_ORDER.search(query):
            raise ValueError(f"Expected order and limit as `tail`, but found them in: {query[-200:]}")
        whole = pa.concat_tables(self.tables(f"{query} {tail}", parameters, about))
        if tail or gather != WHOLE:
            scratch = _scratch()
            scratch.register("parts", whole)
            try:
                whole = scratch.sql(f"{gather} {tail}").to_arrow_table()
            finally:
                scratch.unregister("parts")
        columns = [column.to_pylist() for column in whole.columns]
        return whole.column_names, list(zip(*columns, strict=True)) if columns else []


class Bounded:
    """A cursor whose statements see other definitions of the tables and views, for example bounded to a moment."""

    def __init__(self, whole: "Cursor", definitions: str) -> None:
        """Take a cursor and what stands behind WITH."""
        self.whole = whole
        self._definitions = definitions

    def seen(self, query: str) -> str:
        """Return a SELECT, or a WITH that is not recursive, over these definitions."""
        begun = query.lstrip()
        rest = f", {begun[4:]}" if begun.startswith("WITH") else f" {begun}"
        return f"WITH {self._definitions}{rest}"


Cursor = duckdb.DuckDBPyConnection | Gathered | Bounded


def _run(
    cursor: Cursor, query: str, parameters: Parameters, tail: str, gather: str, about: Sequence[str]
) -> tuple[list[str], list[tuple[Any, ...]]]:
    if isinstance(cursor, Bounded):
        return _run(cursor.whole, cursor.seen(query), parameters, tail, gather, about)
    if isinstance(cursor, Gathered):
        return cursor.found(query, parameters, tail, gather, about)
    query = _placed(cursor, query, about)
    result = cursor.execute(f"{query} {tail}", parameters if isinstance(parameters, dict) else list(parameters))
    return [column[0] for column in result.description or []], result.fetchall()


def table(cursor: Cursor, query: str) -> pa.Table:
    """Return the rows of a statement as columns, those of all parts end to end."""
    if isinstance(cursor, Bounded):
        return table(cursor.whole, cursor.seen(query))
    if isinstance(cursor, Gathered):
        return pa.concat_tables(cursor.tables(query))
    return cursor.sql(query).to_arrow_table()


def tuples(
    cursor: Cursor,
    query: str,
    parameters: Parameters = (),
    *,
    tail: str = "",
    gather: str = WHOLE,
    about: Sequence[str] = (),
) -> list[tuple[Any, ...]]:
    """Return the rows of a statement as tuples; times as the tables hold them."""
    return _run(cursor, query, parameters, tail, gather, about)[1]


def rows(
    cursor: Cursor,
    query: str,
    parameters: Parameters = (),
    *,
    tail: str = "",
    gather: str = WHOLE,
    about: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Return the rows of a statement by column name; times are UTC."""
    names, some = _run(cursor, query, parameters, tail, gather, about)
    return [{name: _utc(value) for name, value in zip(names, row, strict=True)} for row in some]


def among(column: str, values: Sequence[Any]) -> tuple[str, list[Any]]:
    """Return the condition that a column has one of these values, and its parameters: few as values, which the scan itself compares."""
    if len(values) == 1:
        return f"{column} = ?", list(values)
    if len(values) <= VALUES_LIMIT:
        return f"{column} IN ({', '.join('?' * len(values))})", list(values)
    return f"{column} IN (SELECT unnest(?))", [list(values)]


def _utc(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
