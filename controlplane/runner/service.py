"""Start a runner process from `package.module:runner`."""

import asyncio
import gc
import logging
import signal
from typing import Final

import uvloop
from prometheus_client import REGISTRY

from controlplane.contents import ContentStore
from controlplane.log.connection import LogConnection, LogRefused, LogUnavailable
from controlplane.log.topics import ensure_topics
from controlplane.runner.capability import CapabilityInvalid
from controlplane.runner.definition import Runner
from controlplane.runner.joblogs import JobLogHandler
from controlplane.runner.loading import RunnerMissing, load_runner
from controlplane.runner.presence import AGAIN_SECONDS
from controlplane.runner.process import HandlersStuck, RunnerProcess
from controlplane.security.serving import serving
from controlplane.settings import Settings
from controlplane.telemetry.health import health_app
from controlplane.telemetry.logs import configure_logging
from controlplane.telemetry.tracing import configure_tracing

__all__ = ["CapabilityInvalid", "RunnerMissing", "run", "serve"]

COLLECT_AFTER_OBJECTS: Final = 50_000
"""Handlers make garbage at the rate of jobs; with the default of 700 a tenth of the time is spent looking for cycles."""

logger = logging.getLogger(__name__)


async def serve(settings: Settings, runner: Runner, target: str | None = None, *, slots: int | None = None) -> None:
    """Run one process of a runner until SIGTERM or SIGINT; a second signal ends it without waiting for handlers.

    Raises:
        HandlersStuck: handlers that do not stop hold all slots.
    """
    stop = asyncio.Event()
    work = asyncio.create_task(_until(stop, settings, runner, target, slots))

    def told_to_stop() -> None:
        if stop.is_set():
            work.cancel()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_stop)
    try:
        await work
    except asyncio.CancelledError:
        logger.warning("Ended without waiting for the handlers; their jobs run elsewhere.")


async def _until(
    stop: asyncio.Event, settings: Settings, runner: Runner, target: str | None, slots: int | None
) -> None:
    connection = LogConnection.from_settings(settings)
    partitions = await _topics(connection, settings, stop)
    if partitions is None:
        return
    process = RunnerProcess(
        runner, connection, partitions, ContentStore.from_settings(settings), slots=slots,
        heartbeat_seconds=settings.heartbeat_seconds, inline_limit_bytes=settings.payload_limit_bytes, target=target,
        registry=REGISTRY,
    )  # fmt: skip
    async with serving(
        health_app("runner", process.checks()), settings.health_host, settings.health_port, settings.tls
    ) as port:
        logger.info(
            "Health and metrics of %s on %s://%s:%d.",
            process.runner_id,
            "https" if settings.tls else "http",
            settings.health_host,
            port,
        )
        await process.run(stop)


async def _topics(connection: LogConnection, settings: Settings, stop: asyncio.Event) -> dict[str, int] | None:
    """Return the partitions of the topics once the log answers; None when told to stop before it does."""
    while not stop.is_set():
        try:
            return await ensure_topics(connection, settings)
        except LogRefused:
            raise  # Waiting does not help; somebody has to give this runner the right.
        except LogUnavailable as error:
            logger.warning("Waiting for the log: %s", error)
            await asyncio.sleep(AGAIN_SECONDS)
    return None


def run(settings: Settings, target: str, *, name: str | None = None, slots: int | None = None) -> None:
    """Run the runner at `package.module:name` until it is told to stop; `name` and `slots` take the place of its own.

    Raises:
        RunnerMissing: there is none, or importing it fails to find it.
        CapabilityInvalid: a capability takes more slots than there are.
        SystemExit: handlers that do not stop hold all slots (a supervisor starts the process again), or the log refuses this runner.
    """
    runner = load_runner(target)
    if name is not None:
        runner.name = name
    most = max(runner.handlers.values(), key=lambda handler: handler.slots)
    if slots is not None and slots < most.slots:
        raise CapabilityInvalid(f"Expected at least {most.slots} slots for {most.label}, but found {slots}.")
    configure_logging(settings, f"runner {runner.name}")
    configure_tracing(settings, f"runner-{runner.name}")
    logging.getLogger().addHandler(JobLogHandler())
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS)
    try:
        uvloop.run(serve(settings, runner, target, slots=slots))
    except (HandlersStuck, LogRefused) as error:
        raise SystemExit(str(error)) from error
