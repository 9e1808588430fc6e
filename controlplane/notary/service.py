"""The notary process."""

import asyncio
import logging
import signal

import uvloop

from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.log.topics import ensure_topics
from controlplane.notary.keys import KeyInvalid, private_key, public_keys_file, publish
from controlplane.notary.notary import Notary
from controlplane.security.serving import serving
from controlplane.settings import Settings
from controlplane.telemetry.health import Dependency, State, health_app
from controlplane.telemetry.logs import configure_logging

AGAIN_SECONDS = 1.0

logger = logging.getLogger(__name__)


async def _patient_topics(connection: LogConnection, settings: Settings, stop: asyncio.Event) -> dict[str, int] | None:
    """Return the topics' partitions once the log answers; None when told to stop first."""
    while not stop.is_set():
        try:
            return await ensure_topics(connection, settings)
        except LogUnavailable as error:
            logger.warning("The notary waits for the log: %s", error)
            await asyncio.sleep(AGAIN_SECONDS)
    return None


async def serve(settings: Settings) -> None:
    """Sign until told to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        key = private_key(settings)
        trusted = publish(key, public_keys_file(settings))
    except (KeyInvalid, OSError) as error:
        raise SystemExit(str(error)) from error
    connection = LogConnection.from_settings(settings)
    counts = await _patient_topics(connection, settings, stop)
    if counts is None:
        return
    notary = Notary(
        connection,
        key,
        trusted,
        counts,
        every_records=settings.checkpoint_records,
        every_seconds=settings.checkpoint_seconds,
    )

    async def log() -> Dependency:
        return Dependency(state=State.OK if notary.reading else State.DEGRADED)

    async with serving(health_app("notary", {"log": log}), settings.health_host, settings.health_port, settings.tls):
        await notary.run(stop)


def run(settings: Settings) -> None:
    """Run the notary until it is told to stop."""
    configure_logging(settings, "notary")
    uvloop.run(serve(settings))
