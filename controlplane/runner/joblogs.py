"""What a handler logs, kept with its job: whatever goes through `logging` while the handler runs, bounded."""

import asyncio
import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

from controlplane.events.texts import valid_text
from controlplane.events.types import LogLine
from controlplane.runner.errors import text_of

LINES_LIMIT: Final = 1_000
"""Lines kept of one attempt; the rest is counted."""
LINE_LIMIT_CHARACTERS: Final = 4_000
LINES_AT_ONCE: Final = 50
FLUSH_SECONDS: Final = 0.2
OWN_LOGGERS: Final = ("controlplane.runner", "controlplane.log")

assert (
    LINES_AT_ONCE * (4 * LINE_LIMIT_CHARACTERS + 1_000) < 1_000_000
)  # Full lines of four-byte characters fit into a record.

TakeLine = Callable[[LogLine], None]

HANDLER_LOG: ContextVar[TakeLine | None] = ContextVar("HANDLER_LOG", default=None)
"""Who takes the lines that are logged in this task or thread; nobody outside of a handler."""


class JobLogHandler(logging.Handler):
    """Hand what a handler logs to its attempt; lines of the runner itself stay in the local log alone."""

    def emit(self, record: logging.LogRecord) -> None:
        """Take one line; nothing about it is raised into the code that logs, as with every handler of the standard library."""
        take = HANDLER_LOG.get()
        if take is None or record.name.startswith(OWN_LOGGERS):
            return
        try:
            take(_line(record))
        except Exception:  # noqa: BLE001 -- what is logged, and whoever takes it, may raise anything
            self.handleError(record)


def _line(record: logging.LogRecord) -> LogLine:
    try:
        message = record.getMessage()
    except Exception as error:  # noqa: BLE001 -- a slip in a line is told in the line, and fails nothing
        message = f"{record.msg!r} could not be formatted: {type(error).__name__}: {text_of(error)}"
    if record.exc_info and record.exc_info[1] is not None:
        message = f"{message} ({type(record.exc_info[1]).__name__}: {text_of(record.exc_info[1])})"
    return LogLine(
        at=int(record.created * 1_000_000), level=record.levelname, logger=valid_text(record.name)[:200],
        message=valid_text(message[:LINE_LIMIT_CHARACTERS])[:LINE_LIMIT_CHARACTERS],
    )  # fmt: skip


class LineBuffer:
    """Collect the lines of one attempt and give them on in batches, soon. It belongs to the event loop."""

    __slots__ = ("_dropped", "_give", "_lines", "_taken", "_timer")

    def __init__(self, give: Callable[[tuple[LogLine, ...], int], None]) -> None:
        """Give lines, and how many were dropped so far, to `give`."""
        self._give = give
        self._lines: list[LogLine] = []
        self._taken = 0
        self._dropped = 0
        self._timer: asyncio.TimerHandle | None = None

    def take(self, line: LogLine) -> None:
        """Keep a line, or count it when there are too many."""
        if self._taken >= LINES_LIMIT:
            self._dropped += 1
        else:
            self._taken += 1
            self._lines.append(line)
        if len(self._lines) >= LINES_AT_ONCE:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Give on what was collected."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines or self._dropped:
            lines, self._lines = tuple(self._lines), []
            self._give(lines, self._dropped)
