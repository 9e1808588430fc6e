"""A stranger's SELECT reads the documented tables and nothing else, however it is written; and the database itself has a second lock before the rest."""

from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from controlplane.api.models import SqlRequest
from controlplane.api.problems import Refused
from controlplane.truthcore_projector.functions import FUNCTIONS
from controlplane.truthcore_projector.reach import DOCUMENTED, check_reach
from controlplane.truthcore_projector.sql import select, select_table
from controlplane.truthcore_projector.store import Store
from controlplane.truthcore_projector.tables import DETAIL, stored
from controlplane.truthcore_projector.visibility import INNER, TENANTS, restrict, shut
from tests.unit.truthcore_projector.stories import Projection, projection
from tests.unit.truthcore_projector.test_visibility import run

PAST = {("controlplane.submissions", 0): 100, ("controlplane.jobs", 0): 100, ("controlplane.routing", 0): 100}


@pytest.fixture(scope="module")
def told() -> Iterator[Projection]:
    with projection() as made:
        for tenant in ("acme", "umbrella"):
            run(made, tenant, f"job-of-{tenant}")
        yield made


@pytest.fixture(autouse=True)
def seen_by_acme() -> Iterator[None]:
    token = TENANTS.set(("acme",))
    yield
    TENANTS.reset(token)


def answer(told: Projection, sql: str, ends: Any = None) -> list[list[Any]]:
    with told.store.snapshot(["acme"]) as cursor:
        return select(cursor, SqlRequest(sql=sql), ends)[1]


