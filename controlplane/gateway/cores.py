"""The TruthCore processes behind the gateway: each read goes to one that is up, reflects what is asked for, and is least busy."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Final
from urllib.parse import parse_qs, unquote

import httpx
from fastapi.responses import Response

from controlplane.api.problems import Refused, refused
from controlplane.api.tenants import TENANTS_HEADER
from controlplane.gateway.callers import CALLER
from controlplane.gateway.rooms import MEDIA_TYPE, LiveAnswer, Room, room_for_streams, room_for_waits
from controlplane.log.positions import Partition, PositionInvalid, parse_position
from controlplane.replicas.choice import Replica
from controlplane.replicas.directory import Directory
from controlplane.settings import TlsFiles
from controlplane.telemetry.health import CHECK_LIMIT_SECONDS, Dependency, State
from controlplane.tls import client_context

ANSWER_WITHIN_SECONDS: Final = 40.0
READS_AT_ONCE: Final = 100
"""On their way to one process, beside those that wait; what comes then waits for a connection."""
CONNECTION_WITHIN_SECONDS: Final = 5.0
IDLE_CONNECTIONS: Final = 20
HEALTH_WITHIN_SECONDS: Final = 1.5
_ASKED_HEADERS: Final = ("accept", "content-type", "last-event-id")
_KEPT_HEADERS: Final = (
    "content-type", "content-disposition", "cache-control", "retry-after", "controlplane-answered-by", "controlplane-lag-records",
    "controlplane-next-cursor",
)  # fmt: skip

assert HEALTH_WITHIN_SECONDS < CHECK_LIMIT_SECONDS  # It is we who say what silence means.


class TruthCores:
    """Asks one TruthCore after the other, the best first, until one answers.

    Three kinds of questions have connections of their own, so that none keeps another waiting: reads that are answered as fast as they can
    be, so many of each process; feeds and reads that wait for something, which are counted by tenant; and how the processes are.
    """

    def __init__(self, urls: str, tls: TlsFiles | None = None, *, streams: Room | None = None) -> None:
        """Prepare for the comma-separated URLs, with this certificate; feeds share the room for streams. `start` begins to look how each stands."""
        verify = client_context(tls) if tls else True
        self.directory = Directory([url.strip() for url in urls.split(",") if url.strip()], verify)
        self._streams = streams or room_for_streams()
        self._waits = room_for_waits()
        within = httpx.Timeout(ANSWER_WITHIN_SECONDS, pool=CONNECTION_WITHIN_SECONDS)
        limits = httpx.Limits(max_connections=READS_AT_ONCE, max_keepalive_connections=IDLE_CONNECTIONS)
        # One for each process: one that is stuck keeps its own connections alone.
        self._reads = {
            one.url: httpx.AsyncClient(timeout=within, limits=limits, verify=verify) for one in self.directory.replicas
        }
        # Without a limit of its own: the rooms are.
        unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=IDLE_CONNECTIONS)
        self._patient = httpx.AsyncClient(timeout=ANSWER_WITHIN_SECONDS, limits=unlimited, verify=verify)
        self._following: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow how each process stands."""
        self._following = asyncio.create_task(self.directory.follow())

    async def close(self) -> None:
        """Disconnect."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        for client in (self._patient, *self._reads.values()):
            await client.aclose()

    async def health(self) -> Dependency:
        """Return how reads are. They are never down: writes go on without them, so that this gateway is to stay where it is asked."""
        try:
            async with asyncio.timeout(HEALTH_WITHIN_SECONDS), contextlib.AsyncExitStack() as held:
                answer = await self._first("GET", "/health/ready", {}, b"", {}, held, self._patient)
        except TimeoutError:
            detail = f"Expected TruthCore to answer within {HEALTH_WITHIN_SECONDS} s, but it did not."
            return Dependency(state=State.DEGRADED, detail=f"Writes go on, reads do not: {detail}")
        except Refused as refusal:
            return Dependency(state=State.DEGRADED, detail=f"Writes go on, reads do not: {refusal}")
        if answer.status_code != 200:
            return Dependency(state=State.DEGRADED, detail="Reads may be behind: it is not ready.")
        return Dependency(state=State.OK)

    async def ask(
        self, method: str, path: str, query: bytes, body: bytes, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Return TruthCore's answer as it is; a feed is passed on as it comes.

        Raises:
            Refused: no process can be reached, or too many feeds are open, or too many reads on their way.
        """
        given = {name: value for name in _ASKED_HEADERS if (value := (headers or {}).get(name))}
        if not (caller := CALLER.get()).of_all_tenants:
            given[TENANTS_HEADER] = caller.tenant
        wanted = wanted_of(query)
        target = path + (f"?{query.decode('latin-1')}" if query else "")
        async with contextlib.AsyncExitStack() as held:
            client: httpx.AsyncClient | None = None
            if MEDIA_TYPE in given.get("accept", ""):
                held.enter_context(self._streams.place())
                client = self._patient
            elif may_wait(path, wanted):
                held.enter_context(self._waits.place())
                client = self._patient
            return await self._first(method, target, wanted, body, given, held, client)

    async def _first(
        self, method: str, target: str, wanted: Mapping[Partition, int], body: bytes, headers: Mapping[str, str],
        held: contextlib.AsyncExitStack, client: httpx.AsyncClient | None,
    ) -> Response:  # fmt: skip
        """Return the answer of the first process that gives one; a feed takes along what is held for it."""
        fault: httpx.TransportError | None = None
        full = False
        for replica in self.directory.best(wanted):
            one = client or self._reads[replica.url]
            request = one.build_request(method, replica.url + target, content=body, headers=headers)
            try:
                with self.directory.asking(replica):
                    return await self._answer(one, request, replica, held)
            except httpx.TransportError as error:
                fault = error
                full = full or isinstance(error, httpx.PoolTimeout)
        if full:
            text = f"Expected at most {READS_AT_ONCE} reads at once, but there are more, and none ended within {CONNECTION_WITHIN_SECONDS} s."
            raise refused("overloaded", text, expected=f"at most {READS_AT_ONCE}")
        raise refused("projection_unavailable", f"Expected TruthCore to answer, but: {fault!r}.")

    async def _answer(
        self, client: httpx.AsyncClient, request: httpx.Request, replica: Replica, held: contextlib.AsyncExitStack
    ) -> Response:
        answer = await client.send(request, stream=True)
        kept = {name: value for name in _KEPT_HEADERS if (value := answer.headers.get(name))}
        if answer.headers.get("content-type", "").startswith(MEDIA_TYPE):
            held.push_async_callback(answer.aclose)
            feed = self._passed_on(answer, replica)
            return LiveAnswer(feed, held.pop_all(), status_code=answer.status_code, headers=kept)
        try:
            content = await answer.aread()
        finally:
            await answer.aclose()
        return Response(content, answer.status_code, headers=kept)

    async def _passed_on(self, answer: httpx.Response, replica: Replica) -> AsyncIterator[bytes]:
        """Pass a feed on; when its process goes, it ends, and the reader comes again with the last position that it has."""
        try:
            async for some in answer.aiter_raw():
                yield some
        except httpx.TransportError as error:
            self.directory.lost(replica, error)


def may_wait(path: str, wanted: Mapping[Partition, int]) -> bool:
    """Say whether a read may take as long as its asker likes, until there is a result or the positions are reached."""
    return bool(wanted) or unquote(path).endswith("/result")


def wanted_of(query: bytes) -> dict[Partition, int]:
    """Return the positions that a query's `min_position` names; what is no position is left to TruthCore to refuse."""
    wanted: dict[Partition, int] = {}
    for text in parse_qs(query.decode("latin-1")).get("min_position", []):
        try:
            place = parse_position(text)
        except PositionInvalid:
            continue
        one = (place.topic, place.partition)
        wanted[one] = max(wanted.get(one, 0), place.offset)
    return wanted
