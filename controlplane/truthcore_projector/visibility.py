"""What somebody of some tenants sees of the projection: the same tables and views, with the rows of those tenants only.

Every query of a request runs on one cursor. Where the caller is not to see all tenants, that cursor has temporary views in front of the
tables, under the tables' names: whatever is asked, also a stranger's SQL and the views over the tables, is asked of them. That a stranger's statement
does not reach around them is held twice: by reading it (see `reach`), and by views in front of what the tables themselves are made of. Each table
has a condition here or is listed as everybody's; one that is neither does not pass the tests.
"""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Final

import duckdb
from starlette.types import ASGIApp, Receive, Scope, Send

from controlplane.api.tenants import TENANTS_HEADER
from controlplane.truthcore_projector.tables import DETAIL, TABLES, stored

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
INNER: Final = ("archives", "layout", "shard", "stretched", "stretches")
"""Tables that the database keeps for itself."""

TENANTS: ContextVar[tuple[str, ...] | None] = ContextVar("tenants", default=None)
"""The tenants whose rows the request at hand may see; None: everything."""


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
    cursor.execute("SET VARIABLE tenants = ?::VARCHAR[]", [list(tenants)])
    _stand_before(cursor, CONDITIONS)


def shut(cursor: duckdb.DuckDBPyConnection) -> None:
    """Let a cursor that is restricted see no more under the names that only the database's own definitions use: a stranger's statement may name any."""
    kept = {stored(name): CONDITIONS.get(name, "true") for name in DETAIL}
    _stand_before(cursor, kept | dict.fromkeys(INNER, "false"))


def _stand_before(cursor: duckdb.DuckDBPyConnection, conditions: Mapping[str, str]) -> None:
    # All rows: an answer that is not read to its end would be in the way of the next.
    ((database,),) = cursor.execute("SELECT current_database()").fetchall()
    for name, condition in conditions.items():
        cursor.execute(f'CREATE TEMP VIEW {name} AS SELECT * FROM "{database}".main.{name} WHERE {condition}')
