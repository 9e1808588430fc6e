"""What somebody of some tenants sees of the projection: the same tables and views, with the rows of those tenants only.

Every query of a request runs on one cursor. Where the caller is not to see all tenants, that cursor has temporary views in front of the
tables, under the tables' names: whatever is asked, also a stranger's SQL and the views over the tables, is asked of them. That a statement
does not reach around them is held by reading it as the database's own parser does: a name with a schema, or a function that reads
tables by name, is refused. Each table has a condition here or is listed as everybody's; one that is neither does not pass the tests.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Final

import duckdb
from starlette.types import ASGIApp, Receive, Scope, Send

from controlplane.api.problems import refused
from controlplane.api.tenants import TENANTS_HEADER
from controlplane.truthcore_projector.tables import TABLES
from controlplane.truthcore_projector.views import VIEWS

_MINE: Final = "list_contains(getvariable('tenants'), tenant)"
CONDITIONS: Final = {
    **{name: _MINE for name, columns in TABLES.items() if "tenant VARCHAR" in columns},
    "control_events": (
        "(subject NOT LIKE 'key:%' AND subject NOT LIKE 'tenant:%')"
        " OR list_contains(getvariable('tenants'), split_part(split_part(subject, ':', 2), '/', 1))"
    ),
}
"""Which rows of a table its reader may see."""
EVERYBODYS: Final = frozenset({"runner_events", "predicates", "sources"})
"""Runners serve all tenants; contracts and weights hold for all."""
HARMLESS_FUNCTIONS: Final = frozenset({"unnest", "range", "generate_series"})
"""Table functions that read no table."""

TENANTS: ContextVar[tuple[str, ...] | None] = ContextVar("tenants", default=None)
"""The tenants whose rows the request at hand may see; None: everything."""

_VIEW_NAME: Final = re.compile(r"CREATE OR REPLACE VIEW (\w+)")


class TenantsOfRequest:
    """ASGI middleware: what a request may see is what the gateway says of its caller."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap the application that answers."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the tenants in force."""
        value = dict(scope.get("headers", ())).get(TENANTS_HEADER.encode())
        token = TENANTS.set(None if value is None else tuple(filter(None, value.decode("latin-1").split(","))))
        try:
            await self._app(scope, receive, send)
        finally:
            TENANTS.reset(token)


def as_seen() -> dict[str, str]:
    """Return the headers with which a peer answers for the tenants of the request at hand."""
    tenants = TENANTS.get()
    return {} if tenants is None else {TENANTS_HEADER: ",".join(tenants)}


def restrict(cursor: duckdb.DuckDBPyConnection, tenants: Sequence[str]) -> None:
    """Let a cursor, in its transaction, see the rows of these tenants and what is everybody's."""
    found = cursor.execute("SELECT current_database()").fetchone()
    database = found[0] if found else ""
    cursor.execute("SET VARIABLE tenants = ?::VARCHAR[]", [list(tenants)])
    for name, condition in CONDITIONS.items():
        cursor.execute(f'CREATE TEMP VIEW {name} AS SELECT * FROM "{database}".main.{name} WHERE {condition}')


def check_reach(cursor: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Return if a SELECT reads nothing but the projection's tables and views by their plain names.

    Raises:
        Refused: it reaches around them, or cannot be read.
    """
    found = cursor.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
    tree = json.loads(found[0]) if found else {"error": True, "error_message": "nothing was found"}
    if tree["error"]:
        raise _outside(str(tree["error_message"])[:300])
    nodes = list(_nodes(tree["statements"]))
    known = TABLES.keys() | {"positions"} | {match[1] for view in VIEWS if (match := _VIEW_NAME.match(view))}
    known |= {name["key"] for node in nodes for name in (node.get("cte_map") or {}).get("map", ())}
    for node in nodes:
        kind = node.get("type")
        if kind == "BASE_TABLE":
            name = ".".join(filter(None, (node.get("catalog_name"), node.get("schema_name"), node.get("table_name"))))
            if name not in known:
                raise _outside(f"the table {name}")
        elif kind == "TABLE_FUNCTION":
            name = str(node["function"]["function_name"])
            if name not in HARMLESS_FUNCTIONS:
                raise _outside(f"the function {name}")
        elif kind == "SHOW_REF":
            raise _outside("a look at the catalog")


def _outside(found: str) -> Exception:
    text = f"Expected a SELECT over the documented tables by their plain names, but found {found}."
    return refused("forbidden", text, field="sql", found=found)


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _nodes(one)
