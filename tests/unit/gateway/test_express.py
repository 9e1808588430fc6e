"""Single submissions without the framework's machinery are answered as the declared call answers them."""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from controlplane.contents import ContentStore
from controlplane.events.catalog import TOPICS, Service
from controlplane.events.codec import decode
from controlplane.events.types import JobSubmitted, LogPosition
from controlplane.gateway.capabilities import Capabilities
from controlplane.gateway.express import Express
from controlplane.gateway.governance import Governance
from controlplane.gateway.service import create_app
from controlplane.gateway.submissions import Door
from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.log.producer import LogProducer, OutgoingRecord
from controlplane.settings import Settings

NOWHERE = LogConnection(bootstrap="127.0.0.1:1")


class Appended(LogProducer):
    """A producer that keeps what it is given; its log can be away."""

    def __init__(self) -> None:
        super().__init__(NOWHERE, service=Service.GATEWAY, partitions=dict.fromkeys(TOPICS, 4), instance="one")
        self.events: list[Any] = []
        self.away = False

    def send(self, records: Sequence[OutgoingRecord]) -> "asyncio.Future[list[LogPosition]]":
        answer: asyncio.Future[list[LogPosition]] = asyncio.get_running_loop().create_future()
        if self.away:
            answer.set_exception(LogUnavailable("Expected an answer, but there was none."))
            return answer
        self.events += [decode(record.value) for record in records]
        answer.set_result([LogPosition(topic=one.topic, partition=one.partition, offset=7) for one in records])
        return answer


def gateway(folder: Path, *, express: bool) -> tuple[FastAPI, Appended]:
    app, log = create_app(Settings()), Appended()
    innermost: Any = app.user_middleware[-1]
    assert innermost.cls is Express
    if not express:
        app.user_middleware = app.user_middleware[:-1]
    app.state.door = Door(
        log, Capabilities(NOWHERE, 4), ContentStore(folder.as_uri(), inline_limit_bytes=1000),
        Governance(NOWHERE, 4),
    )  # fmt: skip
    return app, log


async def asked(app: FastAPI, body: bytes, headers: dict[str, str]) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        return await client.post("/v1/jobs", content=body, headers={"content-type": "application/json", **headers})


BODIES: dict[str, tuple[bytes, dict[str, str]]] = {
    "valid": (b'{"job_type": "noop", "job_id": "one"}', {}),
    "everything": (
        b'{"job_type": "noop", "job_id": "one", "payload": {"a": [1, 2.5, "x", null]}, "priority": 9, "pool": "gpu", "slots": 2, '
        b'"retry": {"max_attempts": 2, "never_retry": ["LIMIT"]}, "timeouts": {"total_seconds": 5}, "not_before": "2030-01-01T00:00:00Z", '
        b'"required_labels": {"a": "b"}, "concurrency_key": "k", "correlation_id": "c", "tenant": "acme"}',
        {},
    ),
    "by key": (b'{"job_type": "noop"}', {"idempotency-key": "order-1"}),
    "large": (b'{"job_type": "noop", "job_id": "one", "payload": "' + b"x" * 2000 + b'"}', {}),
    "unknown category": (b'{"job_type": "noop", "job_id": "one", "retry": {"never_retry": ["NONE"]}}', {}),
    "wrong key": (b'{"job_type": "noop", "job_id": "one"}', {"idempotency-key": "a b"}),
    "not JSON": (b"{", {}),
    "no object": (b"[]", {}),
    "nothing": (b"", {}),
    "a number as text": (b'{"job_type": "noop", "job_id": "one", "priority": "5"}', {}),
    "unknown field": (b'{"job_type": "noop", "job_id": "one", "prority": 5}', {}),
    "no time zone": (b'{"job_type": "noop", "job_id": "one", "not_before": "2030-01-01T00:00:00"}', {}),
}


@pytest.mark.parametrize(("body", "headers"), BODIES.values(), ids=BODIES.keys())
async def test_answers_and_events_are_those_of_the_declared_call(
    tmp_path: Path, body: bytes, headers: dict[str, str]
) -> None:
    (fast, fast_log), (declared, declared_log) = (gateway(tmp_path, express=one) for one in (True, False))
    found, wanted = await asked(fast, body, headers), await asked(declared, body, headers)
    assert found.status_code == wanted.status_code
    assert dict(found.headers) == dict(wanted.headers) | {"content-length": found.headers["content-length"]}
    unlike = {"error_id"}
    assert {k: v for k, v in found.json().items() if k not in unlike} == {
        k: v for k, v in wanted.json().items() if k not in unlike
    }
    assert len(fast_log.events) == len(declared_log.events) == (found.status_code == 202)
    for one, other in zip(fast_log.events, declared_log.events, strict=True):
        assert isinstance(one, JobSubmitted)
        assert content_of(one) == content_of(other)


def content_of(event: JobSubmitted) -> dict[str, Any]:
    fields = {name: getattr(event, name) for name in event.__struct_fields__ if name != "header"}
    header = event.header
    return fields | {"event_id": header.event_id, "tenant": header.tenant, "correlation_id": header.correlation_id}


async def test_what_is_valid_does_not_reach_the_framework(tmp_path: Path) -> None:
    app, _ = gateway(tmp_path, express=True)
    reached: list[str] = []

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])
        await app.router(scope, receive, send)

    found = partial(Express(behind), {"type": "http", "method": "POST", "path": "/v1/jobs", "headers": [], "app": app})
    said: list[Any] = []

    async def answer(body: bytes) -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            said.append(message)

        await found(receive, send)

    await answer(BODIES["valid"][0])
    assert (said[0]["status"], reached) == (202, [])


@pytest.mark.parametrize("express", [True, False])
async def test_a_log_that_does_not_answer_is_said(tmp_path: Path, express: bool) -> None:
    app, log = gateway(tmp_path, express=express)
    log.away = True
    found = await asked(app, BODIES["valid"][0], {})
    assert (found.status_code, found.json()["code"]) == (503, "log_unavailable")
