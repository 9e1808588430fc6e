"""The client for volume: submissions straight to the log, conclusions straight from it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self, Unpack

import msgspec
from pydantic import TypeAdapter

from controlplane.api.job_ids import EXPECTED, reserved_ending
from controlplane.api.models import JobRequest
from controlplane.api.submissions import OptionInvalid, job_submitted, json_content
from controlplane.client.calls import SubmitOptions
from controlplane.client.errors import ControlPlaneError
from controlplane.client.traces import submitting
from controlplane.contents import ContentStore
from controlplane.contents.store import ContentTooLarge
from controlplane.events.bounds import oversized
from controlplane.events.catalog import JOBS, SUBMISSIONS, TERMINAL, Service
from controlplane.events.codec import UndecodableRecord, decode, schema_of
from controlplane.events.header import outside_header
from controlplane.events.identity import IDENTIFIER, TENANT, Instant, partition_of, random_id
from controlplane.events.types import Content, JobSubmitted, LogPosition
from controlplane.log.connection import LogConnection
from controlplane.log.positions import Partition
from controlplane.log.producer import LogProducer
from controlplane.log.reader import LogReader
from controlplane.settings import settings
from controlplane.telemetry.tracing import trace_client

INLINE_LIMIT_BYTES: Final = 256 * 1024
READ_SECONDS: Final = 1.0
SILENT_SECONDS: Final = 2.0
"""JobForge says nothing of a job that it knows: one that was submitted, and not heard of for so long, is looked for among earlier conclusions."""
NAMED_JOBS: Final = 20
"""An error names so many open jobs, and counts the others."""


class Conclusion(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended, and where the log says so; `at` is the append time in microseconds."""

    job_id: str
    outcome: str
    """completed, failed, cancelled or rejected."""
    position: LogPosition
    at: int
    event: Any
    """JobCompleted, JobFailed, JobCancelled or JobRejected."""

    def result(self, as_type: Any = None, *, contents: ContentStore | None = None) -> Any:
        """Return the result of a completed job: as JSON says it, or as a type.

        The log has a large result as a reference, and that of a job with a secret encrypted: they are read from `contents`, which has to be the
        store, with the keys, that the runners use.

        Raises:
            ControlPlaneError: it did not complete; the fields say why. Or `result_elsewhere`: it takes `contents` to read it.
            ContentMissing, ContentCorrupt, KeyForgotten, KeyMissing: `contents` does not have it.
        """
        if self.outcome != "completed":
            error = getattr(self.event, "error", None)
            fields = (
                msgspec.to_builtins(error) if error is not None else {"code": "job_cancelled", "category": "CANCELLED"}
            )
            raise ControlPlaneError({"title": f"Job {self.job_id} was {self.outcome}.", **fields})
        content: Content = self.event.result
        if contents is None and (content.reference is not None or content.encryption_key_id is not None):
            raise ControlPlaneError(
                {"code": "result_elsewhere", "category": "CONTRACT", "message": self._elsewhere(content)}
            )
        data = contents.check_out(content) if contents is not None else content.data
        return TypeAdapter(Any if as_type is None else as_type).validate_json(data)

    def _elsewhere(self, content: Content) -> str:
        kept, key_id = content.reference, content.encryption_key_id
        found = [f"it has {kept.size_bytes:,} bytes and is kept outside of the log"] if kept is not None else []
        found += [f"it is encrypted with {key_id}"] if key_id is not None else []
        return (
            f"Expected `contents`, the store of the runners, to read the result of job {self.job_id} from, but found none: "
            f"{', and '.join(found)}."
        )


_OUTCOMES: Final = {
    "JobCompleted": "completed", "JobFailed": "failed", "JobCancelled": "cancelled", "JobRejected": "rejected"
}  # fmt: skip
assert {event.__name__ for event in TERMINAL} == _OUTCOMES.keys()


