"""An event loop without waiting: when nothing can run, its clock jumps to the next timer."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Stuck(RuntimeError):
    """Expected something to happen some day, but every task waits and no timer is set."""


class _JumpingSelector(selectors.SelectSelector):
    """Says at once that nothing came, and moves the clock by the time that it was told to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck(str(Stuck.__doc__))
        self.seconds += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time is a number; tasks and timers run in an order that follows from the program alone."""

    def __init__(self) -> None:
        """Begin at second 0."""
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual seconds since the beginning."""
        return self._jumping.seconds


def run_virtually(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end in virtual time, and leave no task behind."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
