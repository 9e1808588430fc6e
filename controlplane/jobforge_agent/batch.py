"""One partition batch, decided: records in, events and job changes out. Pure: the store and the log are the agent's."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from controlplane.events.catalog import EVENT_TYPES
from controlplane.events.codec import UndecodableRecord, decode
from controlplane.events.errors import envelope
from controlplane.events.header import EVERY_TENANT, Cause, caused_header, concerns
from controlplane.events.identity import Instant, name_based_id, partition_of
from controlplane.events.job_contracts import Registry
from controlplane.events.types import ErrorEnvelope, LogPosition, Producer, RecordRefused
from controlplane.jobforge_agent.commands import DECIDERS, ON_UNKNOWN_JOB, refuse_stranger
from controlplane.jobforge_agent.decide import Context, Decision, Related, is_repeat
from controlplane.jobforge_agent.state import Job

REFUSED_VALUE_BYTES = 64 * 1024
"""Of a refused record's value, and of its key, so much is kept: a poison record must not make its letter too large for the log."""
REASON_CHARACTERS = 1000


class Consumed(msgspec.Struct, frozen=True, kw_only=True):
    """A record of the batch: its event, or why it has none."""

    position: LogPosition
    at: Instant
    key: bytes | None
    value: bytes
    event: Any = None
    error: ErrorEnvelope | None = None
    trace: str | None = None
    """The span in which it is decided, as a `traceparent`; None: it is not traced."""


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """What follows from a batch: jobs before and after, and the events in the order of their causes."""

    jobs: dict[str, Job]
    events: list[msgspec.Struct]
    refused: int
    absorbed: int
    """Records that came again."""
    observed: list[tuple[str, bool]]


def consume(record: Any, partitions: int) -> Consumed:
    """Return a record with its event, or with the envelope that says why it cannot be used."""
    position = LogPosition(topic=record.topic, partition=record.partition, offset=record.offset)
    value = record.value or b""
    consumed = Consumed(position=position, at=Instant(record.timestamp * 1000), key=record.key, value=value)
    try:
        event = decode(value)
    except UndecodableRecord as error:
        return _with_error(consumed, "record_undecodable", str(error), "value", value[:50])
    name = type(event).__name__
    if EVENT_TYPES[name].topic.name != record.topic:
        expected = EVENT_TYPES[name].topic.name
        return _with_error(
            consumed,
            "event_unexpected",
            f"Expected {name} on {expected}, but found it on {record.topic}.",
            "topic",
            record.topic,
        )
    key = str(getattr(event, EVENT_TYPES[name].key_field)).encode()
    if key != record.key or partition_of(key, partitions) != record.partition:
        text = f"Expected the record in partition {partition_of(key, partitions)} of its key {key!r} (crc32), but found it in {record.partition} with key {record.key!r}."
        return _with_error(consumed, "wrong_partition", text, "partition", record.partition)
    return msgspec.structs.replace(consumed, event=event)


def _with_error(consumed: Consumed, code: str, text: str, field: str, found: object) -> Consumed:
    position = consumed.position
    error_id = name_based_id(f"{position.topic}/{position.partition}/{position.offset}/refused/jobforge")
    error = envelope(code, text[:REASON_CHARACTERS], error_id=error_id, field=field, found=found)
    return msgspec.structs.replace(consumed, error=error)


def dead_letter(consumed: Consumed, error: ErrorEnvelope, producer: Producer) -> RecordRefused:
    """Return the letter that keeps a refused record: its bytes, cut to the limit, its place and the reason."""
    position = consumed.position
    place = f"{position.topic}/{position.partition}/{position.offset}"
    # Whose it was is what nobody can tell: it may hold what one tenant must not see of another.
    cause = Cause(position=position, correlation_id=place, tenant=EVERY_TENANT)
    return RecordRefused(
        header=caused_header(cause, "RecordRefused/jobforge", 0, producer, consumed.at), position=position,
        key=consumed.key and consumed.key[:REFUSED_VALUE_BYTES],
        value=consumed.value[:REFUSED_VALUE_BYTES], value_size_bytes=len(consumed.value), consumer="jobforge", error=error,
    )  # fmt: skip


