"""Serving HTTP, over TLS with client certificates when an identity is given; who is at the other end is in every request's state."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from controlplane.api.problems import problem_response
from controlplane.events.errors import envelope
from controlplane.security.certificates import subject_name
from controlplane.settings import TlsFiles
from controlplane.tls import server_context

PEER: Final = "peer"
STREAMS_END_SECONDS: Final = 3
"""A server that stops ends streams that have no end of their own after so long."""
OPEN_PATHS: Final = ("/health", "/metrics")
"""What anybody with a certificate of this installation may ask of any service."""


class PeerProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which also tells the application whose certificate a connection was opened with."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # A server gives it no other transports.
        """Read the peer's name once per connection; the handshake has checked the certificate by then."""
        super().connection_made(transport)
        certificate = transport.get_extra_info("peercert")
        self.app_state = {**self.app_state, PEER: subject_name(certificate) if certificate else None}


def peer_name(scope: Mapping[str, Any]) -> str | None:
    """Return the name in the client's certificate; None for a client that showed none, or came over plain HTTP."""
    name: str | None = scope.get("state", {}).get(PEER)
    return name


class OnlyPeers:
    """Refuse whoever is not named, except at the paths of health and metrics (ASGI middleware)."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        """Wrap an application."""
        self._app = app
        self._names = frozenset(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"].startswith(OPEN_PATHS) or peer_name(scope) in self._names:
            await self._app(scope, receive, send)
            return
        wanted, found = ", ".join(sorted(self._names)), peer_name(scope)
        error = envelope("forbidden", f"Expected a certificate of {wanted}, but found that of {found}.", expected=wanted, found=found)  # fmt: skip
        await problem_response(error, 403, scope["path"])(scope, receive, send)


def server_config(
    app: ASGIApp, tls: TlsFiles | None, *, clients: ssl.VerifyMode = ssl.CERT_REQUIRED, **named: Any
) -> uvicorn.Config:
    """Return the configuration of a server that says nothing of single requests; `named` are uvicorn's own settings."""
    secured: dict[str, Any] = {}
    if tls is not None:
        context = server_context(tls, clients=clients)  # Here, so that files that cannot be used end the start.
        secured = {"ssl_context_factory": lambda *_: context, "http": PeerProtocol}
    return uvicorn.Config(app, log_config=None, access_log=False, **{**secured, **named})


@asynccontextmanager
async def serving(app: ASGIApp, host: str, port: int, tls: TlsFiles | None = None) -> AsyncIterator[int]:
    """Serve an application beside the work of this event loop while the block runs; yields the port.

    Raises:
        OSError: the port is taken.
    """
    config = server_config(app, tls, lifespan="off", timeout_graceful_shutdown=STREAMS_END_SECONDS)
    listener = socket.create_server((host, port))
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve([listener]), name="health")  # noqa: SLF001 -- serve() would take over the signals
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
