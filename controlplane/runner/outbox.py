"""Delivery of what a runner observes: sent at once, all that became ready in one turn of the loop together, again until acknowledged."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from controlplane.events.types import AttemptStarted, LogPosition, Producer
from controlplane.log.connection import LogUnavailable
from controlplane.log.producer import LogProducer, OutgoingRecord

RETRY_SECONDS: Final = 0.5
STARTS_WAIT_SECONDS: Final = 0.001
"""That an attempt began waits so long for its end: of a short one both are one request, and one decision."""
DROP_ABOVE_RECORDS: Final = 10_000
"""While the log is away, progress and log lines above this are not kept; results always are: slots bound their number."""

logger = logging.getLogger(__name__)

Acknowledged = Callable[[], None]


class Sink(Protocol):
    """Takes events; the producer of the process behind it, or a list in the test kit."""

    @property
    def identity(self) -> Producer:
        """Return who writes."""

    def emit(
        self, event: msgspec.Struct, *, partition: int | None = None, droppable: bool = False,
        acknowledged: Acknowledged | None = None,
    ) -> None:  # fmt: skip
        """Write an event, in the order of the calls; `acknowledged` is called when it stands on the log.

        Raises:
            RecordTooLarge: the log does not take events of that size.
        """


class _Entry(msgspec.Struct, frozen=True):
    record: OutgoingRecord
    droppable: bool
    acknowledged: Acknowledged | None


class Outbox:
    """The sink of a runner process. Not thread-safe: it belongs to the event loop."""

    def __init__(self, producer: LogProducer) -> None:
        """Deliver through a started producer."""
        self._producer = producer
        self._waiting: list[_Entry] = []
        self._scheduled = False
        self._starts: asyncio.TimerHandle | None = None
        self._away = False
        self._unacknowledged = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def identity(self) -> Producer:
        """Return who writes."""
        return self._producer.identity

    @property
    def unacknowledged(self) -> int:
        """Return how many records wait for their acknowledgement."""
        return self._unacknowledged

    def emit(
        self, event: msgspec.Struct, *, partition: int | None = None, droppable: bool = False,
        acknowledged: Acknowledged | None = None,
    ) -> None:  # fmt: skip
        """Write an event; see `Sink`."""
        if droppable and self._away and len(self._waiting) > DROP_ABOVE_RECORDS:
            return
        record = self._producer.record(event, partition=partition)
        self._waiting.append(_Entry(record, droppable, acknowledged))
        self._unacknowledged += 1
        self._empty.clear()
        if self._away or self._scheduled:
            return
        if not isinstance(event, AttemptStarted):
            self._schedule()
        elif self._starts is None:
            self._starts = asyncio.get_running_loop().call_later(STARTS_WAIT_SECONDS, self._flush)

    async def flush(self) -> None:
        """Wait until everything is acknowledged."""
        await self._empty.wait()

    def _schedule(self) -> None:
        self._scheduled = True
        asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._starts is not None:
            self._starts.cancel()
            self._starts = None
        entries, self._waiting = self._waiting, []
        if entries:
            sent = self._producer.send([entry.record for entry in entries])
            sent.add_done_callback(lambda answer: self._answered(entries, answer))

    def _answered(self, entries: Sequence[_Entry], answer: "asyncio.Future[list[LogPosition]]") -> None:
        error = None if answer.cancelled() else answer.exception()
        if answer.cancelled() or isinstance(error, LogUnavailable):
            self._keep(entries, error)
            return
        if error is not None:
            raise error
        self._away = False
        self._unacknowledged -= len(entries)
        for entry in entries:
            if entry.acknowledged is not None:
                entry.acknowledged()
        if not self._unacknowledged:
            self._empty.set()
        elif self._waiting and not self._scheduled:
            self._schedule()

    def _keep(self, entries: Sequence[_Entry], error: BaseException | None) -> None:
        """Put back what was not acknowledged, before what came later, and try again after a while."""
        kept = [entry for entry in entries if not entry.droppable]
        self._unacknowledged -= len(entries) - len(kept)
        self._waiting = [*kept, *self._waiting]
        logger.warning("The log does not take observations; %d wait. %s", len(self._waiting), error or "")
        if not self._unacknowledged:
            self._empty.set()
        if not self._away:
            self._away = True
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self._away = False
        self._flush()