@pytest.mark.parametrize("ends", [None, PAST], ids=["now", "past"])
@pytest.mark.parametrize(
    "sql",
    [
        # Names that WITH gives stand for the database's own in their definition and outside of their part.
        "WITH live_events AS (SELECT * FROM live_events) SELECT * FROM live_events",
        "WITH RECURSIVE live_events AS (SELECT * FROM live_events) SELECT * FROM live_events",
        "WITH RECURSIVE live_events AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM live_events WHERE n < 3) SELECT * FROM live_events",
        'WITH "LIVE_Events" AS (SELECT 1) SELECT * FROM LIVE_EVENTS',
        "WITH q AS (WITH live_events AS (SELECT 1) SELECT * FROM live_events) SELECT * FROM live_events",
        "SELECT b.* FROM (WITH live_events AS (SELECT 1) FROM live_events) AS a, live_events AS b",
        "SELECT (WITH live_events AS (SELECT 1) SELECT * FROM live_events), tenant FROM live_events",
        "(WITH live_job_logs AS (SELECT 1 AS x) SELECT x FROM live_job_logs) UNION ALL SELECT line_count FROM live_job_logs",
        "WITH a AS (SELECT * FROM live_events), live_events AS (SELECT 1) SELECT * FROM a",
        "SELECT * FROM jobs WHERE job_id IN (WITH live_events AS (SELECT '1') FROM live_events) OR EXISTS (FROM live_events)",
        "SELECT * FROM jobs, LATERAL (WITH live_events AS (SELECT jobs.job_id) SELECT * FROM live_events) AS x, live_events",
        "WITH live_events AS MATERIALIZED (FROM live_events) FROM live_events",
        "SELECT * FROM (WITH duckdb_columns AS (SELECT 1 AS x) SELECT x FROM duckdb_columns) AS a, duckdb_columns",
        "WITH pg_class AS (SELECT 1) SELECT * FROM pg_class",
        "WITH sqlite_master AS (FROM sqlite_master) FROM sqlite_master",
        "WITH archives AS (FROM archives) FROM archives",
        "WITH stretches AS (FROM stretches) FROM stretches",
        "WITH shard AS (FROM shard) FROM shard",
        """WITH "data/archive/x.parquet" AS (SELECT 1) SELECT * FROM 'data/archive/x.parquet'""",
        """SELECT * FROM (WITH "x.parquet" AS (SELECT 1) FROM "x.parquet") AS a, 'x.parquet' AS b""",
        'WITH "main.live_events" AS (SELECT 1) SELECT * FROM main.live_events',
        # Other ways to the same.
        "SELECT * FROM live_events",
        'SELECT * FROM "live_events"',
        "SELECT * FROM LIVE_events",
        "SELECT * FROM memory.live_events",
        "SELECT * FROM temp.main.live_events",
        "SELECT * FROM a.b.c.jobs",
        "SELECT * FROM system.main.duckdb_views",
        "SELECT * FROM pg_catalog.pg_class",
        "SELECT * FROM jobs POSITIONAL JOIN live_events",
        "SELECT * FROM jobs ASOF JOIN live_events USING (log_time)",
        "SELECT * FROM (SELECT 1 UNION ALL (SELECT 2 EXCEPT SELECT 1 FROM live_events))",
        "SELECT COLUMNS(*) FROM live_events",
        "SELECT ARRAY(SELECT tenant FROM live_events)",
        "SELECT list_transform([1], lambda x: (SELECT count(*) FROM live_events))",
        "SELECT 1 LIMIT (SELECT count(*) FROM live_events)",
        "SELECT 1 ORDER BY (SELECT count(*) FROM live_events)",
        "SELECT sum(1) OVER (ORDER BY (SELECT count(*) FROM live_events))",
        "SELECT sum(1) FILTER (EXISTS (FROM live_events))",
        "SELECT * EXCLUDE (a) REPLACE ((SELECT count(*) FROM live_events) AS b) FROM (SELECT 1 AS a, 2 AS b)",
        "SELECT DISTINCT ON ((SELECT count(*) FROM live_events)) 1",
        "VALUES ((SELECT count(*) FROM live_events))",
        "SELECT * FROM range((SELECT count(*) FROM live_events))",
        "SELECT * FROM (PIVOT live_events ON tenant IN ('umbrella') USING count(*))",
        "SELECT * FROM (UNPIVOT live_events ON key, value)",
        "SELECT * FROM (DESCRIBE live_events)",
        "SELECT * FROM (SUMMARIZE live_events)",
        "SELECT * FROM (SHOW ALL TABLES)",
        "SUMMARIZE jobs",
        "SELECT * FROM live_events TABLESAMPLE 1 ROWS",
        "SELECT * FROM main.query('FROM live_events')",
        "SELECT * FROM query_table(['live_events'])",
        "SELECT * FROM histogram('live_events', 'tenant')",
        "SELECT * FROM seq_scan('live_events')",
        "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('FROM live_events'))",
        "SELECT * FROM duckdb_logs()",
        "SELECT * FROM glob('*')",
        "SELECT * FROM repeat_row(1, num_rows = 3)",
        # Functions that tell of more than the rows that they are given, or do more than to tell.
        "SELECT stats(job_id), stats(tenant) FROM submissions LIMIT 1",
        "SELECT main.stats(tenant) FROM submissions",
        "SELECT system.main.stats(tenant) FROM submissions",
        "SELECT tenant.stats() FROM submissions",
        'SELECT "Stats"(tenant) FROM submissions',
        "SELECT max(stats(tenant)) FROM submissions",
        "SELECT list_transform([tenant], lambda x: stats(x)) FROM submissions",
        "SELECT job_id FROM submissions ORDER BY stats(tenant)",
        "SELECT current_setting('allowed_directories')",
        "SELECT getvariable('tenants')",
        "SELECT current_query()",
        "SELECT pg_get_viewdef(1)",
        "SELECT json_serialize_plan('FROM live_events')",
        "SELECT nextval('x')",
        "SELECT setseed(0.5)",
        "SELECT sleep_ms(10000)",
        "SELECT pg_sleep(10)",
        "SELECT write_log('x')",
        "SELECT error(tenant) FROM submissions",
        "SELECT vector_type(tenant) FROM submissions",
        "SELECT invoke(lambda x: x, 1)",
        "SELECT sum(priority) EXPORT_STATE FROM submissions",
        "SELECT " + "+".join(["1"] * 900),
    ],
)  # fmt: skip
def test_what_reaches_around_the_documented_tables_is_refused(told: Projection, sql: str, ends: Any) -> None:
    with pytest.raises(Refused) as refusal:
        answer(told, sql, ends)
    assert (refusal.value.error.code, refusal.value.error.field) == ("forbidden", "sql")


