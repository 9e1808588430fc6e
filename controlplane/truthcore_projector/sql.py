"""Read-only SQL for strangers: one SELECT, in a transaction that cannot write, with limits on time and rows.

What the statement cannot do is held by the database and not by reading the statement: its type says SELECT also for
`WITH x AS (INSERT ...) SELECT ...`, but a read-only transaction refuses the insert. Files, extensions and settings are out of reach
because the store switches external access off and locks the configuration.
"""

import math
import threading
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Final

import duckdb

from controlplane.api.models import SqlRequest
from controlplane.api.problems import refused
from controlplane.log.positions import Partition
from controlplane.truthcore_projector.past import world

SQL_SECONDS: Final = 10.0


def select(
    cursor: duckdb.DuckDBPyConnection, body: SqlRequest, ends: Mapping[Partition, int] | None = None
) -> tuple[list[str], list[list[Any]], bool]:
    """Run one SELECT on a cursor in a read-only transaction; return its columns, its rows, and whether there were more.

    With `ends`, the first offsets that were not known yet, its tables and views are what the log knew before them.

    Raises:
        Refused: it is not one SELECT, it is wrong, or it took too long.
    """
    timer = threading.Timer(SQL_SECONDS, cursor.interrupt)
    try:
        statements = cursor.extract_statements(body.sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise refused("request_invalid", "Expected one SELECT statement, but found something else.", field="sql")
        timer.start()
        if ends:  # What is one SELECT by itself is one in parentheses.
            cursor.execute(f"WITH {world(ends)} SELECT * FROM (\n{_body(statements[0].query)}\n)")
        else:
            cursor.execute(statements[0])
        found = cursor.fetchmany(body.limit_rows + 1)
    except duckdb.InterruptException as error:
        raise refused(
            "query_limit", f"Expected the query to end within {SQL_SECONDS:g} s, but it did not.", field="sql"
        ) from error
    except duckdb.Error as error:
        raise refused(
            "request_invalid", f"Expected a query that can be run, but: {str(error)[:1000]}", field="sql"
        ) from error
    finally:
        timer.cancel()
    columns = [column[0] for column in cursor.description or []]
    rows = [[_plain(value) for value in row] for row in found[: body.limit_rows]]
    return columns, rows, len(found) > body.limit_rows


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
