"""The projection as it was: every table and view bounded to what the log knew, for queries that know nothing of time.

Each row is its record's own and never changes, so the projection as of a position vector is that part of each table, and every view follows.
"""

from collections.abc import Mapping
from typing import Final

from controlplane.log.positions import Partition
from controlplane.truthcore_projector.cursors import Bounded, Cursor
from controlplane.truthcore_projector.moments import AsOf, bounds, condition
from controlplane.truthcore_projector.tables import TABLES
from controlplane.truthcore_projector.views import VIEWS

_VIEWS: Final = [view.removeprefix("CREATE OR REPLACE VIEW ").split(" AS\n", 1) for view in VIEWS]
"""Name and query of each view, in an order in which each needs only those before it."""


def world(ends: Mapping[Partition, int]) -> str:
    """Return the definitions, for a WITH clause, under which every table and view is what the log knew before these offsets."""
    known = condition(ends)
    tables = [f"{name} AS NOT MATERIALIZED (SELECT * FROM main.{name} WHERE {known})" for name in TABLES]
    return ",\n".join([*tables, *(f"{name} AS NOT MATERIALIZED ({query})" for name, query in _VIEWS)])


def as_it_was(cursor: Cursor, as_of: AsOf | None) -> Cursor:
    """Return a cursor that sees what the log knew then; the same cursor where that is everything."""
    if as_of is None:
        return cursor
    return Bounded(cursor, world(bounds(cursor, as_of)))