def cause_of(event: Any, position: LogPosition, job: Job | None) -> Cause:
    """Return a consumed event as the cause of what follows from it; what follows for a job belongs to the job's tenant."""
    header = event.header
    tenant = header.tenant if job is None else job.tenant
    return Cause(position=position, correlation_id=header.correlation_id, tenant=tenant, actor=header.actor)


def job_ids(batch: Iterable[Consumed]) -> list[str]:
    """Return the jobs that a batch is about, each once."""
    return list(dict.fromkeys(one.event.job_id for one in batch if one.event is not None))


def decide_batch(
    batch: Sequence[Consumed], known: Mapping[str, Job], *, partition: int, registry: Registry, producer: Producer,
    related: Related | None = None, proof: Callable[[Decision], None] | None = None,
) -> Decided:  # fmt: skip
    """Decide a batch in order, each record on what the ones before it made of its job.

    `proof` raises when a decision cannot be stored or published; its record is then set aside, and no other.
    """
    jobs = dict(known)
    events: list[msgspec.Struct] = []
    observed: list[tuple[str, bool]] = []
    refused = absorbed = 0
    related = related or Related()
    for consumed in batch:
        if consumed.error is not None:
            events.append(dead_letter(consumed, consumed.error, producer))
            refused += 1
            continue
        event = consumed.event
        job = jobs.get(event.job_id)
        cause = cause_of(event, consumed.position, job)
        context = Context(
            cause=cause, now=consumed.at, registry=registry, producer=producer, partition=partition, related=related,
            batch=jobs,
        )  # fmt: skip
        if job is None and type(event) not in ON_UNKNOWN_JOB:
            text = f"Expected {type(event).__name__} of a job that was submitted, but {event.job_id} is not known."
            events.append(dead_letter(consumed, _unknown(consumed, text, event.job_id), producer))
            refused += 1
            continue
        if job is not None and is_repeat(job, context) and job.concluded_by != consumed.position:
            absorbed += 1
            continue
        decider = DECIDERS[type(event)]
        if job is not None and type(event) in ON_UNKNOWN_JOB and not concerns(event.header.tenant, job.tenant):
            decider = refuse_stranger
        try:
            decision: Decision = decider(job, event, context)
            if proof is not None:
                proof(decision)
        except Exception as fault:  # noqa: BLE001 -- a record that cannot be decided must not stop those behind it
            events.append(dead_letter(consumed, _poisonous(consumed, fault), producer))
            refused += 1
            continue
        events += decision.events
        observed += decision.observed
        if decision.job is not None:
            jobs[event.job_id] = _traced(decision.job, consumed.trace)
    return Decided(jobs=jobs, events=events, refused=refused, absorbed=absorbed, observed=observed)


def _traced(job: Job, trace: str | None) -> Job:
    """Return the job with the span that last moved it: what time or the router bring belongs below it."""
    trace = None if job.concluded else trace or job.trace
    return job if trace == job.trace else msgspec.structs.replace(job, trace=trace)


def _poisonous(consumed: Consumed, fault: Exception) -> ErrorEnvelope:
    text = f"Expected to decide {type(consumed.event).__name__}, but {type(fault).__name__}: {fault}. It is set aside; its job stays as it was."
    position = consumed.position
    error_id = name_based_id(f"{position.topic}/{position.partition}/{position.offset}/poisonous/jobforge")
    return envelope("record_poisonous", text[:REASON_CHARACTERS], error_id=error_id, found=type(fault).__name__)


def _unknown(consumed: Consumed, text: str, job_id: str) -> ErrorEnvelope:
    position = consumed.position
    error_id = name_based_id(f"{position.topic}/{position.partition}/{position.offset}/unknown/jobforge")
    return envelope("not_found", text[:REASON_CHARACTERS], error_id=error_id, field="job_id", found=job_id)
