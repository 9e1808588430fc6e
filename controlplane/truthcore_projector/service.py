"""The TruthCore process: owns the database, keeps it up to date, and answers."""

import asyncio
import logging
import signal
import ssl
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

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
from controlplane.truthcore_projector.archiving import archive_by_itself
from controlplane.truthcore_projector.background import answer_first
from controlplane.truthcore_projector.http import create_app
from controlplane.truthcore_projector.peers import Peers
from controlplane.truthcore_projector.projector import Projector
from controlplane.truthcore_projector.rebuilding import set_aside, switch, until_ready
from controlplane.truthcore_projector.shards import Shard, shard_of
from controlplane.truthcore_projector.snapshots import Snapshots, begin
from controlplane.truthcore_projector.store import LayoutDiffers, Store

AGAIN_SECONDS = 1.0
ASKED_BY = (Service.GATEWAY, Service.TRUTHCORE, Service.AUDITOR, ADMIN)
"""Whose certificates may ask for what is known; everybody else asks the gateway."""

logger = logging.getLogger(__name__)


async def _patient_topics(connection: LogConnection, settings: Settings) -> dict[str, int]:
    """Return the topics' partitions once the log answers."""
    while True:
        try:
            return await ensure_topics(connection, settings)
        except LogUnavailable as error:
            logger.warning("TruthCore waits for the log: %s", error)
            await asyncio.sleep(AGAIN_SECONDS)


async def _unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, dict[str, int]]) -> dict[str, int] | None:
    """Return what the work returns; None when told to stop first."""
    working, told = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait({working, told}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if not working.done():
        working.cancel()
    await asyncio.gather(working, told, return_exceptions=True)
    return None if working.cancelled() else working.result()


async def serve(settings: Settings) -> None:
    """Project and answer until told to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    connection = LogConnection.from_settings(settings)
    file = settings.truthcore_database or settings.data_dir / "truthcore.duckdb"
    file.parent.mkdir(parents=True, exist_ok=True)
    counts = await _unless_stopped(stop, _patient_topics(connection, settings))
    if counts is None:
        return
    while await _answer(settings, connection, file, counts, stop):
        logger.info("Switches to the projection that was folded beside this one.")


def _prepare(settings: Settings, file: Path, shard: Shard, urls: list[str], verify: ssl.SSLContext | bool) -> None:
    """Put the file in place that is to be opened: one that was folded anew, or a snapshot where there is none."""
    switch(file)
    if settings.truthcore_snapshot and not file.exists():
        begun = begin(settings.truthcore_snapshot, file, shard, urls, verify)
        if begun is not None:
            records = sum(n for some in begun.positions.values() for n in some.values())
            logger.info("Begins with a snapshot of %s: %d records need not be folded.", begun.made_by, records)


def _opened(settings: Settings, file: Path, shard: Shard, urls: list[str], verify: ssl.SSLContext | bool) -> Store:
    """Open the database; one of a release that kept its rows in another way is set aside, and another begun."""
    _prepare(settings, file, shard, urls, verify)
    try:
        return Store(file, shard=shard)
    except LayoutDiffers as error:
        aside = set_aside(file)
        logger.warning("%s It is done now; the other file is kept as %s until you remove it.", error, aside)
    _prepare(settings, file, shard, urls, verify)
    return Store(file, shard=shard)


async def _answer(
    settings: Settings, connection: LogConnection, file: Path, counts: dict[str, int], stop: asyncio.Event
) -> bool:
    """Project into a file and answer from it; True when another file is ready to take its place."""
    shard = shard_of(settings.truthcore_shard)
    urls = [url.strip().rstrip("/") for url in settings.truthcore_urls.split(",")]
    verify = client_context(settings.tls) if settings.tls else True
    store = await asyncio.to_thread(_opened, settings, file, shard, urls, verify)
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
        switching = asyncio.create_task(until_ready(file))
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(projector.run()),
            asyncio.create_task(stop.wait()),
            switching,
        ]
        if settings.truthcore_archive_days is not None:
            tasks.append(asyncio.create_task(archive_by_itself(store, settings.truthcore_archive_days)))
        if peers is not None:
            tasks.append(asyncio.create_task(directory.follow()))
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        again = switching.done() and not stop.is_set()
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    projector.close()
    store.close()
    for result in results:
        # Whichever ended the others is told, and whoever started this process starts it again.
        if isinstance(result, Exception):
            raise result
    return again


def run(settings: Settings) -> None:
    """Run TruthCore until it is told to stop."""
    configure_logging(settings, "truthcore")
    answer_first()
    uvloop.run(serve(settings))
