"""SQL and truths as Arrow and Parquet, and what stops a query that would run away."""

import asyncio
import io
import json
import threading
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from controlplane.api.models import SqlRequest
from controlplane.api.problems import Refused
from controlplane.truthcore_projector import http, sql, store
from tests.unit.truthcore_projector.worlds import World, answering

PARQUET = "application/vnd.apache.parquet"
ARROW = "application/vnd.apache.arrow.stream"
Request = tuple[str, str, dict[str, Any]]


def asked(*requests: Request, shards: int = 1) -> list[httpx.Response]:
    async def ask() -> list[httpx.Response]:
        with answering(World(5, 40), shards) as app:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://core") as client:
                return [await client.request(method, path, **more) for method, path, more in requests]

    return asyncio.run(ask())


def arrow(answer: httpx.Response) -> pa.Table:
    assert (answer.status_code, answer.headers["content-type"]) == (200, ARROW), answer.text
    return pa.ipc.open_stream(answer.content).read_all()


def test_rows_come_as_arrow_and_parquet_and_say_what_they_reflect() -> None:
    query = {"sql": "SELECT subject, confidence, log_time, inputs FROM assertions ORDER BY ALL", "limit_rows": 5}
    json_answer, arrow_answer, parquet_answer, sharded = (
        *asked(
            ("POST", "/v1/sql", {"json": query}),
            ("POST", "/v1/sql", {"json": query, "params": {"format": "arrow"}}),
            ("POST", "/v1/sql", {"json": query, "headers": {"accept": PARQUET}}),
        ),
        *asked(("POST", "/v1/sql", {"json": query, "headers": {"accept": ARROW}}), shards=2),
    )
    table = arrow(arrow_answer)
    assert table.schema.types == [pa.string(), pa.float64(), pa.timestamp("us"), pa.list_(pa.field("l", pa.string()))]
    assert [[row["subject"], row["confidence"]] for row in table.to_pylist()] == [
        one[:2] for one in json_answer.json()["rows"]
    ]
    assert json.loads(table.schema.metadata[b"controlplane.reflects"]) == json_answer.json()["reflects"]
    assert table.schema.metadata[b"controlplane.truncated"] == b"true"
    assert parquet_answer.headers["content-type"] == PARQUET
    assert pq.read_table(io.BytesIO(parquet_answer.content)).equals(table)
    assert arrow(sharded).equals(table)


def test_truths_come_as_a_table_page_by_page() -> None:
    whole, first = asked(
        ("GET", "/v1/truths", {"params": {"format": "arrow", "limit": 1000}}),
        ("GET", "/v1/truths", {"params": {"format": "parquet", "limit": 3}}),
    )
    table, page = arrow(whole), pq.read_table(io.BytesIO(first.content))
    assert page.equals(table.slice(0, 3))
    (second,) = asked(
        ("GET", "/v1/truths", {"params": {"format": "arrow", "cursor": first.headers["controlplane-next-cursor"]}})
    )
    assert arrow(second).slice(0, 3).equals(table.slice(3, 3))
    assert "sources" in table.column_names


@pytest.mark.parametrize("form", ["json", "arrow"])
@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT count(*) FROM range(1000000000000) a, range(1000000) b", "end within 0.3 s"),
        ("SELECT list(i) FROM range(30000000) AS t(i)", "less memory than TruthCore may use"),
    ],
)
def test_a_query_that_runs_away_is_stopped_and_said(
    monkeypatch: pytest.MonkeyPatch, form: str, query: str, words: str
) -> None:
    monkeypatch.setattr(sql, "SQL_SECONDS", 0.3 if "0.3 s" in words else 100.0)
    monkeypatch.setattr(store, "MEMORY_LIMIT", "100MB")
    (answer, after) = asked(
        ("POST", "/v1/sql", {"json": {"sql": query}, "params": {"format": form}}),
        ("POST", "/v1/sql", {"json": {"sql": "SELECT 1"}}),
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "query_limit"), answer.text
    assert words in answer.json()["message"]
    assert after.json()["rows"] == [[1]]


def test_rows_are_limited_and_json_takes_fewer() -> None:
    query = {"sql": "SELECT * FROM range(2000000)", "limit_rows": 100_000}
    refused, table = asked(
        ("POST", "/v1/sql", {"json": query}),
        ("POST", "/v1/sql", {"json": query, "params": {"format": "arrow"}}),
    )
    assert (refused.status_code, refused.json()["field"]) == (422, "limit_rows")
    assert arrow(table).num_rows == 100_000


