"""The TruthCore process: owns the database, keeps it up to date, and answers."""

import asyncio
import logging
import signal

import uvloop

from controlplane.events.catalog import Service
from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.log.topics import ensure_topics
from controlplane.security.certificates import ADMIN
from controlplane.security.serving import OnlyPeers, serving
from controlplane.settings import Settings
from controlplane.telemetry.health import Dependency, State
from controlplane.telemetry.logs import configure_logging
from controlplane.truthcore_projector.http import create_app
from controlplane.truthcore_projector.projector import Projector
from controlplane.truthcore_projector.store import Store

AGAIN_SECONDS = 1.0
ASKED_BY = (Service.GATEWAY, Service.AUDITOR, ADMIN)
"""Whose certificates may ask for what is known; everybody else asks the gateway."""

logger = logging.getLogger(__name__)


async def patient_topics(connection: LogConnection, settings: Settings) -> dict[str, int]:
    """Return the topics' partitions once the log answers."""
    while True:
        try:
            return await ensure_topics(connection, settings)
        except LogUnavailable as error:
            logger.warning("TruthCore waits for the log: %s", error)
            await asyncio.sleep(AGAIN_SECONDS)


async def serve(settings: Settings) -> None:
    """Project and answer until told to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    connection = LogConnection.from_settings(settings)
    file = settings.truthcore_database or settings.data_dir / "truthcore.duckdb"
    file.parent.mkdir(parents=True, exist_ok=True)
    counts = await patient_topics(connection, settings)
    store = Store(file)
    projector = Projector(connection, store, counts)

    async def log() -> Dependency:
        return Dependency(state=State.OK if projector.reading else State.DEGRADED)

    app = create_app(store, projector, {"log": log}, lease_seconds=settings.lease_seconds)
    if settings.tls is not None:
        app.add_middleware(OnlyPeers, names=ASKED_BY)
    async with serving(app, settings.truthcore_host, settings.truthcore_port, settings.tls) as port:
        logger.info("TruthCore answers on port %d.", port)
        projecting = asyncio.create_task(projector.run())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({projecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (projecting, stopping):
            task.cancel()
        results = await asyncio.gather(projecting, stopping, return_exceptions=True)
    store.close()
    if isinstance(results[0], Exception):
        raise results[0]


def run(settings: Settings) -> None:
    """Run TruthCore until it is told to stop."""
    configure_logging(settings, "truthcore")
    uvloop.run(serve(settings))
