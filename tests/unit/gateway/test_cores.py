"""What many open answers, a TruthCore that is busy and one that is frozen do to everybody else's reads, and to the gateway's own health."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Mapping
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi.responses import Response
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from controlplane.api.models import Reflects
from controlplane.api.problems import Refused
from controlplane.api.replicas import Standing
from controlplane.gateway import cores, rooms
from controlplane.gateway.callers import ANYBODY, CALLER, Caller
from controlplane.gateway.cores import TruthCores
from controlplane.gateway.rooms import Room, room_for_streams
from controlplane.gateway.service import create_app
from controlplane.security.serving import serving
from controlplane.settings import Settings
from controlplane.telemetry.health import CHECK_LIMIT_SECONDS, Dependency, State, health

EVE = Caller(name="eve", tenant="acme", roles=frozenset())
BOB = Caller(name="bob", tenant="umbrella", roles=frozenset())
STREAM = {"accept": "text/event-stream"}


class Core:
    """A TruthCore as far as the gateway sees it; slow reads and waits go on when they are told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.arrived: asyncio.Queue[str] = asyncio.Queue()

    async def feed(self, request: Request) -> Any:
        async def events() -> AsyncIterator[bytes]:
            yield b"event: place\n\n"
            await self.go_on.wait()

        if "text/event-stream" not in request.headers["accept"]:
            return JSONResponse({"changes": []})
        return StreamingResponse(events(), media_type="text/event-stream")

    async def read(self, _: Request) -> JSONResponse:
        return JSONResponse({})

    async def wait(self, request: Request) -> JSONResponse:
        self.arrived.put_nowait(request.url.path)
        await self.go_on.wait()
        return JSONResponse({})

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/truths/changes", self.feed), Route("/v1/jobs/slow", self.wait), Route("/v1/jobs/x/result", self.wait),
                Route("/v1/jobs/x", self.read), Route("/v1/truths", self.wait), Route("/health/ready", self.read),
            ]
        )  # fmt: skip


@contextlib.asynccontextmanager
async def running(count: int = 1, streams: Room | None = None) -> AsyncIterator[tuple[TruthCores, list[Core]]]:
    """Run TruthCores that are known to be up, and what asks them."""
    some = [Core() for _ in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(serving(core.app(), "127.0.0.1", 0, None)) for core in some]
        asker = TruthCores(",".join(f"http://127.0.0.1:{port}" for port in ports), streams=streams)
        stack.push_async_callback(asker.close)
        for replica in asker.directory.replicas:
            replica.standing = Standing(
                name="one",
                shard=0,
                shards=1,
                reading=True,
                reflects=Reflects(positions={}, lag_records=0, lag_seconds=0),
            )
        try:
            yield asker, some
        finally:
            for core in some:
                core.go_on.set()


async def ask(
    asker: TruthCores, path: str, caller: Caller = ANYBODY, query: bytes = b"", headers: Mapping[str, str] | None = None
) -> Response:
    token = CALLER.set(caller)
    try:
        return await asker.ask("GET", path, query, b"", headers)
    finally:
        CALLER.reset(token)


async def overloaded(
    asker: TruthCores, path: str, caller: Caller, query: bytes = b"", headers: Mapping[str, str] | None = None
) -> Refused:
    with pytest.raises(Refused) as refusal:
        await ask(asker, path, caller, query, headers)
    assert (refusal.value.error.code, refusal.value.status) == ("overloaded", 503)
    assert refusal.value.error.retry_after_seconds is not None
    return refusal.value


async def listen(answer: Response) -> "tuple[asyncio.Task[None], asyncio.Event]":
    """Be the client of a stream: returns once it has the first part; it leaves when the event is set."""
    begun, leave = asyncio.Event(), asyncio.Event()

    async def receive() -> dict[str, Any]:
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message.get("body"):
            begun.set()

    task = asyncio.create_task(answer({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send))
    await begun.wait()
    return task, leave


async def test_feeds_take_no_connections_of_reads_and_no_more_places_than_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cores, "READS_AT_ONCE", 1)
    room = Room("live streams", at_most=5, of_a_tenant=3, again_seconds=5)
    async with running(streams=room) as (asker, _):
        clients = [await listen(await ask(asker, "/v1/truths/changes", EVE, headers=STREAM)) for _ in range(3)]
        own = await overloaded(asker, "/v1/truths/changes", EVE, headers=STREAM)
        assert (own.error.expected, own.error.retry_after_seconds) == ("at most 3", 5)
        assert "of acme" in str(own)

        clients += [await listen(await ask(asker, "/v1/truths/changes", BOB, headers=STREAM)) for _ in range(2)]
        everybodys = await overloaded(asker, "/v1/truths/changes", BOB, headers=STREAM)
        assert (everybodys.error.expected, "umbrella" in str(everybodys)) == ("at most 5", False)
        await overloaded(asker, "/v1/truths/changes", ANYBODY, headers=STREAM)

        assert (await ask(asker, "/v1/jobs/x", BOB)).status_code == 200
        assert (await ask(asker, "/v1/truths/changes", EVE, headers={"accept": "application/json"})).status_code == 200
        assert (await asker.health()).state is State.OK
        assert room.taken == 5
        for _, leave in clients:
            leave.set()
        await asyncio.gather(*(task for task, _ in clients))
        assert room.taken == 0
        assert (
            await ask(asker, "/v1/jobs/x", EVE, headers=STREAM)
        ).status_code == 200  # It asked for a stream and got none.
        assert room.taken == 0
        [task, leave] = await listen(await ask(asker, "/v1/truths/changes", EVE, headers=STREAM))
        leave.set()
        await task


