"""Free loopback ports, the remembered ones first."""

import random
import socket
import time
from collections.abc import Collection
from typing import Final

# Below the range from which systems take ports for outgoing connections, so that none of those is in the way later.
FIRST_PORT: Final = 20_000
LAST_PORT: Final = 32_000
ATTEMPTS: Final = 500


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on the port right now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def wait_until_free(ports: Collection[int], within_seconds: float) -> None:
    """Give processes that were killed a moment to let go of their ports; return when they have, or when it is over."""
    give_up = time.monotonic() + within_seconds
    while not all(map(is_free, ports)) and time.monotonic() < give_up:
        time.sleep(0.02)


def choose_port(remembered: int | None, taken: Collection[int] = ()) -> int:
    """Return the remembered port if it is free, else a free one; never one of those already taken.

    Raises:
        OSError: no free port was found.
    """
    if remembered and remembered not in taken and is_free(remembered):
        return remembered
    chance = random.SystemRandom()
    for _ in range(ATTEMPTS):
        port = chance.randrange(FIRST_PORT, LAST_PORT)
        if port not in taken and is_free(port):
            return port
    raise OSError(f"Expected a free port in {FIRST_PORT}-{LAST_PORT}, but {ATTEMPTS} tries found none.")
