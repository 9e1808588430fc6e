"""The truths of a projection file, derived once and kept as a table: for whoever queries the file without ControlPlane."""

import json
import time
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from controlplane.truthcore_projector.fold import Progress
from controlplane.truthcore_projector.moments import AsOf, Moment, moment
from controlplane.truthcore_projector.store import Store
from controlplane.truthcore_projector.truths import fused

AT_ONCE: Final = 10_000
TABLE: Final = """CREATE OR REPLACE TABLE truths (subject VARCHAR, predicate VARCHAR, value VARCHAR, kind VARCHAR, unit VARCHAR, confidence DOUBLE,
  rule VARCHAR, conflict BOOLEAN, candidates INTEGER, sources VARCHAR[], explanation VARCHAR)"""
"""`value` is JSON; where many values are true at once, a list of them. It is no part of the digests: it follows from the other tables."""
_SCHEMA: Final = pa.schema(
    [
        ("subject", pa.string()), ("predicate", pa.string()), ("value", pa.string()), ("kind", pa.string()), ("unit", pa.string()),
        ("confidence", pa.float64()), ("rule", pa.string()), ("conflict", pa.bool_()), ("candidates", pa.int32()),
        ("sources", pa.list_(pa.string())), ("explanation", pa.string()),
    ]
)  # fmt: skip


def write_truths(file: Path, as_of: AsOf | None, progress: Progress | None = None) -> int:
    """Derive every truth of a projection file as of its end, and put them into its table `truths`; returns how many.

    With a time, what holds in the world at that time; else at the newest record of the truth topic.
    """
    store = Store(file)
    started = time.perf_counter()
    try:
        database = store.connection
        database.execute(TABLE)
        with store.snapshot() as cursor:
            # The file ends where the question does, so that everything in it was known.
            instant = moment(cursor, as_of if as_of is not None else {}, None).instant
            pairs = cursor.execute(
                "SELECT DISTINCT subject, predicate FROM assertions ORDER BY subject, predicate"
            ).fetchall()
        written = 0
        for first in range(0, len(pairs), AT_ONCE):
            views = fused(database, pairs[first : first + AT_ONCE], Moment(instant=instant))
            rows: list[dict[str, Any]] = [
                {
                    "subject": one.subject, "predicate": one.predicate, "value": json.dumps(one.value), "kind": one.kind, "unit": one.unit,
                    "confidence": one.confidence, "rule": one.rule, "conflict": one.conflict, "candidates": len(one.candidates),
                    "sources": sorted({vote.source for candidate in one.candidates for vote in candidate.votes}),
                    "explanation": one.explanation,
                }
                for one in views
            ]  # fmt: skip
            database.register("derived", pa.Table.from_pylist(rows, _SCHEMA))
            database.execute("INSERT INTO truths SELECT * FROM derived")
            database.unregister("derived")
            written += len(views)
            if progress is not None:
                progress(min(first + AT_ONCE, len(pairs)), len(pairs), time.perf_counter() - started)
        return written
    finally:
        store.close()