async def test_reads_that_wait_leave_the_others_their_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "READS_AT_ONCE", 1)
    monkeypatch.setattr(rooms, "WAITS_AT_MOST", 4)
    monkeypatch.setattr(rooms, "WAITS_OF_A_TENANT", 3)
    position = b"min_position=controlplane.jobs/3/17"
    async with running() as (asker, [core]):
        waits = [
            ("/v1/jobs/x/result", b"wait_seconds=30"), ("/v1/jobs/x/%72esult", b""), ("/v1/truths", position.replace(b"_", b"%5F")),
        ]  # fmt: skip
        tasks = [asyncio.create_task(ask(asker, path, EVE, query)) for path, query in waits]
        for _ in tasks:
            await core.arrived.get()
        await overloaded(asker, "/v1/jobs/x/result", EVE)
        await overloaded(asker, "/v1/truths", EVE, position)
        tasks.append(asyncio.create_task(ask(asker, "/v1/jobs/x/result", BOB)))
        await core.arrived.get()
        await overloaded(asker, "/v1/jobs/x/result", BOB)
        for caller in (EVE, BOB):
            assert (await ask(asker, "/v1/jobs/x", caller)).status_code == 200
        core.go_on.set()
        assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}
        assert (await ask(asker, "/v1/jobs/x/result", EVE)).status_code == 200


async def test_more_reads_than_connections_are_told_so_and_their_truthcore_is_not_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cores, "READS_AT_ONCE", 1)
    monkeypatch.setattr(cores, "CONNECTION_WITHIN_SECONDS", 0.1)
    async with running() as (asker, [core]):
        slow = asyncio.create_task(ask(asker, "/v1/jobs/slow", EVE))
        await core.arrived.get()
        await overloaded(asker, "/v1/jobs/x", BOB)
        assert asker.directory.replicas[0].standing is not None
        assert "not asked any more" not in caplog.text
        assert (await asker.health()).state is State.OK
        core.go_on.set()
        assert (await slow).status_code == 200


async def test_a_process_that_is_busy_leaves_the_connections_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "READS_AT_ONCE", 1)
    monkeypatch.setattr(cores, "CONNECTION_WITHIN_SECONDS", 0.1)
    async with running(2) as (asker, some):
        slow = asyncio.create_task(ask(asker, "/v1/jobs/slow"))
        await some[0].arrived.get()
        busy = asker.directory.replicas[0]
        busy.questions = -1  # It would be asked first all the same.
        assert (await ask(asker, "/v1/jobs/x")).status_code == 200
        for core in some:
            core.go_on.set()
        await slow


async def test_a_truthcore_that_never_answers_does_not_take_the_gateway_out_of_service() -> None:
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        asker = TruthCores(f"http://127.0.0.1:{frozen.getsockname()[1]}")

        async def log() -> Dependency:
            return Dependency(state=State.OK)

        begun = time.monotonic()
        found = await health("gateway", {"log": log, "truthcore": asker.health})
        assert time.monotonic() - begun < CHECK_LIMIT_SECONDS
        await asker.close()
    assert found.state is State.DEGRADED
    assert "Writes go on, reads do not" in found.dependencies["truthcore"].detail


async def test_a_truthcore_that_is_not_there_does_not_either() -> None:
    asker = TruthCores("http://127.0.0.1:1")
    assert (await asker.health()).state is State.DEGRADED
    await asker.close()


async def test_streams_of_the_log_and_of_truthcore_share_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "STREAMS_OF_A_TENANT", 2)
    app = create_app(Settings())
    app.state.tail = SimpleNamespace(places=[], next={})
    async with running(streams=app.state.streams) as (asker, _):
        app.state.truthcores = asker
        clients = [await listen(await ask(asker, "/v1/truths/changes", EVE, headers=STREAM)) for _ in range(2)]
        token = CALLER.set(EVE)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            for path in ("/v1/events/stream", "/v1/truths/changes"):
                found = await client.get(path, headers=STREAM)
                assert (found.status_code, found.headers["retry-after"]) == (503, "5")
                assert found.json()["code"] == "overloaded"
        CALLER.reset(token)
        for task, leave in clients:
            leave.set()
            await task


def test_a_place_is_given_back_however_an_answer_ends() -> None:
    room = room_for_streams()
    with contextlib.suppress(RuntimeError), room.place():
        assert room.taken == 1
        raise RuntimeError
    assert (room.taken, len(room._by_tenant)) == (0, 0)
