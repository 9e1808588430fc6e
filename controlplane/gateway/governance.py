"""What operators declared and JobForge says of itself, folded from the controls: what the gateway shows, and whether it admits submissions."""

import asyncio
import logging
from typing import Final

from controlplane.api.problems import Refused
from controlplane.events.catalog import CONTROLS
from controlplane.events.codec import UndecodableRecord, decode
from controlplane.events.controls import Controls
from controlplane.events.errors import envelope
from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.log.reader import LogReader

AGAIN_SECONDS: Final = 1.0

logger = logging.getLogger(__name__)


class Governance:
    """The controls, kept up to date while `follow` runs."""

    def __init__(self, connection: LogConnection, partitions: int) -> None:
        """Know nothing yet."""
        self.controls = Controls()
        self._connection = connection
        self._next = {(CONTROLS.name, number): 0 for number in range(partitions)}
        self._moved = asyncio.Condition()

    async def follow(self) -> None:
        """Read declarations for as long as the task runs; a blip of the log is waited out."""
        while True:
            reader = LogReader(self._connection, client_id="controlplane-gateway-controls")
            try:
                await reader.start()
                await reader.assign(self._next)
                while True:
                    await self._take(await reader.batch(timeout_seconds=1.0))
            except LogUnavailable as error:
                logger.warning("Controls wait for the log: %s", error)
                await asyncio.sleep(AGAIN_SECONDS)
            finally:
                await reader.stop()

    async def _take(self, batches: dict) -> None:  # type: ignore[type-arg] # aiokafka's records
        for place, records in batches.items():
            for record in records:
                try:
                    self.controls.take(decode(record.value))
                except UndecodableRecord:
                    continue  # JobForge owns its refusal.
            self._next[place] = records[-1].offset + 1
        if batches:
            async with self._moved:
                self._moved.notify_all()

    async def reached(self, topic: str, partition: int, offset: int, wait_seconds: float) -> bool:
        """Wait until a record is folded; False when it takes longer than it may."""
        try:
            async with asyncio.timeout(wait_seconds), self._moved:
                await self._moved.wait_for(lambda: self._next.get((topic, partition), 0) > offset)
        except TimeoutError:
            return False
        return True

    def admit(self) -> None:
        """Return if submissions are admitted now.

        Raises:
            Refused: too much is in flight; the answer says how much, how much may be, and when to try again.
        """
        admission = self.controls.admission
        if admission is not None and not admission.open:
            text = f"Expected at most {admission.limit} jobs in flight, but {admission.reason} Submissions are admitted again when some of them concluded."
            error = envelope(
                "overloaded", text, field="in_flight", expected=f"below {admission.limit}", found=admission.in_flight,
                retry_after_seconds=admission.retry_after_seconds,
            )  # fmt: skip
            raise Refused(error)
