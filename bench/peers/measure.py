"""Measure one peer: `PEER_REDIS_URL=redis://... python -m bench.peers.measure taskiq --jobs 20000 --workers 2`.

Starts its workers, gives them the work, stops them, and prints one JSON object.
"""

import argparse
import contextlib
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

CHECKOUT: Final = Path(__file__).parents[2]
STOP_SECONDS: Final = 10.0


@contextlib.contextmanager
def running(commands: Sequence[Sequence[str]]) -> Iterator[None]:
    """Keep the workers running during the block; each is a process group of its own, ended with it."""
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    workers = [
        subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=sys.stderr, start_new_session=True)  # noqa: S603 -- fixed commands
        for command in commands
    ]
    try:
        yield
    finally:
        for worker in workers:
            os.killpg(worker.pid, signal.SIGTERM)
        for worker in workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(STOP_SECONDS)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def main() -> None:
    """Measure the peer that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=["taskiq", "celery"])
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    system = importlib.import_module(f"bench.peers.{arguments.system}_system")
    with running(system.worker_commands(arguments.workers)):
        figures = system.measure(arguments.jobs, arguments.workers)
    print(msgspec.json.encode(figures).decode())


if __name__ == "__main__":
    main()
