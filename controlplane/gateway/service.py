"""The gateway process: stateless; whatever it answers is on the log or comes from TruthCore."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI
from fastapi.responses import RedirectResponse

from controlplane import __version__
from controlplane.api.models import Problem
from controlplane.console import Console
from controlplane.contents import ContentStore
from controlplane.events.catalog import CONTROLS, RUNNERS, Service
from controlplane.gateway import contents, deadletters, operations, registry, secrets, session, submissions
from controlplane.gateway.capabilities import Capabilities
from controlplane.gateway.cores import TruthCores
from controlplane.gateway.governance import Governance
from controlplane.gateway.identity import Doorkeeper, Identities, IdentitiesInvalid
from controlplane.gateway.limits import BodyLimit, add_gateway_handlers
from controlplane.gateway.queries import add_queries
from controlplane.log.connection import LogConnection
from controlplane.log.producer import LogProducer
from controlplane.log.topics import ensure_topics
from controlplane.security.serving import server_config
from controlplane.settings import Settings
from controlplane.telemetry.health import Dependency, State, health_routes
from controlplane.telemetry.logs import configure_logging

BODY_LIMIT_BYTES = 16 * 1024 * 1024


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
        governance = Governance(connection, counts[CONTROLS.name])
        following = asyncio.gather(capabilities.follow(), governance.follow())
        store = ContentStore.from_settings(settings)
        app.state.door = submissions.Door(producer, capabilities, store, governance)
        app.state.governance = governance
        app.state.connection = connection
        app.state.truthcores = TruthCores(settings.truthcore_urls, settings.tls)
        app.state.truthcores.start()
        yield
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await app.state.truthcores.close()
        await producer.stop()

    app = FastAPI(
        title="ControlPlane", version=__version__, lifespan=lifespan, summary="Run jobs, and know what is true of them.",
        responses={code: {"model": Problem, "content": {"application/problem+json": {}}} for code in (404, 413, 422, 503)},
    )  # fmt: skip
    add_gateway_handlers(app)
    app.add_middleware(BodyLimit, limit_bytes=BODY_LIMIT_BYTES, streaming_paths=frozenset({"/v1/jobs/bulk"}))
    app.add_middleware(Doorkeeper, identities=identities)
    app.state.identities = identities
    app.include_router(session.router)
    app.include_router(secrets.router)  # Before jobs, whose ids may have slashes.
    app.include_router(submissions.router)
    app.include_router(operations.router)
    app.include_router(deadletters.router)
    app.include_router(contents.router)
    add_queries(app)
    app.include_router(registry.router)

    async def truthcore() -> Dependency:
        answer = await app.state.truthcores.ask("GET", "/health/live", b"", b"")
        return Dependency(state=State.OK if answer.status_code == 200 else State.DEGRADED)

    app.router.routes.extend(health_routes("gateway", {"truthcore": truthcore}))
    app.mount("/console", Console())

    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/console/")

    return app


def run(settings: Settings) -> None:
    """Run the gateway until it is told to stop."""
    configure_logging(settings, "gateway")
    try:
        app = create_app(settings)
    except IdentitiesInvalid as error:
        raise SystemExit(str(error)) from error
    clients = ssl.CERT_REQUIRED if settings.gateway_certificates == "required" else ssl.CERT_OPTIONAL
    config = server_config(
        app, settings.tls, clients=clients, host=settings.gateway_host, port=settings.gateway_port,
        timeout_graceful_shutdown=5, timeout_keep_alive=30, h11_max_incomplete_event_size=64 * 1024,
    )  # fmt: skip
    uvicorn.Server(config).run()