class LogClient:
    """An asynchronous client without a gateway: for services that may write `submissions` and read `jobs`."""

    def __init__(self, connection: LogConnection | str, *, contents: ContentStore | None = None) -> None:
        """Prepare a client of the brokers at `host:port,...`, with the certificate that CONTROLPLANE_TLS_* names, or of a connection.

        Payloads above the limit of the log are kept in `contents`, which has to be the store that the runners use.
        """
        if isinstance(connection, str):
            ours = settings()
            connection = LogConnection(bootstrap=connection, tls=ours.kafka_tls, cloudevents=ours.cloudevents)
        trace_client()
        self._connection = connection
        self._producer = LogProducer(self._connection, service=Service.CLIENT)
        self._contents = contents

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            LogUnavailable: no broker answers.
        """
        await self._producer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Deliver what waits, and disconnect."""
        await self._producer.stop()

    def submission(self, job_type: str, payload: Any = None, **options: Unpack[SubmitOptions]) -> JobSubmitted:
        """Return the event of a job, under an id that is minted here; `options` are those of `JobRequest`.

        JobForge checks the payload against its contract, as the gateway would: then the conclusion is a rejection.

        Raises:
            pydantic.ValidationError, OptionInvalid: the options are not those of a job.
            ContentTooLarge: the payload is larger than JobForge takes on the log, and there is no store for it.
        """
        job_id = options.get("job_id") or random_id()
        header = outside_header(
            "JobSubmitted", job_id, self._producer.identity, Instant(time.time_ns() // 1_000),
            correlation_id=options.get("correlation_id"), tenant=options.get("tenant", "default"),
        )  # fmt: skip
        if not (IDENTIFIER.fullmatch(job_type) and IDENTIFIER.fullmatch(job_id)):
            raise OptionInvalid(
                f"Expected identifiers of letters, digits and ._:@/+-, but found {job_type!r} and {job_id!r}."
            )
        if not TENANT.fullmatch(header.tenant):
            raise OptionInvalid(f"Expected a tenant of letters, digits and ._@+-, but found {header.tenant!r}.")
        if reserved_ending(job_id) is not None:
            raise OptionInvalid(f"Expected {EXPECTED}, but found {job_id!r}.")
        content = json_content(payload)
        if self._contents is not None and len(content.data) > INLINE_LIMIT_BYTES:
            content = self._contents.check_in(content)
        if options.keys() <= _IN_THE_HEADER:  # Most have none: half of the cost would be to find that out.
            event = JobSubmitted(header=header, job_id=job_id, job_type=job_type, payload=content)
        else:
            request = JobRequest.model_validate({**options, "job_type": job_type, "job_id": job_id})
            event = job_submitted(request, job_id=job_id, payload=content, header=header)
        if (unfit := oversized(event)) is not None:  # JobForge would reject it.
            raise ContentTooLarge(unfit.message) if unfit.field == "payload" else OptionInvalid(unfit.message)
        return event

    async def submit(self, events: Iterable[JobSubmitted]) -> list[LogPosition]:
        """Submit jobs; returns their positions, in order, once all are durable.

        Raises:
            LogUnavailable: the log did not take them in time; the same events can be submitted again.
            RecordTooLarge: a payload is above the limit of the log.
        """
        record = self._producer.record
        with submitting(SUBMISSIONS.name):
            return await self._producer.send([record(event) for event in events])

    async def conclude(
        self,
        events: Sequence[JobSubmitted],
        *,
        timeout: float | None = 60.0,  # noqa: ASYNC109 -- as of the handles
        since: Sequence[int] | None = None,
    ) -> AsyncGenerator[Conclusion, None]:
        """Submit jobs and yield the conclusion of each as it comes; ends with the last, at once where there are no jobs.

        A job that was submitted before is the same job, of which JobForge says nothing again: its conclusion may be one of earlier. What is not heard of is
        therefore looked for in all that the topic has; with `since` (offsets, one per partition of `jobs`) reading begins there, and nothing else is looked at.

        Raises:
            LogUnavailable: the log did not take them in time; the same events can be submitted again.
            TimeoutError: none of those that are open concluded for `timeout` seconds; it names them. With None it waits for ever.
        """
        open_jobs = {event.job_id for event in events}
        if not open_jobs:
            return
        unheard = set(open_jobs)
        earlier: list[Conclusion] = []
        looking: asyncio.Task[None] | None = None
        try:
            async with LogReader(self._connection, client_id="controlplane-client") as reader:
                starts = await self._begin(reader, since)
                await self.submit(events)
                submitted_at = heard_at = time.monotonic()
                while True:
                    found = await _heard(reader, unheard)
                    if looking is None and since is None and time.monotonic() > submitted_at + SILENT_SECONDS:
                        looking = asyncio.create_task(self._look_behind(set(unheard), starts, earlier))
                    if looking is not None and looking.done():
                        looking.result()
                    found += earlier
                    earlier.clear()
                    for one in found:
                        if one.job_id in open_jobs:  # The first conclusion of a job is its outcome.
                            open_jobs.discard(one.job_id)
                            yield one
                            heard_at = time.monotonic()
                    if not open_jobs:
                        return
                    if timeout is not None and time.monotonic() > heard_at + timeout:
                        raise TimeoutError(_still_open(open_jobs, timeout))
        finally:
            if looking is not None:
                looking.cancel()
                with suppress(asyncio.CancelledError):
                    await looking

    async def _look_behind(
        self, job_ids: Collection[str], ends: Mapping[Partition, int], found: list[Conclusion]
    ) -> None:
        """Append to `found` the first conclusion of each of these jobs that the log has before these offsets."""
        left = set(job_ids)
        count = self._producer.partitions(JOBS.name)
        places = {(JOBS.name, partition_of(job_id.encode(), count)) for job_id in left}
        async with LogReader(self._connection, client_id="controlplane-client") as reader:
            starts = {
                one: start for one, start in (await reader.beginning_offsets(places)).items() if start < ends[one]
            }
            await reader.assign(starts)
            while left and starts:
                for place, records in (await reader.batch(timeout_seconds=READ_SECONDS)).items():
                    for record in records:
                        one = _conclusion(record) if record.offset < ends[place] else None
                        if one is not None and one.job_id in left:
                            left.discard(one.job_id)
                            found.append(one)
                starts = {one: at for one in starts if (at := await reader.position(one)) < ends[one]}

    async def _begin(self, reader: LogReader, since: Sequence[int] | None) -> dict[Partition, int]:
        """Have a reader begin at the ends of `jobs`, or at these offsets; returns where that is."""
        partitions = [(JOBS.name, number) for number in range(self._producer.partitions(JOBS.name))]
        starts = (
            dict(zip(partitions, since, strict=True)) if since is not None else await reader.end_offsets(partitions)
        )
        await reader.assign(starts)
        return starts

    async def conclusions(self, *, since: Sequence[int] | None = None) -> AsyncGenerator[list[Conclusion], None]:
        """Yield conclusions as they are appended, from now on or from these offsets (one per partition of `jobs`).

        The first batch is empty: with it, reading begins, so that nothing is missed of what is submitted after it.
        """
        async with LogReader(self._connection, client_id="controlplane-client") as reader:
            await self._begin(reader, since)
            yield []
            while True:
                for records in (await reader.batch(timeout_seconds=READ_SECONDS)).values():
                    yield [one for record in records if (one := _conclusion(record)) is not None]


_IN_THE_HEADER: Final = frozenset({"job_id", "correlation_id", "tenant"})


async def _heard(reader: LogReader, unheard: set[str]) -> list[Conclusion]:
    """Return the conclusions that came; jobs that anything was said of are taken out of `unheard`."""
    found: list[Conclusion] = []
    for records in (await reader.batch(timeout_seconds=READ_SECONDS)).values():
        for record in records:
            if unheard:
                unheard.discard((record.key or b"").decode(errors="replace"))
            if (one := _conclusion(record)) is not None:
                found.append(one)
    return found


def _still_open(job_ids: Collection[str], timeout: float) -> str:
    """Return what is said when nothing concludes any more."""
    others = f", and {len(job_ids) - NAMED_JOBS:,} others" if len(job_ids) > NAMED_JOBS else ""
    names = ", ".join(sorted(job_ids)[:NAMED_JOBS])
    return f"Expected a conclusion within {timeout:g} s, but none came of {names}{others}."


def _conclusion(record: Any) -> Conclusion | None:
    """Return the conclusion that a record is; other events are not even decoded."""
    try:
        outcome = _OUTCOMES.get(schema_of(record.value).event_name)
        if outcome is None:
            return None
        event = decode(record.value)
    except UndecodableRecord:
        return None  # Whoever projects the topic makes it a dead letter.
    position = LogPosition(topic=record.topic, partition=record.partition, offset=record.offset)
    return Conclusion(job_id=event.job_id, outcome=outcome, position=position, at=record.timestamp * 1000, event=event)