@pytest.mark.parametrize("ends", [None, PAST], ids=["now", "past"])
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM Jobs",
        "WITH jobs AS (SELECT * FROM jobs WHERE phase = 'COMPLETED') SELECT job_id, tenant FROM jobs",
        "WITH a AS (SELECT * FROM events), b AS MATERIALIZED (FROM a) SELECT * FROM b JOIN a USING (event_id)",
        "WITH columns AS (SELECT job_id FROM submissions) FROM columns",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT n, job_id FROM r, jobs",
        "SELECT count(*), max(job_id), string_agg(tenant, ',' ORDER BY job_id), count(DISTINCT pool) FILTER (true) FROM jobs",
        "SELECT job_id, row_number() OVER (PARTITION BY tenant ORDER BY job_id), lag(job_id) OVER w FROM jobs WINDOW w AS (ORDER BY job_id)",
        "SELECT job_id.upper().substr(1, 3), decode(payload), decode(payload)::JSON ->> '$' FROM submissions",
        "SELECT date_trunc('day', log_time), extract(year FROM log_time), log_time - INTERVAL 1 HOUR, log_time AT TIME ZONE 'UTC' FROM events",
        "SELECT now() > log_time, current_date, current_timestamp, age(log_time) FROM events",
        "SELECT [x || '!' FOR x IN [job_id]], {'a': job_id}.a, MAP {'a': 1}['a'], [1, 2][1:1], (1, 2) FROM jobs",
        "SELECT list_transform([job_id], lambda x: upper(x)), list_sum([1, 2]), unnest([1, 2]) FROM jobs",
        "SELECT * EXCLUDE (payload), COLUMNS('job.*') FROM submissions",
        "SELECT job_id FROM submissions WHERE job_id LIKE 'j%' AND job_id NOT ILIKE 'x' AND job_id SIMILAR TO '.*' AND job_id BETWEEN 'a' AND 'z'",
        "SELECT tenant, count(*) FROM jobs GROUP BY ROLLUP (tenant) HAVING count(*) > 0 QUALIFY row_number() OVER () > 0 ORDER BY ALL LIMIT 100%",
        "SELECT tenant FROM jobs UNION SELECT tenant FROM events EXCEPT SELECT 'x' ORDER BY 1 DESC NULLS LAST LIMIT 5 OFFSET 0",
        "SELECT * FROM (PIVOT jobs ON phase IN ('COMPLETED', 'FAILED') USING count(*) GROUP BY tenant)",
        "SELECT * FROM jobs SEMI JOIN attempts USING (job_id), LATERAL (SELECT jobs.job_id) AS x, range(1) AS r",
        "SELECT * FROM jobs POSITIONAL JOIN range(1) AS r",
        "SELECT CASE WHEN priority > 1 THEN 'a' ELSE 'b' END, TRY_CAST(job_id AS INT), coalesce(parent_job_id, ''), if(true, 1, 2) FROM submissions",
        "FROM jobs SELECT job_id",
        "TABLE jobs",
        "SELECT quantile_cont(priority, [0.5, 0.9]), approx_count_distinct(tenant), histogram(tenant), arg_max(job_id, priority) FROM submissions",
        "SELECT 1 AS live_events, live.tenant FROM jobs AS live",
        "SELECT topic, next_offset FROM positions",
    ],
)
def test_what_analysts_write_is_answered_with_the_rows_of_the_tenant(told: Projection, sql: str, ends: Any) -> None:
    rows = answer(told, sql, ends)
    assert rows
    assert "umbrella" not in repr(rows)


