"""Somebody of one tenant sees that tenant's rows and what is everybody's, whatever is asked and however."""

from collections.abc import Iterator
from typing import Any

import duckdb
import msgspec
import pytest

from controlplane.api.problems import Refused
from controlplane.events import types
from controlplane.events.types import LogPosition
from controlplane.truthcore_projector import queries
from controlplane.truthcore_projector.reach import check_reach
from controlplane.truthcore_projector.tables import ROWS, TABLES
from controlplane.truthcore_projector.visibility import CONDITIONS, EVERYBODYS
from tests.unit.truthcore_projector.stories import Projection, header, projection


def of(tenant: str, name: str, identity: str, cause: LogPosition | None = None) -> types.EventHeader:
    return msgspec.structs.replace(header(name, identity, cause), tenant=tenant)


def run(told: Projection, tenant: str, job: str) -> None:
    lease: dict[str, Any] = {"job_id": job, "attempt_id": f"{job}-a", "attempt_number": 1}
    payload = types.Content(data=b'"secret of ' + tenant.encode() + b'"')
    submitted = told.tell(
        types.JobSubmitted(header=of(tenant, "JobSubmitted", job), job_id=job, job_type="measure", payload=payload)
    )
    told.tell(
        types.JobAccepted(
            header=of(tenant, "JobAccepted", job, submitted), job_id=job, job_type="measure", pool="p", priority=5
        )
    )
    started = told.tell(
        types.AttemptStarted(header=of(tenant, "AttemptStarted", job, submitted), **lease, runner_id="r")
    )
    told.tell(
        types.JobCompleted(
            header=of(tenant, "JobCompleted", job, started), **lease, runner_id="r", result=types.Content(data=b"{}")
        )
    )


@pytest.fixture
def told() -> Iterator[Projection]:
    with projection() as made:
        for tenant in ("acme", "umbrella"):
            run(made, tenant, f"job-of-{tenant}")
        yield made


def ids(told: Projection, *tenants: str) -> set[str]:
    with told.store.snapshot(tenants) as cursor:
        page, _ = queries.job_page(cursor, {}, 10, None)
        return {one.job_id for one in page}


def test_pages_hold_what_the_tenants_of_the_caller_have(told: Projection) -> None:
    assert ids(told, "acme") == {"job-of-acme"}
    assert ids(told, "acme", "umbrella") == {"job-of-acme", "job-of-umbrella"}
    assert ids(told) == set()  # Of no tenant: nothing, which is not the same as not restricted.
    assert ids(told, "acme') OR ('x'='x") == set()
    with told.store.snapshot(["acme"]) as cursor:
        assert queries.job_views(cursor, ["job-of-umbrella"], details=True) == []
        assert queries.job_views(cursor, ["job-of-acme"], details=True)[0].phase == "COMPLETED"


@pytest.mark.parametrize(
    "table", [*TABLES, "jobs", "attempts", "first_submissions", "first_conclusions", "last_stages"]
)
def test_no_table_or_view_shows_another_tenants_rows(told: Projection, table: str) -> None:
    with told.store.snapshot(["acme"]) as cursor:
        rows = cursor.execute(f"SELECT * FROM {table}").fetchall()
    assert "umbrella" not in repr(rows)


def test_a_snapshot_for_one_tenant_leaves_others_as_they_are(told: Projection) -> None:
    with told.store.snapshot(["acme"]):
        pass
    with told.store.snapshot() as cursor:
        assert cursor.execute("SELECT count(*) FROM jobs").fetchone() == (2,)


def test_each_table_has_its_condition_or_is_everybodys() -> None:
    assert CONDITIONS.keys() | EVERYBODYS == TABLES.keys()
    assert not CONDITIONS.keys() & EVERYBODYS
    with_tenant = {table for table, _ in ROWS.values() if "tenant VARCHAR" in TABLES[table]}
    assert all("header.tenant" in select for table, select in ROWS.values() if table in with_tenant)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM main.events",
        "SELECT * FROM memory.main.events",
        "SELECT (SELECT count(*) FROM memory.main.events)",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM main.submissions)",
        "WITH x AS (SELECT * FROM main.events) SELECT * FROM x",
        "SELECT * FROM query('SELECT * FROM main.events')",
        "SELECT * FROM query_table('main.events')",
        "SELECT * FROM duckdb_tables()",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM sqlite_master",
        "DESCRIBE main.events",
        "SHOW TABLES",
        "SUMMARIZE main.events",
        "PIVOT main.events ON event_type USING count(*)",
        "TABLE main.events",
        "FROM main.events",
        "SELECT * FROM 'file.parquet'",
        "SELECT * FROM read_csv('/etc/passwd')",
    ],
)
def test_sql_that_reaches_around_the_tenant_is_refused(told: Projection, sql: str) -> None:
    with told.store.snapshot(["acme"]) as cursor, pytest.raises(Refused) as refusal:
        check_reach(cursor, sql)
    assert refusal.value.error.code == "forbidden"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM jobs",
        "WITH mine AS (SELECT * FROM events) SELECT a.key FROM mine AS a JOIN jobs AS b ON true, range(3)",
        "SELECT unnest([1, 2])",
        "FROM jobs SELECT job_id",
    ],
)
def test_sql_over_the_documented_tables_is_not(told: Projection, sql: str) -> None:
    with told.store.snapshot(["acme"]) as cursor:
        check_reach(cursor, sql)
        assert "umbrella" not in repr(cursor.execute(sql).fetchall())


def test_who_is_restricted_cannot_lift_the_restriction(told: Projection) -> None:
    with told.store.snapshot(["acme"]) as cursor, pytest.raises(duckdb.Error):
        cursor.execute("INSERT INTO events SELECT * FROM events")