@pytest.mark.parametrize("form", ["json", "arrow", "parquet"])
@pytest.mark.parametrize("query", ["SELECT repeat('x', 30000) FROM range(5)", "SELECT 'x' FROM range(60000)", "SELECT [repeat('x', 200000)]"])  # fmt: skip
def test_bytes_are_limited(monkeypatch: pytest.MonkeyPatch, form: str, query: str) -> None:
    monkeypatch.setattr(sql, "ANSWER_BYTES", 100_000)
    monkeypatch.setattr(sql, "JSON_ROWS", 100_000)
    as_form = {"params": {"format": form}}
    (much, enough) = asked(
        ("POST", "/v1/sql", {"json": {"sql": query, "limit_rows": 100_000}, **as_form}),
        ("POST", "/v1/sql", {"json": {"sql": query.replace("0000", "000"), "limit_rows": 100_000}, **as_form}),
    )
    problem = much.json()
    assert (much.status_code, problem["code"], problem["field"]) == (422, "query_limit", "sql"), problem
    assert (problem["expected"], int(problem["found"]) > 100_000) == ("at most 100000", True)
    assert enough.status_code == 200
    assert len(enough.content) < 200_000


def test_what_an_answer_holds_is_counted_before_the_rest_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "ANSWER_BYTES", 10_000)
    with store.Store(":memory:").snapshot() as cursor:
        for take in (sql.select, sql.select_table):
            body = SqlRequest(sql="SELECT repeat('x', 1000) FROM range(1000000000000)", limit_rows=10_000)
            with pytest.raises(Refused) as refusal:
                take(cursor, body)
            assert int(refusal.value.error.found or 0) < 1_000_000  # One batch more than fits, of all that there is.


def test_a_fault_behind_the_first_rows_is_said_of_tables_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    late = "SELECT CASE WHEN range = 90000 THEN 'no number' ELSE '1' END::INT FROM range(100000)"
    long = "FROM range(9) UNION ALL SELECT count(*) FROM range(1000000000000) a, range(1000000) b"

    def asked_for(text: str) -> httpx.Response:
        body = {"sql": text, "limit_rows": 100_000}
        (answer,) = asked(("POST", "/v1/sql", {"json": body, "params": {"format": "arrow"}}))
        return answer

    wrong = asked_for(late)
    monkeypatch.setattr(sql, "SQL_SECONDS", 0.3)
    slow = asked_for(long)
    assert (wrong.status_code, wrong.json()["code"]) == (422, "request_invalid")
    assert "no number" in wrong.json()["message"]
    assert (slow.status_code, slow.json()["code"]) == (422, "query_limit")


def test_few_statements_run_at_once_and_the_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "TURN_SECONDS", 100.0)
    more, running, most = threading.Condition(), 0, 0

    def watched(*given: Any) -> Any:
        nonlocal running, most
        with more:
            running += 1
            most = max(most, running)
            more.notify_all()
            more.wait_for(lambda: most > sql.AT_ONCE, 0.1)  # Whoever may come, comes.
            running -= 1
        return sql.select(*given)

    monkeypatch.setattr(http, "select", watched)

    async def ask() -> list[httpx.Response]:
        with answering(World(5, 40), 1) as app:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://core") as client:
                return await asyncio.gather(*(client.post("/v1/sql", json={"sql": "SELECT 1"}) for _ in range(6)))

    assert [answer.status_code for answer in asyncio.run(ask())] == [200] * 6
    assert 1 <= most <= sql.AT_ONCE


def test_whose_turn_does_not_come_is_told_when_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "TURN_SECONDS", 0.02)

    async def wait() -> Refused:
        turns = sql.Turns()
        async with AsyncExitStack() as stack:
            for _ in range(sql.AT_ONCE):
                await stack.enter_async_context(turns.one())
            with pytest.raises(Refused) as refusal:
                await stack.enter_async_context(turns.one())
        async with turns.one():  # Nobody's turn was lost.
            return refusal.value

    refusal = asyncio.run(wait())
    assert (refusal.status, refusal.error.code, refusal.error.retry_after_seconds) == (503, "overloaded", 0.02)


def test_shards_bring_together_no_more_rows_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "TOGETHER_ROWS", 5)
    (refused, small) = asked(
        ("POST", "/v1/sql", {"json": {"sql": "SELECT count(*) FROM events"}}),
        ("POST", "/v1/sql", {"json": {"sql": "SELECT 1 AS one"}}),
        shards=2,
    )
    assert (refused.status_code, refused.json()["code"]) == (422, "query_limit")
    assert "but events has" in refused.json()["message"]
    assert small.json()["rows"] == [[1]]
