"""What runners offer, folded from their topic, so that a wrong payload is refused at the edge."""

import asyncio
import logging
import time
from typing import Final

from controlplane.events.catalog import RUNNERS
from controlplane.events.codec import UndecodableRecord, decode
from controlplane.events.job_contracts import Registry
from controlplane.events.types import RunnerRegistered
from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.log.reader import LogReader

SINCE_SECONDS: Final = 24 * 3600
AGAIN_SECONDS: Final = 1.0

logger = logging.getLogger(__name__)


class Capabilities:
    """The newest registration of every runner name, kept up to date while `follow` runs."""

    def __init__(self, connection: LogConnection, partitions: int) -> None:
        """Know nothing yet."""
        self.registry = Registry({})
        self._known: dict[str, RunnerRegistered] = {}
        self._connection = connection
        self._places = [(RUNNERS.name, number) for number in range(partitions)]

    async def follow(self) -> None:
        """Read registrations for as long as the task runs; a blip of the log is waited out."""
        while True:
            try:
                async with LogReader(self._connection, client_id="controlplane-gateway") as reader:
                    since = int((time.time() - SINCE_SECONDS) * 1000)
                    await reader.assign(await reader.offsets_at(dict.fromkeys(self._places, since)))
                    while True:
                        self._take(await reader.batch(timeout_seconds=1.0))
            except LogUnavailable as error:
                logger.warning("Capabilities wait for the log: %s", error)
                await asyncio.sleep(AGAIN_SECONDS)

    def _take(self, batches: dict) -> None:  # type: ignore[type-arg] # aiokafka's records
        before = dict(self._known)
        for records in batches.values():
            for record in records:
                try:
                    event = decode(record.value)
                except UndecodableRecord:
                    continue  # JobForge owns its refusal.
                if isinstance(event, RunnerRegistered):
                    self._known[event.name] = event
        if self._known != before:
            self.registry = Registry(self._known)
