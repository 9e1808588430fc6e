"""Read-only SQL for strangers: one SELECT, in a transaction that cannot write, with limits on time, rows and bytes, a few at once.

What the statement cannot do is held by the database and not by reading the statement: its type says SELECT also for
`WITH x AS (INSERT ...) SELECT ...`, but a read-only transaction refuses the insert. Files, extensions and settings are out of reach
because the store switches external access off and locks the configuration.
"""

import asyncio
import math
import re
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import date, datetime
from typing import Any, Final

import duckdb
import pyarrow as pa
from pydantic_core import to_json

from controlplane.api.models import SqlRequest
from controlplane.api.problems import refused
from controlplane.log.positions import Partition
from controlplane.truthcore_projector.cursors import Cursor, Gathered, tuples
from controlplane.truthcore_projector.past import world
from controlplane.truthcore_projector.reach import check_reach
from controlplane.truthcore_projector.store import Store, positions_in
from controlplane.truthcore_projector.tables import TABLES, stored
from controlplane.truthcore_projector.visibility import TENANTS, shut

SQL_SECONDS: Final = 10.0
JSON_ROWS: Final = 10_000
ROWS_LIMIT: Final = 1_000_000
ANSWER_BYTES: Final = 64 * 1024 * 1024
"""Of an answer as JSON, or as Arrow before Parquet compresses it: it is in memory several times, here and in the gateway, until it is sent."""
BATCH_ROWS: Final = 512
"""Bytes are counted batch by batch: of so few rows that what is too much is not copied whole before it is known, and so many that a million take no longer."""
AT_ONCE: Final = 2
"""Statements of one process: what each holds in memory comes on top of what the others do."""
TURN_SECONDS: Final = 5.0
TOGETHER_ROWS: Final = 1_000_000
"""Rows of one table that are brought together where the log is sharded."""
_FAULTS: Final = {"INTERRUPT Error": duckdb.InterruptException, "Out of Memory Error": duckdb.OutOfMemoryException}


def select(
    cursor: Cursor, body: SqlRequest, ends: Mapping[Partition, int] | None = None
) -> tuple[list[str], list[list[Any]], bool]:
    """Run one SELECT on a cursor in a read-only transaction; return its columns, its rows as JSON, and whether there were more.

    With `ends`, the first offsets that were not known yet, its tables and views are what the log knew before them.

    Raises:
        Refused: it is not one SELECT, it is wrong, or it went over a limit.
    """
    if body.limit_rows > JSON_ROWS:
        text = f"Expected at most {JSON_ROWS:,} rows as JSON; Arrow and Parquet take up to {ROWS_LIMIT:,}."
        raise refused("request_invalid", text, field="limit_rows", found=body.limit_rows)
    with _database(cursor, body.sql) as database, _limited(database):
        database.execute(_statement(database, body.sql, ends))
        columns = [column[0] for column in database.description or []]
        rows: list[list[Any]] = []
        size = 0
        while (row := database.fetchone()) is not None:
            if len(rows) == body.limit_rows:
                return columns, rows, True
            rows.append([_plain(value) for value in row])
            _fits(
                size + sum(len(value) for value in rows[-1] if isinstance(value, str))
            )  # Before they are copied as JSON.
            size = _fits(size + len(to_json(rows[-1])))
        return columns, rows, False


def select_table(
    cursor: Cursor, body: SqlRequest, ends: Mapping[Partition, int] | None = None
) -> tuple[pa.Table, bool]:
    """Run one SELECT as `select` does; return its rows as an Arrow table, and whether there were more.

    Raises:
        Refused: it is not one SELECT, it is wrong, or it went over a limit.
    """
    with _database(cursor, body.sql) as database, _limited(database):
        reader = database.sql(_statement(database, body.sql, ends)).to_arrow_reader(BATCH_ROWS)
        batches, rows, size = [], 0, 0
        for batch in _batches(reader):
            size = _fits(size + batch.nbytes)
            batches.append(batch)
            rows += batch.num_rows
            if rows > body.limit_rows:
                break
        table = pa.Table.from_batches(batches, reader.schema).slice(0, body.limit_rows)
        return table.combine_chunks(), rows > body.limit_rows


def _fits(size: int) -> int:
    """Return the size of an answer so far, in bytes.

    Raises:
        Refused: it is too large.
    """
    if size > ANSWER_BYTES:
        text = f"Expected an answer of at most {ANSWER_BYTES:,} bytes, but it has more: ask for fewer rows, or for less of each."
        raise refused("query_limit", text, field="sql", expected=f"at most {ANSWER_BYTES}", found=size)
    return size


def _batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """Yield the rows; a fault behind the first of them, of which Arrow keeps the words alone, is the database's again."""
    try:
        yield from reader
    except OSError as error:
        kind = next((kind for words, kind in _FAULTS.items() if str(error).startswith(words)), duckdb.Error)
        raise kind(str(error)) from error


