"""What a stranger's SELECT reaches, read as the database's own parser reads it: whatever is not known to be harmless is refused.

The parser gives a tree. Each of its nodes must be of a kind that is listed here; each table the name, and nothing but the name, of a documented
table or view, before which the reader's rows stand (see `visibility`); each function one of those whose result follows from its arguments.

A name that WITH gives counts as harmless wherever it stands in the statement, though it holds in one part of it only, and in its own definition
mostly not: elsewhere the name means what the database has under it. So one that the database has anything under is refused, and nothing
is left for it to mean but what WITH says, or nothing at all.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import duckdb

from controlplane.api.problems import refused
from controlplane.truthcore_projector.functions import FUNCTIONS, TABLE_FUNCTIONS
from controlplane.truthcore_projector.tables import TABLES
from controlplane.truthcore_projector.views import VIEW_NAMES

DOCUMENTED: Final = TABLES.keys() | {"positions", *VIEW_NAMES}
EXPRESSIONS: Final = frozenset({
    "BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "LAMBDA", "OPERATOR", "POSITIONAL_REFERENCE",
    "STAR", "SUBQUERY", "TYPE", "WINDOW",
})  # fmt: skip
"""Classes of expressions. What is missing: parameters, which nobody binds, and defaults."""
QUERIES: Final = frozenset({
    "SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE",
    "BASE_TABLE", "EMPTY", "EXPRESSION_LIST", "JOIN", "PIVOT", "SUBQUERY", "TABLE_FUNCTION",
    "DISTINCT_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER", "ORDER_MODIFIER", "ASCENDING", "DESCENDING", "ORDER_DEFAULT",
})  # fmt: skip
"""Kinds of everything else. What is missing: looks at the catalog (SHOW, DESCRIBE, SUMMARIZE), and what changes rows."""
NAME: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)
"""A plain name. Others could be paths of files."""
EXISTING: Final = """SELECT lower(table_name) FROM duckdb_tables()
    UNION ALL SELECT lower(view_name) FROM duckdb_views() WHERE schema_name <> 'information_schema'"""
"""All that a plain name can mean, the catalog's own views too; those of that one schema have no plain name."""


def check_reach(cursor: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Return if a SELECT reads nothing but the projection's tables and views by their plain names, with harmless functions.

    Raises:
        Refused: it reaches around them, or cannot be read.
    """
    nodes = list(_nodes(_tree(cursor, sql)))
    given = {str(name["key"]).lower() for node in nodes for name in (node.get("cte_map") or {}).get("map", ())}
    _check_given(cursor, given - DOCUMENTED)
    for node in nodes:
        found = _outside(node, DOCUMENTED | given)
        if found is not None:
            raise _refusal(found)


def _tree(cursor: duckdb.DuckDBPyConnection, sql: str) -> Any:
    # All rows: an answer that is not read to its end would be in the way of the next.
    ((text,),) = cursor.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    try:
        tree = json.loads(text)
    except RecursionError as error:
        raise _refusal("one that is nested too deeply to be read") from error
    if tree["error"]:
        raise _refusal(str(tree["error_message"])[:300])
    return tree["statements"]


def _check_given(cursor: duckdb.DuckDBPyConnection, names: set[str]) -> None:
    """Return if the database has nothing under these names of a WITH."""
    if not names:
        return
    existing = {name for (name,) in cursor.execute(EXISTING).fetchall()}
    for name in sorted(names):
        if name in existing or not NAME.fullmatch(name):
            raise _refusal(f"WITH {name[:100]}, which is not a name of your own: take another")


def _outside(node: dict[str, Any], known: set[str]) -> str | None:
    """Return what a node reaches that it may not, or None."""
    kind, expression = node.get("type"), node.get("class")
    if expression is not None:
        if expression not in EXPRESSIONS:
            return f"an expression {expression}"
    elif isinstance(kind, str) and kind not in QUERIES:
        return f"a part {kind}"
    if kind == "BASE_TABLE":
        return _outside_table(node, known)
    if kind == "TABLE_FUNCTION":
        name = str(node["function"]["function_name"]).lower()
        return None if name in TABLE_FUNCTIONS else f"the function {name} behind FROM"
    if "function_name" in node:
        # `a.f()` is `f(a)`, and written as `f` of a schema `a`: the name counts, of whatever schema.
        name = str(node["function_name"]).lower()
        return None if name in FUNCTIONS and not node.get("export_state") else f"the function {name}"
    return None


def _outside_table(node: dict[str, Any], known: set[str]) -> str | None:
    path = [node.get("catalog_name"), node.get("schema_name"), node["table_name"]]
    path = node.get("qualified_name", {"path": path})["path"]
    name = ".".join(filter(None, path))
    plain = name == node["table_name"] and not node.get("catalog_name") and not node.get("schema_name")
    return None if plain and name.lower() in known else f"the table {name}"


def _refusal(found: str) -> Exception:
    text = f"Expected a SELECT over the documented tables by their plain names, with functions of what it reads alone, but found {found}."
    return refused("forbidden", text, field="sql", found=found)


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
