"""A JobForge of few words: routes jobs to a runner's inbox by hand, and sees what the runner says on the log."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from pydantic_core import to_json

from controlplane.contents import ContentStore
from controlplane.events.catalog import EVENT_TYPES, JOB_LOGS, PROGRESS, ROUTING, RUNNERS, SUBMISSIONS, Service
from controlplane.events.codec import decode
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant, partition_of
from controlplane.events.types import AttemptRevoked, Content, JobRouted, LogPosition
from controlplane.log.connection import LogConnection
from controlplane.log.producer import LogProducer
from controlplane.log.reader import LogReader
from controlplane.log.topics import ensure_topics
from controlplane.runner import Runner
from controlplane.runner.process import RunnerProcess
from controlplane.settings import Settings

SEEN_WITHIN_SECONDS = 30.0
INLINE_LIMIT_BYTES = 10_000

Event = TypeVar("Event", bound=msgspec.Struct)


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """An event with its place on the log."""

    event: Any
    position: LogPosition
    key: bytes


class Log:
    """What stands on the log since the test began, and a hand to write to it."""

    def __init__(self, connection: LogConnection, partitions: dict[str, int]) -> None:
        self.connection = connection
        self.partitions = partitions
        self.seen: list[Seen] = []
        self._moved = asyncio.Condition()
        self._producer = LogProducer(connection, service=Service.JOBFORGE, partitions=partitions)
        self._reader = LogReader(connection, client_id="test")

    @asynccontextmanager
    async def following(self) -> AsyncIterator["Log"]:
        await self._producer.start()
        await self._reader.start()
        places = [
            (topic.name, number)
            for topic in (PROGRESS, RUNNERS, SUBMISSIONS, JOB_LOGS)
            for number in range(self.partitions[topic.name])
        ]
        await self._reader.assign(await self._reader.end_offsets(places))
        task = asyncio.create_task(self._follow())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])
            await self._reader.stop()
            await self._producer.stop()

    async def _follow(self) -> None:
        while True:
            for (topic, partition), records in (await self._reader.batch(timeout_seconds=0.5)).items():
                for record in records:
                    position = LogPosition(topic=topic, partition=partition, offset=record.offset)
                    self.seen.append(Seen(event=decode(record.value), position=position, key=record.key))
            async with self._moved:
                self._moved.notify_all()

    def of(self, kind: type[Event], **fields: object) -> list[Event]:
        """Return the events of a kind that have these fields, in the order of the log."""
        return [
            seen.event
            for seen in self.seen
            if isinstance(seen.event, kind)
            and all(getattr(seen.event, name) == value for name, value in fields.items())
        ]

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Return what a condition is when it first holds."""
        try:
            async with asyncio.timeout(SEEN_WITHIN_SECONDS), self._moved:
                while not (found := condition()):
                    await self._moved.wait()
                return found
        except TimeoutError:
            said = "\n".join(str(seen.event) for seen in self.seen[-20:])
            raise AssertionError(f"Expected it on the log, but the last events were:\n{said}") from None

    async def one(self, kind: type[Event], **fields: object) -> Event:
        """Wait for an event of a kind that has these fields."""
        found: list[Event] = await self.until(lambda: self.of(kind, **fields))
        return found[0]

    def story(self, job_id: str) -> list[str]:
        """Return what was said about a job's attempts, in order."""
        return [
            type(seen.event).__name__
            for seen in self.seen
            if seen.position.topic == PROGRESS.name and seen.event.job_id == job_id
        ]

    async def write(self, event: msgspec.Struct, *, partition: int | None = None) -> LogPosition:
        """Write an event."""
        return await self._producer.publish(event, partition=partition)

    def routed(self, runner_id: str, job_type: str, payload: object = None, **fields: Any) -> JobRouted:
        """Return the decision to lease a new job to a runner."""
        job_id = fields.pop("job_id", f"job-{uuid.uuid4().hex[:8]}")
        attempt_id = fields.pop("attempt_id", str(uuid.uuid4()))
        header = outside_header(
            "JobRouted", attempt_id, self._producer.identity, Instant(1), correlation_id=f"chain of {job_id}", tenant="acme", actor="ada",
        )  # fmt: skip
        defaults: dict[str, Any] = {
            "attempt_number": 1, "contract_major": 1, "payload": Content(data=to_json(payload)), "pool": "default", "priority": 5,
            "lease_seconds": 6.0, "queued_at": 1, "job_partition": partition_of(job_id.encode(), self.partitions[PROGRESS.name]),
        }  # fmt: skip
        return JobRouted(
            header=header,
            job_id=job_id,
            attempt_id=attempt_id,
            runner_id=runner_id,
            job_type=job_type,
            **defaults | fields,
        )

    async def route(self, runner_id: str, job_type: str, payload: object = None, **fields: Any) -> JobRouted:
        """Lease a new job to a runner."""
        routed = self.routed(runner_id, job_type, payload, **fields)
        await self.write(routed, partition=self.inbox(runner_id))
        return routed

    async def revoke(self, routed: JobRouted, reason: str = "cancelled") -> None:
        """Take a lease back."""
        revoked = AttemptRevoked(
            header=routed.header, job_id=routed.job_id, attempt_id=routed.attempt_id, attempt_number=routed.attempt_number,
            runner_id=routed.runner_id, reason=reason,
        )  # fmt: skip
        await self.write(revoked, partition=self.inbox(routed.runner_id))

    def inbox(self, runner_id: str) -> int:
        """Return the partition of a runner's inbox."""
        return partition_of(runner_id.encode(), self.partitions[ROUTING.name])

    @asynccontextmanager
    async def running(self, runner: Runner, folder: Path, **options: Any) -> AsyncIterator[RunnerProcess]:
        """Run a process of a runner in this event loop until the block ends, in order."""
        stop = asyncio.Event()
        process = RunnerProcess(
            runner, self.connection, self.partitions, contents_of(folder), inline_limit_bytes=INLINE_LIMIT_BYTES,
            **{"heartbeat_seconds": 0.2, "drain_seconds": 5.0} | options,
        )  # fmt: skip
        work = asyncio.create_task(process.run(stop))
        try:
            await self.until(lambda: work.done() or self.of_runner(process.runner_id))
            yield process
        finally:
            stop.set()
            await work

    def of_runner(self, runner_id: str) -> list[Any]:
        """Return what a runner process said of itself."""
        return [
            seen.event
            for seen in self.seen
            if seen.position.topic == RUNNERS.name and seen.event.runner_id == runner_id
        ]


def contents_of(folder: Path) -> ContentStore:
    return ContentStore((folder / "contents").as_uri(), inline_limit_bytes=INLINE_LIMIT_BYTES)


def result_of(event: Any) -> Any:
    """Return the result that an event carries."""
    return json.loads(event.result.data)


def names(events: Sequence[object]) -> list[str]:
    return [type(event).__name__ for event in events]


assert {"JobRouted", "AttemptRevoked"} <= EVENT_TYPES.keys()


@pytest.fixture
async def log(kafka_bootstrap: str) -> AsyncIterator[Log]:
    """The log of this worker, followed from now on."""
    connection = LogConnection(bootstrap=kafka_bootstrap)
    partitions = await ensure_topics(connection, Settings(kafka_bootstrap=kafka_bootstrap))
    async with Log(connection, partitions).following() as log:
        yield log
