"""A thread that gives way: what it does can wait, and whoever asks meanwhile shall not."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

NICENESS: Final = 10
"""Of 19: of a core that both want, an answer gets ten times as much as what gives way."""
SWITCH_SECONDS: Final = 0.0005
"""An answer that waits for the interpreter gets it so soon; with Python's own 5 ms it may wait for what gives way as long as it takes itself."""


def answer_first() -> None:
    """Let threads that answer have the interpreter soon, whatever another one is at."""
    sys.setswitchinterval(SWITCH_SECONDS)


def giving_way(name: str) -> ThreadPoolExecutor:
    """Return an executor of one thread that gives way to the others of this process, where the system can tell threads apart."""
    return ThreadPoolExecutor(1, name, initializer=_give_way)


def _give_way() -> None:
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