class Turns:
    """Lets a few statements of strangers run at once; the others wait for their turn, without a thread or a snapshot."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._free = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold one turn.

        Raises:
            Refused: none came free in time.
        """
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._free.acquire()
        except TimeoutError as error:
            text = f"Expected one of {AT_ONCE} SQL statements at once to end within {TURN_SECONDS:g} s, but none did."
            expected = f"at most {AT_ONCE} at once"
            raise refused("overloaded", text, expected=expected, retry_after_seconds=TURN_SECONDS) from error
        try:
            yield
        finally:
            self._free.release()


def _statement(database: duckdb.DuckDBPyConnection, text: str, ends: Mapping[Partition, int] | None) -> str:
    statements = database.extract_statements(text)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise refused("request_invalid", "Expected one SELECT statement, but found something else.", field="sql")
    if TENANTS.get() is not None:
        check_reach(database, statements[0].query)
    if not ends:
        return statements[0].query
    # What is one SELECT by itself is one in parentheses.
    return f"WITH {world(ends)} SELECT * FROM (\n{_body(statements[0].query)}\n)"


@contextmanager
def _limited(database: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Stop what runs too long, and say of every fault of a query what was expected."""
    timer = threading.Timer(SQL_SECONDS, database.interrupt)
    timer.start()
    try:
        yield
    except duckdb.InterruptException as error:
        raise refused(
            "query_limit", f"Expected the query to end within {SQL_SECONDS:g} s, but it did not.", field="sql"
        ) from error
    except duckdb.OutOfMemoryException as error:
        text = f"Expected a query that needs less memory than TruthCore may use, but: {str(error)[:300]}"
        raise refused("query_limit", text, field="sql") from error
    except duckdb.Error as error:
        raise refused(
            "request_invalid", f"Expected a query that can be run, but: {str(error)[:1000]}", field="sql"
        ) from error
    finally:
        timer.cancel()


@contextmanager
def _database(cursor: Cursor, text: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a database that can answer a query: this one, or where the log is sharded a throw-away one with the tables that it names.

    Raises:
        Refused: those tables have more rows than are brought together for one query.
    """
    if isinstance(cursor, duckdb.DuckDBPyConnection):
        if TENANTS.get() is not None:
            shut(cursor)
        yield cursor
        return
    assert isinstance(cursor, Gathered)  # What SQL sees of the past it says itself.
    together = Store(":memory:")
    try:
        with _limited(together.connection):
            _statement(together.connection, text, None)
            for name in sorted(_named(together.connection, text)):
                _bring(cursor, together, name)
        with together.snapshot() as database:
            yield database
    finally:
        together.close()


def _named(database: duckdb.DuckDBPyConnection, text: str) -> set[str]:
    """Return the tables that a query may read: those whose name, or that of a view over them, is a word of it."""
    words = {word.lower() for word in re.findall(r"\w+", text)}
    views = {row[0] for row in database.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()}
    through = {name for view in views & words for name in database.get_table_names(f'SELECT * FROM "{view}"')}
    named = {name: name for name in (*TABLES, "positions")} | {stored(name): name for name in TABLES}
    return {named[name] for name in words | through if name in named}


def _bring(cursor: Gathered, together: Store, name: str) -> None:
    ((rows,),) = tuples(cursor, f"SELECT count(*) AS n FROM {name}", gather="SELECT sum(n)::BIGINT FROM parts")
    if rows > TOGETHER_ROWS:
        text = (
            f"Expected a query over tables of at most {TOGETHER_ROWS:,} rows, since TruthCore is sharded and brings them together, "
            f"but {name} has {rows:,}."
        )
        raise refused("query_limit", text, field="sql")
    if name == "positions":
        some = positions_in(cursor)
        parts = [
            pa.table(
                {
                    "topic": [one[0] for one in some],
                    "partition": [one[1] for one in some],
                    "next_offset": list(some.values()),
                }
            )
        ]
    else:
        parts = cursor.tables(f"SELECT * FROM {name}")
    for part in parts:
        together.connection.register("part", part)
        together.connection.execute(f"INSERT INTO {stored(name)} SELECT * FROM part")
        together.connection.unregister("part")


def _body(statement: str) -> str:
    """Return one statement without the semicolon that may end it and what stands behind that."""
    text = statement.encode()  # The tokens' places are counted in bytes.
    ends = (
        at
        for at, kind in duckdb.tokenize(statement)
        if kind == duckdb.token_type.operator and text[at : at + 1] == b";"
    )
    return text[: next(ends, len(text))].decode()


def _plain(value: Any) -> Any:
    match value:
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case None | str() | int() | float() | bool():
            return value if not isinstance(value, float) or math.isfinite(value) else str(value)
        case datetime():
            return f"{value.isoformat()}Z" if value.tzinfo is None else value.isoformat()
        case date():
            return value.isoformat()
        case list() | tuple():
            return [_plain(one) for one in value]
        case dict():
            return {str(name): _plain(one) for name, one in value.items()}
        case _:
            return str(value)