@pytest.mark.parametrize("ends", [None, PAST], ids=["now", "past"])
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM submissions WHERE job_id::INT > 3",
        "SELECT count(*) FROM submissions WHERE tenant = 'umbrella' AND job_id::INT > 3",
        "SELECT count(*) FROM submissions WHERE tenant <> 'acme' AND CAST(tenant AS INT) = 1",
        "SELECT count(*) FROM submissions AS a JOIN range(10) AS b(x) ON a.job_id::INT = b.x",
        "SELECT sum(job_id::INT) FROM submissions",
        "SELECT min(job_id), max(tenant), max(job_id) FROM submissions",
    ],
)
def test_neither_faults_nor_the_planner_tell_of_others(told: Projection, sql: str, ends: Any) -> None:
    try:
        said = repr(answer(told, sql, ends))
    except Refused as refusal:
        said = refusal.error.message.replace(sql, "")
    assert "umbrella" not in said


def test_behind_the_check_the_inner_tables_hold_no_more(told: Projection) -> None:
    with told.store.snapshot(["acme"]) as cursor:
        shut(cursor)
        for name in map(stored, DETAIL):
            for written in (name, f"main.{name}"):
                assert "umbrella" not in repr(cursor.execute(f"FROM {written}").fetchall())
        assert cursor.execute("SELECT count(*) FROM live_events").fetchall() == [(4,)]
        assert [cursor.execute(f"FROM {name}").fetchall() for name in INNER] == [[]] * len(INNER)


def test_every_table_is_documented_or_shut(told: Projection) -> None:
    tables = "SELECT table_name FROM duckdb_tables() UNION SELECT view_name FROM duckdb_views() WHERE NOT internal"
    names = {name for (name,) in told.store.connection.execute(tables).fetchall()}
    assert names == DOCUMENTED | {*INNER, *map(stored, DETAIL)}


def test_functions_that_are_allowed_exist_read_no_table_and_have_no_effects() -> None:
    query = """SELECT lower(function_name), bool_or(has_side_effects), bool_or(coalesce(macro_definition ILIKE '%from %', false))
        FROM duckdb_functions() WHERE function_type IN ('scalar', 'aggregate', 'macro', 'window') GROUP BY ALL"""
    found = {name: facts for name, *facts in Store(":memory:").connection.execute(query).fetchall()}
    assert {"unnest"} == FUNCTIONS - found.keys()
    by_chance = {"gen_random_uuid", "random", "uuid", "uuidv4", "uuidv7"}
    assert {name for name in FUNCTIONS & found.keys() if any(found[name])} == by_chance


@pytest.mark.parametrize("ends", [None, PAST], ids=["now", "past"])
def test_a_tenant_gets_tables_too(told: Projection, ends: Any) -> None:
    with told.store.snapshot(["acme"]) as cursor:
        table, more = select_table(cursor, SqlRequest(sql="SELECT job_id FROM jobs", limit_rows=5), ends)
    assert table.equals(pa.table({"job_id": ["job-of-acme"]}))
    assert not more


def test_nothing_is_left_open_behind_the_restriction_and_the_check(told: Projection) -> None:
    with told.store.snapshot() as cursor:
        restrict(cursor, ["acme"])
        assert cursor.sql("SELECT 1 AS one").to_arrow_reader(10).read_all().to_pylist() == [{"one": 1}]
    with told.store.snapshot() as cursor:
        check_reach(cursor, "WITH own AS (SELECT 1) FROM own")
        assert cursor.sql("SELECT 1 AS one").to_arrow_reader(10).read_all().to_pylist() == [{"one": 1}]


def test_what_cannot_be_read_is_refused(told: Projection) -> None:
    for sql in ("SELEC 1", "SELECT 1; SELECT 2", "EXPLAIN SELECT 1", "SELECT $1", "SELECT ?", "WITH x AS (DELETE FROM events) SELECT 1"):  # fmt: skip
        with pytest.raises((Refused, duckdb.Error)):
            answer(told, sql)
