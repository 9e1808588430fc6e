"""SQL and truths as Arrow and Parquet, and what stops a query that would run away."""

import asyncio
import io
import json
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from controlplane.truthcore_projector import sql, store
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
