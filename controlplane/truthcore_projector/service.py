"""The TruthCore process: owns the database, keeps it up to date, and answers."""

import asyncio
import logging
import signal

import uvloop

from controlplane.events.catalog import Service
from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.log.topics import ensure_topics
from controlplane.replicas.directory import Directory
from controlplane.security.certificates import ADMIN
from controlplane.security.serving import OnlyPeers, serving
from controlplane.settings import Settings
from controlplane.telemetry.health import Dependency, State
from controlplane.telemetry.logs import configure_logging
from controlplane.tls import client_context
from controlplane.truthcore_projector.http import create_app
from controlplane.truthcore_projector.peers import Peers
from controlplane.truthcore_projector.projector import Projector
from controlplane.truthcore_projector.shards import shard_of
from controlplane.truthcore_projector.snapshots import Snapshots, begin
from controlplane.truthcore_projector.store import Store

AGAIN_SECONDS = 1.0
ASKED_BY = (Service.GATEWAY, Service.TRUTHCORE, Service.AUDITOR, ADMIN)
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
    shard = shard_of(settings.truthcore_shard)
    urls = [url.strip().rstrip("/") for url in settings.truthcore_urls.split(",")]
    verify = client_context(settings.tls) if settings.tls else True
    if settings.truthcore_snapshot and not file.exists():
        begun = await asyncio.to_thread(begin, settings.truthcore_snapshot, file, shard, urls, verify)
        if begun is not None:
            records = sum(n for some in begun.positions.values() for n in some.values())
            logger.info("Begins with a snapshot of %s: %d records need not be folded.", begun.made_by, records)
    store = Store(file, shard=shard)
    snapshots = Snapshots(store, file.with_name(f"{file.name}.snapshots"), settings.truthcore_name)
    projector = Projector(connection, store, counts, shard=shard, name=settings.truthcore_name)
    directory = Directory(urls, verify)
    peers = Peers(directory, verify) if shard.of > 1 else None

    async def log() -> Dependency:
        return Dependency(state=State.OK if projector.reading else State.DEGRADED)

    app = create_app(store, projector, {"log": log}, peers, snapshots=snapshots, lease_seconds=settings.lease_seconds)
    if settings.tls is not None:
        app.add_middleware(OnlyPeers, names=ASKED_BY)
    async with serving(app, settings.truthcore_host, settings.truthcore_port, settings.tls) as port:
        logger.info("TruthCore answers on port %d.", port)
        tasks = [asyncio.create_task(projector.run()), asyncio.create_task(stop.wait())]
        if peers is not None:
            tasks.append(asyncio.create_task(directory.follow()))
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    projector.close()
    store.close()
    if isinstance(results[0], Exception):
        raise results[0]


def run(settings: Settings) -> None:
    """Run TruthCore until it is told to stop."""
    configure_logging(settings, "truthcore")
    uvloop.run(serve(settings))
