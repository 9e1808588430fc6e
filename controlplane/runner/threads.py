"""Threads for plain handlers. A handler that never returns keeps its thread, but not the process: the threads are daemons."""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any

Call = tuple["asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]


class HandlerThreads:
    """So many threads, started when they are needed. Belongs to the event loop that calls it."""

    def __init__(self, size: int, *, name: str) -> None:
        """Prepare at most `size` threads."""
        self._size = size
        self._name = name
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._started = 0
        self._busy = 0

    def call(self, function: Callable[..., Any], *arguments: Any) -> "asyncio.Future[Any]":
        """Run a function in a thread; its result or exception comes through the future."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._busy += 1
        if self._busy > self._started and self._started < self._size:
            self._started += 1
            threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()
        self._calls.put((future, function, arguments))
        return future

    def stop(self) -> None:
        """Let idle threads end."""
        for _ in range(self._started):
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function, arguments = call
            result: Any = None
            failure: BaseException | None = None
            try:
                result = function(*arguments)
            except BaseException as error:  # noqa: BLE001 -- whatever a handler raises is told to whoever waits for it
                failure = error
            try:
                self._loop.call_soon_threadsafe(self._done, future, result, failure)
            except RuntimeError:
                return  # The loop is closed: nobody waits any more.
            del call, future, function, arguments, result, failure

    def _done(self, future: "asyncio.Future[Any]", result: Any, failure: BaseException | None) -> None:
        self._busy -= 1
        if future.cancelled():
            return
        if isinstance(failure, asyncio.CancelledError):
            future.cancel()
        elif isinstance(failure, StopIteration):  # A future cannot carry it.
            future.set_exception(RuntimeError(f"The handler raised StopIteration: {failure.value!r}"))
        elif failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(result)
