"""The client for volume: submissions straight to the log, conclusions straight from it."""

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from pydantic_core import to_json

from controlplane.events import types
from controlplane.events.catalog import JOBS, Service
from controlplane.events.codec import UndecodableRecord, decode
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant, random_id
from controlplane.events.types import LogPosition
from controlplane.log.connection import LogConnection
from controlplane.log.producer import LogProducer
from controlplane.log.reader import LogReader


class Conclusion(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended, and where the log says so; `at` is the append time in microseconds."""

    job_id: str
    outcome: str
    position: LogPosition
    at: int
    event: Any


_OUTCOMES: Final[dict[Any, str]] = {
    types.JobCompleted: "completed",
    types.JobFailed: "failed",
    types.JobCancelled: "cancelled",
    types.JobRejected: "rejected",
}


class LogClient:
    """An asynchronous client without a gateway: for services that may write `submissions` and read `jobs`."""

    def __init__(self, connection: LogConnection) -> None:
        """Prepare a client of the brokers that a connection names."""
        self._connection = connection
        self._producer = LogProducer(connection, service=Service.CLIENT)

    async def __aenter__(self) -> Self:
        """Connect."""
        await self._producer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Deliver what waits, and disconnect."""
        await self._producer.stop()

    def submission(
        self, job_type: str, payload: Any, *, job_id: str | None = None, **options: Any
    ) -> types.JobSubmitted:
        """Return the event of a job; `options` are the fields of `JobSubmitted`."""
        minted = job_id or random_id()
        header = outside_header("JobSubmitted", minted, self._producer.identity, Instant(time.time_ns() // 1000))
        content = types.Content(data=to_json(payload))
        return types.JobSubmitted(header=header, job_id=minted, job_type=job_type, payload=content, **options)

    async def submit(self, events: Iterable[types.JobSubmitted]) -> list[LogPosition]:
        """Submit jobs; returns their positions once all are durable.

        Raises:
            LogUnavailable: the log did not take them in time; the same events can be submitted again.
        """
        return await self._producer.send([self._producer.record(event) for event in events])

    async def conclusions(self, *, since: Sequence[int] | None = None) -> AsyncIterator[list[Conclusion]]:
        """Yield conclusions as they are appended, from now on or from these offsets (one per partition of `jobs`)."""
        partitions = [(JOBS.name, number) for number in range(self._producer.partitions(JOBS.name))]
        reader = LogReader(self._connection, client_id="controlplane-client")
        await reader.start()
        try:
            ends = await reader.end_offsets(partitions)
            await reader.assign(dict(zip(partitions, since, strict=True)) if since is not None else ends)
            yield []  # Reading begins here: what is submitted after the first step is not missed.
            while True:
                for records in (await reader.batch(timeout_seconds=1.0)).values():
                    yield [one for record in records if (one := _conclusion(record)) is not None]
        finally:
            await reader.stop()


def _conclusion(record: Any) -> Conclusion | None:
    try:
        event = decode(record.value)
    except UndecodableRecord:
        return None
    outcome = _OUTCOMES.get(type(event))
    if outcome is None:
        return None
    position = LogPosition(topic=record.topic, partition=record.partition, offset=record.offset)
    return Conclusion(job_id=event.job_id, outcome=outcome, position=position, at=record.timestamp * 1000, event=event)
