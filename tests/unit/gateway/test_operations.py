"""What operators declare through the gateway, and what of it is shown to whom."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest
from fastapi import FastAPI

from controlplane.contents import ContentStore
from controlplane.contents.keys import KeyForgotten, KeyRing
from controlplane.events import types
from controlplane.events.header import Cause, outside_header
from controlplane.events.identity import Instant
from controlplane.events.job_contracts import Registry
from controlplane.events.types import LogPosition, Producer
from controlplane.gateway.callers import CALLER, Caller, Role
from controlplane.jobforge_agent.schedules import Due, fired
from tests.unit.gateway.test_express import Appended, gateway

LETTER = {"job_type": "letter.write", "payload": {"iban": "DE-XYZZY"}}
IDENTITY = Producer(service="jobforge", version="1", instance="one")


@pytest.fixture
def web(tmp_path: Path) -> tuple[FastAPI, Appended, ContentStore]:
    """Return a gateway with keys, and what it writes."""
    app, log = gateway(tmp_path, express=True)
    store = ContentStore(
        (tmp_path / "contents").as_uri(), inline_limit_bytes=1000, keys=KeyRing((tmp_path / "keys").as_uri(), bytes(32))
    )
    door = app.state.door
    door.contents = store
    app.state.governance = door.governance
    # What is declared counts as read at once: there is no log to read it from.
    door.governance._next = dict.fromkeys(door.governance.places, 8)
    return app, log, store


async def call(app: FastAPI, method: str, path: str, body: Any = None, caller: Caller | None = None) -> httpx.Response:
    token = CALLER.set(caller) if caller else None
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            return await client.request(method, path, json=body)
    finally:
        if token is not None:
            CALLER.reset(token)


def offering(app: FastAPI, job_type: str, schema: str) -> Registry:
    """Return what a gateway knows of runners, now that one of them offers a job type."""
    offer = types.Capability(job_type=job_type, version="1.0.0", payload_schema=schema)
    runner = types.RunnerRegistered(
        header=outside_header("RunnerRegistered", "r1", IDENTITY, Instant(1)), runner_id="r1", name="letters", slots=4, labels={},
        capabilities=(offer,), inbox_partition=0, heartbeat_seconds=2.0,
    )  # fmt: skip
    app.state.door.capabilities.registry = Registry({"r1": runner})
    return app.state.door.capabilities.registry  # type: ignore[no-any-return]


Web = tuple[FastAPI, Appended, ContentStore]


@pytest.mark.parametrize("size", [1, 3000])
async def test_what_a_schedule_submits_is_encrypted_as_a_job_is(web: Web, size: int) -> None:
    app, log, store = web
    registry = offering(app, "letter.write", '{"type": "object", "required": ["iban"]}')
    job = LETTER | {"payload": {"iban": "DE-XYZZY" * size}, "secret": "customer-17"}
    ada = Caller(name="ada", tenant="acme", roles=frozenset({Role.OPERATE}))
    found = await call(app, "PUT", "/v1/schedules/nightly", {"cron": "0 6 * * *", "job": job}, ada)
    assert found.status_code == 202, found.text
    [event] = log.events
    assert b"XYZZY" not in msgspec.json.encode(event)
    assert b"XYZZY" not in event.job.payload.data
    assert event.job.payload.encryption_key_id == "acme/customer-17"
    assert (event.job.payload.reference is None) == (size == 1)

    # So are the jobs that follow from it, until the name is forgotten.
    cause = Cause(position=LogPosition(topic="t", partition=0, offset=1), correlation_id="nightly", tenant="acme")
    submitted, _ = fired(event, Due(at=1_000_000, missed=0, too_late=False), cause, IDENTITY, running=False)
    assert isinstance(submitted, types.JobSubmitted)
    assert store.check_out(submitted.payload) == msgspec.json.encode(job["payload"])
    assert (
        registry.refusal("letter.write", 1, submitted.payload, "e") is None
    )  # JobForge takes it; the runner sees what is inside.
    assert store.keys is not None
    store.keys.forget("acme/customer-17")
    with pytest.raises(KeyForgotten):
        store.check_out(submitted.payload)
    again = await call(app, "PUT", "/v1/schedules/nightly", {"cron": "0 6 * * *", "job": job}, ada)
    assert (again.status_code, again.json()["code"], len(log.events)) == (410, "content_forgotten", 1)


async def test_a_payload_of_a_schedule_is_held_to_its_contract_before_it_is_encrypted(web: Web) -> None:
    app, log, _ = web
    offering(app, "letter.write", '{"type": "object", "required": ["bic"]}')
    job = LETTER | {"secret": "customer-17"}
    found = await call(app, "PUT", "/v1/schedules/nightly", {"cron": "0 6 * * *", "job": job})
    assert (found.status_code, found.json()["code"], log.events) == (422, "payload_invalid", [])


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/jobs", LETTER | {"secret": "s"}),
        ("POST", "/v1/jobs/bulk", LETTER | {"secret": "s"}),
        ("PUT", "/v1/schedules/nightly", {"cron": "0 6 * * *", "job": LETTER | {"secret": "s"}}),
    ],
)
async def test_a_key_that_is_not_to_be_had_is_said_by_name(web: Web, method: str, path: str, body: Any) -> None:
    app, log, store = web
    assert store.keys is not None
    store.keys.encrypt("default/s", b"")
    door = app.state.door
    door.contents = ContentStore(
        store._root, inline_limit_bytes=1000, keys=KeyRing(f"{Path(store._root).parent}/keys", b"x" * 32)
    )
    found = await call(app, method, path, body)
    problem = found.json()
    assert (problem["status"], problem["code"], problem["field"], log.events) == (500, "key_missing", "secret", [])


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/bulk"])
async def test_however_a_job_is_submitted_its_secret_is_kept(web: Web, path: str) -> None:
    app, log, store = web
    await call(app, "POST", path, LETTER | {"secret": "customer-17"})
    [event] = log.events
    assert event.payload.encryption_key_id == "default/customer-17"
    assert b"XYZZY" not in event.payload.data
    assert b"XYZZY" in store.check_out(event.payload)


@pytest.mark.parametrize("tenant", ["acme/eu", "acme:eu", "*"])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/jobs", LETTER),
        ("POST", "/v1/secrets/customer/forget", {}),
        ("POST", "/v1/assertions", {"subject": "s", "predicate": "p", "value": 1}),
        ("PUT", "/v1/shares/{tenant}", {"weight": 2}),
        ("PUT", "/v1/schedules/nightly", {"cron": "0 6 * * *", "job": LETTER}),
    ],
)
async def test_nothing_is_written_for_a_tenant_whose_name_is_two(
    web: Web, method: str, path: str, body: Any, tenant: str
) -> None:
    app, log, _ = web
    given = {"job": LETTER | {"tenant": tenant}} if "job" in body else {} if "weight" in body else {"tenant": tenant}
    found = await call(app, method, path.format(tenant=quote(tenant, safe="")), body | given)
    assert (found.status_code in {404, 422}, log.events) == (True, [])


async def test_limits_and_shares_of_another_tenant_are_not_shown(web: Web) -> None:
    app, log, _ = web
    subjects = (
        "key:acme/order-1", "key:acme/*", "key:umbrella/patient-4711", "key:umbrella/acme/x", "key:*", "key:acme*", "key:acme2/x",
        "tenant:acme", "tenant:umbrella", "tenant:*", "type:letter.write", "type:*",
    )  # fmt: skip
    for subject in subjects:
        assert (await call(app, "PUT", f"/v1/limits/{quote(subject, safe='')}", {"max_running": 3})).status_code == 202
    for tenant in ("acme", "umbrella", "acme2"):
        assert (await call(app, "PUT", f"/v1/shares/{tenant}", {"weight": 2})).status_code == 202
    for event in log.events:
        app.state.governance.controls.take(event)

    own = (await call(app, "GET", "/v1/controls", caller=Caller(name="eve", tenant="acme", roles=frozenset()))).json()
    assert set(own["limits"]) == {"key:acme/order-1", "key:acme/*", "tenant:acme", "type:letter.write", "type:*"}
    assert own["shares"] == {"acme": 2}
    everything = (await call(app, "GET", "/v1/controls")).json()
    assert set(everything["limits"]) == set(subjects)
    assert set(everything["shares"]) == {"acme", "umbrella", "acme2"}


@pytest.mark.parametrize("name", ["customer-17", "eu/customer-17"])
async def test_whatever_a_secret_is_called_it_can_be_forgotten(web: Web, name: str) -> None:
    app, log, store = web
    await call(app, "POST", "/v1/jobs", LETTER | {"secret": name})
    assert (await call(app, "POST", f"/v1/secrets/{name}/forget")).status_code == 202
    submitted, forgotten = log.events
    assert forgotten.key_id == f"default/{name}"
    with pytest.raises(KeyForgotten):
        store.check_out(submitted.payload)
