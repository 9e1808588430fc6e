"""Start a runner process from `package.module:runner`."""

import asyncio
import importlib
import signal
import sys
from pathlib import Path

import uvloop

from controlplane.contents import ContentStore
from controlplane.log.connection import LogConnection
from controlplane.log.topics import ensure_topics
from controlplane.runner.definition import Runner
from controlplane.runner.process import RunnerProcess
from controlplane.settings import Settings
from controlplane.telemetry.logs import configure_logging


class RunnerMissing(ValueError):
    """Expected a Runner at package.module:name, but there is none."""


def load(place: str) -> Runner:
    """Return the runner at `package.module:name`; modules of the current folder are found.

    Raises:
        RunnerMissing: there is no such module, no such name in it, or it is not a Runner.
    """
    module_name, _, name = place.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise RunnerMissing(
            f"Expected a module {module_name} in {place} (package.module:runner), but: {error}."
        ) from error
    runner = getattr(module, name or "runner", None)
    if not isinstance(runner, Runner):
        found = "nothing" if runner is None else type(runner).__name__
        raise RunnerMissing(f"Expected a Runner named {name or 'runner'} in {module_name}, but found {found}.")
    return runner


async def serve(settings: Settings, runner: Runner) -> None:
    """Run one process of a runner until told to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    connection = LogConnection.from_settings(settings)
    partitions = await ensure_topics(connection, settings)
    url = settings.content_store_url or (settings.data_dir / "contents").resolve().as_uri()
    contents = ContentStore(url, inline_limit_bytes=settings.payload_limit_bytes)
    process = RunnerProcess(runner, connection, partitions, contents, heartbeat_seconds=settings.heartbeat_seconds)
    await process.run(stop)


def run(settings: Settings, place: str, *, slots: int | None = None) -> None:
    """Run the runner at `package.module:name` until it is told to stop.

    Raises:
        RunnerMissing: there is none.
    """
    runner = load(place)
    if slots is not None:
        runner.slots = slots
    configure_logging(settings, f"runner {runner.name}")
    uvloop.run(serve(settings, runner))
