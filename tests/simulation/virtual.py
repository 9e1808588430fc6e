"""An event loop without waiting: when nothing can run, its clock jumps to the next timer."""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from itertools import count
from typing import Any, TypeVar, TypeVarTuple

Result = TypeVar("Result")
Given = TypeVarTuple("Given")


class Stuck(RuntimeError):
    """Expected something to happen some day, but every task waits and no timer is set."""


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop whose time is a number, and that watches no files: tasks and timers run in an order that follows from the program alone."""

    _ready: deque[asyncio.Handle]
    _stopping: bool

    def __init__(self) -> None:
        """Begin at second 0."""
        super().__init__()
        self._seconds = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = count()

    def time(self) -> float:
        """Return the virtual seconds since the beginning."""
        return self._seconds

    def call_soon(
        self, callback: Callable[[*Given], object], *args: *Given, context: Context | None = None
    ) -> asyncio.Handle:
        """Run a callback in the next round."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[[*Given], object], *args: *Given, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run a callback at a time; those of one time run in the order in which they were asked for."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Given], object], *args: *Given, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run a callback after some seconds."""
        return self.call_at(self._seconds + delay, callback, *args, context=context)

    def _write_to_self(self) -> None:
        """Wake nobody: no other thread calls this loop."""

    def _run_once(self) -> None:
        """Run what can run now, or else what is next: asked for by the loop that this one is made from, again and again."""
        ready, timers = self._ready, self._timers
        if not ready and not self._stopping:
            while timers and timers[0][2].cancelled():
                heapq.heappop(timers)
            if not timers:
                raise Stuck(str(Stuck.__doc__))
            self._seconds = max(self._seconds, timers[0][0])
        while timers and timers[0][0] <= self._seconds:
            ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()


def run_virtually(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end in virtual time, and leave no task behind."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
