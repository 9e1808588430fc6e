"""Waiting for a condition."""

import time
from collections.abc import Callable


def wait_until(true: Callable[[], object], what: str, within_seconds: float = 30.0) -> None:
    """Return as soon as the condition holds; fail, naming what was awaited, when it does not in time."""
    give_up = time.monotonic() + within_seconds
    while not true():
        assert time.monotonic() < give_up, f"Expected {what} within {within_seconds:g} s, but it did not come."
        time.sleep(0.01)
