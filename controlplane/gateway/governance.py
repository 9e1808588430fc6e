"""What operators declared and JobForge says of itself, folded from the controls: what the gateway shows, and whether it admits submissions."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Final

from controlplane.api.models import Reflects
from controlplane.api.problems import Refused
from controlplane.events.catalog import CONTROLS
from controlplane.events.codec import UndecodableRecord, decode
from controlplane.events.controls import Controls
from controlplane.events.errors import envelope
from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.log.positions import Partition
from controlplane.log.reader import LogReader
from controlplane.telemetry.health import Dependency, State

AGAIN_SECONDS: Final = 1.0
ENDS_SECONDS: Final = 3.0
"""The brokers tell where the log ends at least twice a second, or do not answer."""

logger = logging.getLogger(__name__)


class Governance:
    """The controls, kept up to date while `follow` runs."""

    def __init__(
        self,
        connection: LogConnection,
        partitions: int,
        *,
        behind_seconds: Callable[[], float] = lambda: 0.0,
        most_behind_seconds: float | None = None,
    ) -> None:
        """Know nothing yet; submissions are admitted while reads are behind the log by no more than `most_behind_seconds`."""
        self.controls = Controls()
        self._behind_seconds = behind_seconds
        self._most_behind_seconds = most_behind_seconds
        self._connection = connection
        self._next = {(CONTROLS.name, number): 0 for number in range(partitions)}
        self._moved = asyncio.Condition()
        self._reader: LogReader | None = None
        self._last_milliseconds = 0.0

    async def follow(self) -> None:
        """Read declarations for as long as the task runs; a blip of the log is waited out."""
        while True:
            try:
                async with LogReader(self._connection, client_id="controlplane-gateway-controls") as reader:
                    await reader.assign(self._next)
                    self._reader = reader
                    while True:
                        await self._take(await reader.batch(timeout_seconds=1.0))
            except LogUnavailable as error:
                logger.warning("Controls wait for the log: %s", error)
                await asyncio.sleep(AGAIN_SECONDS)
            finally:
                self._reader = None

    async def _take(self, batches: dict) -> None:  # type: ignore[type-arg] # aiokafka's records
        for place, records in batches.items():
            for record in records:
                try:
                    self.controls.take(decode(record.value))
                except UndecodableRecord:
                    continue  # JobForge owns its refusal.
            self._next[place] = records[-1].offset + 1
            self._last_milliseconds = max(self._last_milliseconds, records[-1].timestamp)
        if batches:
            async with self._moved:
                self._moved.notify_all()

    @property
    def places(self) -> Collection[Partition]:
        """Return the partitions that are read."""
        return self._next.keys()

    async def reached(self, wanted: Mapping[Partition, int], wait_seconds: float) -> bool:
        """Wait until these records are folded; False when it takes longer than it may."""

        def there() -> bool:
            return all(self._next.get(place, 0) > offset for place, offset in wanted.items())

        if there():
            return True
        try:
            async with asyncio.timeout(wait_seconds), self._moved:
                await self._moved.wait_for(there)
        except TimeoutError:
            return there()
        return True

    def health(self) -> Dependency:
        """Return whether the log is read now: without it nothing can be written."""
        if self._reader is not None:
            return Dependency(state=State.OK)
        return Dependency(state=State.DOWN, detail="Expected the log to be read, but it does not answer.")

    def reflects(self) -> Reflects:
        """Return up to where the controls are folded, and how many records that is behind the log; -1 while the log does not say."""
        lag = -1
        if self._reader is not None:
            ends = self._reader.known_ends(self.places, age_seconds=ENDS_SECONDS)
            if len(ends) == len(self.places):
                lag = sum(max(0, end - self._next[place]) for place, end in ends.items())
        by_partition = {number: offset for (_, number), offset in sorted(self._next.items())}
        seconds = max(0.0, time.time() - self._last_milliseconds / 1000) if lag else 0.0
        return Reflects(positions={CONTROLS.name: by_partition}, lag_records=lag, lag_seconds=round(seconds, 3))

    def admit(self) -> None:
        """Return if submissions are admitted now.

        Raises:
            Refused: too much is in flight, or reads are too far behind; the answer says how much, how much may be, and when to try again.
        """
        admission = self.controls.admission
        if admission is not None and not admission.open:
            text = f"Expected at most {admission.limit} jobs in flight, but {admission.reason} Submissions are admitted again when some of them concluded."
            error = envelope(
                "overloaded", text, field="in_flight", expected=f"below {admission.limit}", found=admission.in_flight,
                retry_after_seconds=admission.retry_after_seconds,
            )  # fmt: skip
            raise Refused(error)
        most, behind = self._most_behind_seconds, self._behind_seconds()
        if most is not None and behind > most:
            text = f"Expected reads to be at most {most:g} s behind the log, but they are {behind:.1f} s. Submissions are admitted again when they caught up."
            raise Refused(
                envelope(
                    "overloaded", text, field="projection_lag", expected=f"at most {most:g} s", found=round(behind, 1)
                )
            )
