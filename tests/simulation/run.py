"""Running histories: one seed, or many over several processes."""

import contextlib
import gc
import logging
import multiprocessing
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from controlplane.local.valkey import valkey_executable
from tests.simulation.history import History, Outcome
from tests.simulation.stores import Server
from tests.simulation.virtual import run_virtually
from tests.simulation.world import World

SEEDS_AT_ONCE: Final = 10
Made = TypeVar("Made", bound=History)


def run_seed(seed: int, url: str, meets: frozenset[str] | None = None) -> Outcome:
    """Play the history of a seed against a Valkey server; `meets` replaces the faults that the seed draws."""
    return played(seed, url, lambda world, server: History(world, server, meets))[1]


def played(seed: int, url: str, make: Callable[[World, Server], Made]) -> tuple[Made, Outcome]:
    """Play what `make` makes of a seed's world, and return it with what became of it."""

    async def play() -> tuple[Made, Outcome]:
        world = World(seed)
        server = Server(url, f"simulation-{os.getpid()}")
        server.clear()
        history = make(world, server)
        world.loop.set_exception_handler(lambda _, context: world.fail(f"Nobody handled {context}"))
        try:
            await history.run()
            return history, history.outcome()
        finally:
            server.close()

    logging.disable(logging.CRITICAL)
    try:
        return run_virtually(play())
    finally:
        logging.disable(logging.NOTSET)


def _run_some(seeds: Sequence[int], url: str) -> list[Outcome]:
    gc.disable()  # Histories are short: what they leave is collected once for some of them.
    try:
        return [run_seed(seed, url) for seed in seeds]
    finally:
        gc.enable()


def run_seeds(seeds: Sequence[int], url: str, processes: int) -> Iterator[Outcome]:
    """Play many histories over several processes, and yield their outcomes in the order of the seeds."""
    parts = [seeds[start : start + SEEDS_AT_ONCE] for start in range(0, len(seeds), SEEDS_AT_ONCE)]
    if processes == 1:
        for part in parts:
            yield from _run_some(part, url)
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for outcomes in pool.map(_run_some, parts, [url] * len(parts)):
            yield from outcomes


@contextlib.contextmanager
def own_valkey() -> Iterator[str]:
    """Run a Valkey of our own, without a disk, and yield its URL."""
    with tempfile.TemporaryDirectory(prefix="simulation-") as folder:
        socket = Path(folder) / "valkey.sock"
        options = ("--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no", "--dir", folder)
        with subprocess.Popen([str(valkey_executable()), *options], stdout=subprocess.DEVNULL) as server:
            try:
                url = f"unix://{socket}"
                patience = Retry(ConstantBackoff(0.05), 100)
                errors: list[type[Exception]] = [redis.ConnectionError, OSError]
                with redis.Redis.from_url(url, retry=patience, retry_on_error=errors) as client:
                    client.ping()
                yield url
            finally:
                server.terminate()
