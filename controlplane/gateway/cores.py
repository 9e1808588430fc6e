"""The TruthCore processes behind the gateway: each read goes to one that is up, reflects what is asked for, and is least busy."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Final
from urllib.parse import parse_qs

import httpx
from fastapi.responses import Response, StreamingResponse

from controlplane.api.problems import refused
from controlplane.api.tenants import TENANTS_HEADER
from controlplane.gateway.callers import CALLER
from controlplane.log.positions import Partition, PositionInvalid, parse_position
from controlplane.replicas.choice import Replica
from controlplane.replicas.directory import Directory
from controlplane.settings import TlsFiles
from controlplane.tls import client_context

ANSWER_WITHIN_SECONDS: Final = 40.0
_ASKED_HEADERS: Final = ("accept", "content-type", "last-event-id")
_KEPT_HEADERS: Final = (
    "content-type", "content-disposition", "cache-control", "retry-after", "controlplane-answered-by", "controlplane-lag-records",
    "controlplane-next-cursor",
)  # fmt: skip


class TruthCores:
    """Asks one TruthCore after the other, the best first, until one answers."""

    def __init__(self, urls: str, tls: TlsFiles | None = None) -> None:
        """Prepare for the comma-separated URLs, with this certificate; `start` begins to look how each stands."""
        verify = client_context(tls) if tls else True
        self.directory = Directory([url.strip() for url in urls.split(",") if url.strip()], verify)
        self._client = httpx.AsyncClient(timeout=ANSWER_WITHIN_SECONDS, verify=verify)
        self._following: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow how each process stands."""
        self._following = asyncio.create_task(self.directory.follow())

    async def close(self) -> None:
        """Disconnect."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._client.aclose()

    async def ask(
        self, method: str, path: str, query: bytes, body: bytes, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Return TruthCore's answer as it is; one that comes bit by bit (a feed, a large table) is passed on so.

        Raises:
            Refused: no process can be reached.
        """
        target = path + (f"?{query.decode('latin-1')}" if query else "")
        given = {name: value for name in _ASKED_HEADERS if (value := (headers or {}).get(name))}
        if not (caller := CALLER.get()).of_all_tenants:
            given[TENANTS_HEADER] = caller.tenant
        fault: httpx.TransportError | None = None
        for replica in self.directory.best(wanted_of(query)):
            request = self._client.build_request(method, replica.url + target, content=body, headers=given)
            try:
                with self.directory.asking(replica):
                    return await self._answer(request, replica)
            except httpx.TransportError as error:
                fault = error
        raise refused("projection_unavailable", f"Expected TruthCore to answer, but: {fault!r}.")

    async def _answer(self, request: httpx.Request, replica: Replica) -> Response:
        answer = await self._client.send(request, stream=True)
        kept = {name: value for name in _KEPT_HEADERS if (value := answer.headers.get(name))}
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            return StreamingResponse(self._passed_on(answer, replica), answer.status_code, headers=kept)
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
        finally:
            await answer.aclose()


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
