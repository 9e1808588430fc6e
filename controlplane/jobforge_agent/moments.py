"""Where time and chance come from: given to whoever needs them, so that a simulation can give its own."""

import asyncio
import time
from collections.abc import Callable

from controlplane.events.identity import Instant

Now = Callable[[], Instant]
"""Returns the present: microseconds since 1970."""
NewId = Callable[[], str]
"""Returns an id that nobody ever got."""


def wall_clock() -> Instant:
    """Return the present as this machine has it."""
    return Instant(time.time_ns() // 1000)


def elapsed() -> float:
    """Return seconds since some moment, never set back: the running event loop's clock."""
    return asyncio.get_running_loop().time()
