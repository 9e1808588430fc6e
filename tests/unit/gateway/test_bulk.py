"""Bulk requests under an Idempotency-Key: a line is the line that came first, or is refused alone."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from controlplane.api.models import JobRequest
from controlplane.gateway import idempotency
from controlplane.gateway.bulk import _minted
from controlplane.gateway.callers import CALLER, Caller, Role
from controlplane.gateway.idempotency import LinesSeen
from tests.unit.gateway.test_express import gateway

ONE, TWO, OTHER, BROKEN = ({"job_type": "noop", "payload": payload} for payload in (1, 2, 3, 4))
BROKEN = {**BROKEN, "priority": "high"}


async def asked(app: FastAPI, *lines: dict[str, Any], key: str | None = "kk") -> list[tuple[Any, Any]]:
    """Return the status (200 for an acknowledgement) and the id of each line."""
    headers = {"content-type": "application/x-ndjson"} | ({"idempotency-key": key} if key else {})
    content = "\n".join(map(json.dumps, lines))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        answer = await client.post("/v1/jobs/bulk", content=content, headers=headers)
    assert answer.status_code == 200
    found = [json.loads(line) for line in answer.text.splitlines()]
    return [(one.get("status", 200), one.get("job_id") or one["code"]) for one in found]


async def test_a_line_with_another_content_is_refused_alone(tmp_path: Path) -> None:
    app, log = gateway(tmp_path, express=True)
    first = await asked(app, ONE, TWO)
    assert [status for status, _ in first] == [200, 200]
    assert await asked(app, ONE, TWO) == first
    conflict = (409, "duplicate_with_other_content")
    assert await asked(app, OTHER, TWO) == [conflict, first[1]]
    assert await asked(app, TWO, ONE) == [conflict, conflict]
    assert await asked(app, ONE, {**TWO, "job_id": "mine"}) == [first[0], conflict]
    elsewhere = await asked(app, OTHER, key="another")
    assert elsewhere[0][0] == 200
    assert elsewhere[0][1] not in {identity for _, identity in first}
    assert [len(await asked(app, OTHER, key=None)) for _ in range(2)] == [1, 1]
    assert {event.payload.data for event in log.events} == {b"1", b"2", b"3"}


async def test_a_line_that_was_not_accepted_may_be_put_right(tmp_path: Path) -> None:
    app, log = gateway(tmp_path, express=True)
    assert [status for status, _ in await asked(app, BROKEN)] == [422]
    log.away = True
    assert [status for status, _ in await asked(app, ONE)] == [503]
    log.away = False
    assert [status for status, _ in await asked(app, TWO)] == [200]
    assert [status for status, _ in await asked(app, ONE)] == [409]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "LINES_REMEMBERED", 2)
    seen = LinesSeen()
    assert [seen.another(name, b"1") for name in ("a", "b", "c")] == [False] * 3
    assert (seen.another("c", b" 1\r"), seen.another("c", b"2"), seen.another("a", b"2")) == (False, True, False)


def test_callers_of_one_name_in_two_tenants_get_ids_of_their_own() -> None:
    found = set()
    for tenant in ("acme", "umbrella"):
        token = CALLER.set(Caller(name="ada", tenant=tenant, roles=frozenset({Role.SUBMIT})))
        try:
            found |= {
                _minted(JobRequest(job_type="t"), "kk", 0),
                _minted(JobRequest(job_type="t", tenant=tenant), "kk", 0),
            }
        finally:
            CALLER.reset(token)
    assert len(found) == 2
