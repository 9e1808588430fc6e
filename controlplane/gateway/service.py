"""The gateway process: stateless; whatever it answers is on the log or comes from TruthCore."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from prometheus_client import CollectorRegistry

from controlplane.console import Console
from controlplane.contents import ContentStore
from controlplane.events.catalog import CONTROLS, RUNNERS, Service
from controlplane.gateway import (
    asyncapi,
    bulk,
    contents,
    deadletters,
    governing,
    operations,
    registry,
    secrets,
    session,
    streaming,
    submissions,
)
from controlplane.gateway.capabilities import Capabilities
from controlplane.gateway.connection import PatientProtocol
from controlplane.gateway.cores import TruthCores
from controlplane.gateway.described import described
from controlplane.gateway.express import Express
from controlplane.gateway.governance import Governance
from controlplane.gateway.idempotency import Idempotency, LinesSeen
from controlplane.gateway.identity import Doorkeeper, Identities, IdentitiesInvalid
from controlplane.gateway.limits import Intake, add_gateway_handlers
from controlplane.gateway.live import Tail
from controlplane.gateway.measures import watch
from controlplane.gateway.pace import PaceLimit
from controlplane.gateway.reads import add_reads
from controlplane.gateway.rooms import room_for_streams
from controlplane.log.connection import LogConnection
from controlplane.log.producer import LogProducer
from controlplane.log.topics import ensure_topics
from controlplane.replicas.choice import behind_seconds
from controlplane.security.serving import server_config
from controlplane.settings import Settings
from controlplane.telemetry.health import Dependency, health_routes, process_metrics
from controlplane.telemetry.logs import configure_logging
from controlplane.telemetry.requests import Measured, RequestMeasures
from controlplane.telemetry.tracing import active, configure_tracing

LINES = frozenset({bulk.PATH})
"""Paths whose bodies are read line by line."""


def create_app(settings: Settings) -> FastAPI:
    """Return the gateway as an ASGI application; it connects when it starts.

    Raises:
        IdentitiesInvalid: the file of identities cannot be read.
    """
    identities = Identities(settings.identities) if settings.identities else None

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        connection = LogConnection.from_settings(settings)
        counts = await ensure_topics(connection, settings)
        producer = LogProducer(connection, service=Service.GATEWAY, partitions=counts)
        await producer.start()
        capabilities = Capabilities(connection, counts[RUNNERS.name])
        truthcores = TruthCores(settings.truthcore_urls, settings.tls, streams=app.state.streams)
        governance = Governance(
            connection, counts[CONTROLS.name], behind_seconds=lambda: behind_seconds(truthcores.directory.replicas),
            most_behind_seconds=settings.most_lag_seconds,
        )  # fmt: skip
        following = asyncio.gather(capabilities.follow(), governance.follow())
        store = ContentStore.from_settings(settings)
        app.state.door = submissions.Door(producer, capabilities, store, governance)
        app.state.governance = governance
        app.state.connection = connection
        app.state.tail = Tail(connection, counts)
        app.state.truthcores = truthcores
        truthcores.start()
        watch(app, metrics)
        yield
        await app.state.tail.stop()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await app.state.truthcores.close()
        await producer.stop()

    metrics = process_metrics()
    app = described(lifespan)
    app.state.streams = room_for_streams()
    app.state.lines_seen = LinesSeen()
    add_gateway_handlers(app)
    _add_layers(app, settings, identities, metrics)
    app.state.identities = identities
    for part in (session, secrets, bulk, streaming, submissions, operations, governing, deadletters, contents):
        app.include_router(part.router)
    add_reads(app)
    app.include_router(registry.router)
    app.include_router(asyncapi.router)

    async def log() -> Dependency:
        governance: Governance = app.state.governance
        return governance.health()

    async def truthcore() -> Dependency:
        truthcores: TruthCores = app.state.truthcores
        return await truthcores.health()

    app.router.routes.extend(health_routes("gateway", {"log": log, "truthcore": truthcore}, metrics))
    app.mount("/console", Console())

    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/console/")

    return app


class _Server(uvicorn.Server):
    """A server that tells its live streams to end before it waits for what is open."""

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: every stream says where it ends."""
        await self._app.state.tail.close()
        await super().shutdown(sockets)


def _add_layers(app: FastAPI, settings: Settings, identities: Identities | None, metrics: CollectorRegistry) -> None:
    """Put around the application what every request passes; the last one added is the first to see it."""
    app.add_middleware(Express)
    app.add_middleware(Idempotency, streaming_paths=LINES)
    app.add_middleware(Intake, streaming_paths=LINES)
    if settings.requests_per_second is not None:
        app.add_middleware(PaceLimit, per_second=settings.requests_per_second)
    app.add_middleware(Doorkeeper, identities=identities)
    app.add_middleware(Measured, measures=RequestMeasures(metrics))
    if (spans := active()) is not None:
        from controlplane.telemetry.spans import Traced

        app.add_middleware(Traced, spans=spans)


def run(settings: Settings) -> None:
    """Run the gateway until it is told to stop."""
    configure_logging(settings, "gateway")
    configure_tracing(settings, "gateway")
    try:
        app = create_app(settings)
    except IdentitiesInvalid as error:
        raise SystemExit(str(error)) from error
    clients = ssl.CERT_REQUIRED if settings.gateway_certificates == "required" else ssl.CERT_OPTIONAL
    config = server_config(
        app, settings.tls, clients=clients, host=settings.gateway_host, port=settings.gateway_port, loop="uvloop",
        http=PatientProtocol, ws="none", timeout_graceful_shutdown=5, timeout_keep_alive=30, backlog=2048, server_header=False,
    )  # fmt: skip
    _Server(app, config).run()
