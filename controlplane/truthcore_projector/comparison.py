"""How two projections differ: rows by table, jobs and truths; of one log at two moments, or of two files whatever they are."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import duckdb

from controlplane.api.audits import AuditDiff, JobChange, TableDifference
from controlplane.api.models import JobView
from controlplane.api.truths import TruthChange
from controlplane.log.positions import Partition
from controlplane.truthcore_projector.cursors import DISTINCT, Cursor, tuples
from controlplane.truthcore_projector.differences import change_of, changes
from controlplane.truthcore_projector.digest import canonical
from controlplane.truthcore_projector.moments import AsOf, Moment, bounds, condition, moment
from controlplane.truthcore_projector.past import as_it_was
from controlplane.truthcore_projector.queries import job_views
from controlplane.truthcore_projector.store import positions_in
from controlplane.truthcore_projector.tables import TABLES
from controlplane.truthcore_projector.truths import Wanted, fused
from controlplane.truthcore_projector.votes import Pair

EXAMPLES_LIMIT: Final = 5
OF_JOBS: Final = [name for name, columns in TABLES.items() if "job_id VARCHAR" in columns and name != "assertions"]


def between(cursor: Cursor, before: AsOf | None, after: AsOf | None, limit: int) -> AuditDiff:
    """Return how the projection as of one moment differs from that as of another; jobs and truths, the first `limit` of each."""
    known = [condition(bounds(cursor, one)) for one in (before, after)]
    tables = [_rows_between(cursor, name, *known) for name in TABLES]
    new = f"({known[0]}) <> ({known[1]})"
    query = " UNION ".join(f"SELECT job_id FROM {name} WHERE {new} AND job_id IS NOT NULL" for name in OF_JOBS)
    ids = [job for (job,) in tuples(cursor, query, tail=f"ORDER BY job_id LIMIT {limit + 1}", gather=DISTINCT)]
    jobs = _job_changes(
        ids[:limit], *(job_views(as_it_was(cursor, one), ids[:limit], details=False) for one in (before, after))
    )
    moments = [moment(cursor, one, None) for one in (before, after)]
    truths, following = changes(cursor, Wanted(), moments[0], moments[1], limit)
    return AuditDiff(tables=tables, jobs=jobs, truths=truths, complete=len(ids) <= limit and following is None)


def _rows_between(cursor: Cursor, table: str, before: str, after: str) -> TableDifference:
    query = f"""SELECT count(*) FILTER ({before}) AS rows_before, count(*) FILTER ({after}) AS rows_after,
      count(*) FILTER (({before}) AND NOT ({after})) AS a, count(*) FILTER (({after}) AND NOT ({before})) AS b FROM {table}"""
    (row,) = tuples(cursor, query, gather="SELECT sum(rows_before), sum(rows_after), sum(a), sum(b) FROM parts")
    return TableDifference(
        table=table, rows_before=int(row[0] or 0), rows_after=int(row[1] or 0), only_before=int(row[2] or 0), only_after=int(row[3] or 0),
        positions=[],
    )  # fmt: skip


def _job_changes(ids: Sequence[str], before: Sequence[JobView], after: Sequence[JobView]) -> list[JobChange]:
    sides: list[Mapping[str, JobView]] = [{one.job_id: one for one in side} for side in (before, after)]
    found = [JobChange(job_id=one, before=sides[0].get(one), after=sides[1].get(one)) for one in ids]
    return [one for one in found if one.before != one.after]


def of_files(before: Path, after: Path, limit: int) -> AuditDiff:
    """Return how one projection file differs from another, row by row; files of one log or of two.

    Raises:
        duckdb.Error: one of them is no projection that can be read.
    """
    with closing(duckdb.connect(":memory:")) as database:
        database.execute("SET TimeZone = 'UTC'")
        for name, file in (("before", before), ("after", after)):
            database.execute(f"ATTACH '{str(file).replace(chr(39), chr(39) * 2)}' AS {name}_file (READ_ONLY)")
        tables = [_rows_differing(database, table) for table in TABLES]
        differing = [one.table for one in tables if one.only_before or one.only_after]
        ids = _jobs_differing(database, [name for name in OF_JOBS if name in differing], limit + 1)
        pairs = _pairs_differing(database, differing, limit + 1)
        jobs, truths = [], []
        for name in ("before_file", "after_file"):
            database.execute(f"USE {name}")
            jobs.append(job_views(database, ids[:limit], details=False))
            truths.append(
                {(one.subject, one.predicate): one for one in fused(database, pairs[:limit], _end_of(database))}
            )
        found: list[TruthChange] = [
            change for pair in pairs[:limit] if (change := change_of(pair, truths[0].get(pair), truths[1].get(pair)))
        ]
    return AuditDiff(
        tables=tables, jobs=_job_changes(ids[:limit], *jobs), truths=found, complete=len(ids) <= limit and len(pairs) <= limit
    )  # fmt: skip


def _rows_differing(database: duckdb.DuckDBPyConnection, table: str) -> TableDifference:
    """Compare two tables row by row, by the hash of the canonical row."""
    sides = [
        f'SELECT topic, partition, "offset", sha256({canonical(TABLES[table])}) AS hash FROM {name}_file.{table} AS t'
        for name in ("before", "after")
    ]
    query = f"""WITH a AS MATERIALIZED ({sides[0]}), b AS MATERIALIZED ({sides[1]}),
        gone AS (SELECT * FROM a EXCEPT ALL SELECT * FROM b), come AS (SELECT * FROM b EXCEPT ALL SELECT * FROM a),
        places AS (SELECT DISTINCT topic, partition, "offset" FROM (FROM gone UNION ALL FROM come) ORDER BY ALL LIMIT {EXAMPLES_LIMIT})
      SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b), (SELECT count(*) FROM gone), (SELECT count(*) FROM come),
        (SELECT list(topic || '/' || partition || '/' || "offset") FROM places)"""
    row = database.execute(query).fetchall()[0]
    return TableDifference(
        table=table, rows_before=row[0], rows_after=row[1], only_before=row[2], only_after=row[3], positions=row[4] or []
    )  # fmt: skip


def _either(table: str, columns: str) -> str:
    """Return SQL of what stands in one of the files only."""
    one, other = (f"SELECT * FROM {name}_file.{table}" for name in ("before", "after"))
    return f"SELECT {columns} FROM (({one} EXCEPT {other}) UNION ALL ({other} EXCEPT {one}))"


def _jobs_differing(database: duckdb.DuckDBPyConnection, tables: Sequence[str], limit: int) -> list[str]:
    if not tables:
        return []
    query = " UNION ".join(_either(table, "job_id") for table in tables)
    return [
        job
        for (job,) in database.execute(
            f"SELECT DISTINCT * FROM ({query}) WHERE job_id IS NOT NULL ORDER BY 1 LIMIT {limit}"
        ).fetchall()
    ]


def _pairs_differing(database: duckdb.DuckDBPyConnection, tables: Sequence[str], limit: int) -> list[Pair]:
    """Return the (subject, predicate) pairs whose truth may differ: of assertions, retractions and declarations in one file only."""
    said = "(SELECT subject, predicate, source FROM before_file.assertions UNION SELECT subject, predicate, source FROM after_file.assertions)"
    parts = {
        "assertions": _either("assertions", "subject, predicate"),
        "retractions": f"SELECT subject, predicate FROM {said} WHERE subject IN ({_either('retractions', 'subject')})",
        "predicates": f"SELECT subject, predicate FROM {said} WHERE predicate IN ({_either('predicates', 'predicate')})",
        "sources": f"SELECT subject, predicate FROM {said} WHERE source IN ({_either('sources', 'source')})",
    }
    if not (chosen := [query for table, query in parts.items() if table in tables]):
        return []
    pairs: list[Any] = database.execute(
        f"SELECT DISTINCT * FROM ({' UNION '.join(chosen)}) ORDER BY ALL LIMIT {limit}"
    ).fetchall()
    return pairs


def _end_of(database: duckdb.DuckDBPyConnection) -> Moment:
    """Return the moment at which a file ends: what holds in it holds then."""
    (newest,) = tuples(database, "SELECT max(log_time) FROM events")
    return Moment(instant=newest[0])


def reflected(file: Path) -> dict[Partition, int]:
    """Return the positions that a projection file reflects."""
    with closing(duckdb.connect(str(file), read_only=True)) as database:
        return positions_in(database)
