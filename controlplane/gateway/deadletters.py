"""Dead letters: records that a service refused are sent again, or given up; either is a record on the log, too."""

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from pydantic import Field

from controlplane.api.models import Acknowledgement, Model
from controlplane.api.problems import refused
from controlplane.events import types
from controlplane.events.catalog import DEAD_LETTERS, SUBMISSIONS
from controlplane.events.codec import UndecodableRecord, decode
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant, partition_of
from controlplane.gateway.callers import CALLER
from controlplane.gateway.idempotency import declared, identity_of
from controlplane.gateway.records import event_at
from controlplane.gateway.submissions import door_of
from controlplane.log.positions import position_text
from controlplane.log.producer import OutgoingRecord

Partition = Annotated[int, Path(ge=0, le=2**31 - 1)]
Offset = Annotated[int, Path(ge=0, le=2**62)]

router = APIRouter(prefix="/v1/deadletters", tags=["operations"], dependencies=[Depends(declared)])


class Reasoned(Model):
    """Why, for a person."""

    reason: str = Field("", max_length=1000)


async def _letter(request: Request, partition: int, offset: int) -> types.RecordRefused:
    count = door_of(request).producer.partitions(DEAD_LETTERS.name)
    event = (
        await event_at(request.app.state.connection, DEAD_LETTERS.name, partition, offset)
        if partition < count
        else None
    )
    if isinstance(event, types.RecordRefused):
        return event
    found = f"{DEAD_LETTERS.name}/{partition}/{offset}"
    raise refused("not_found", f"Expected a dead letter, but there is none at {found}.", field="offset", found=found)


def _settled(
    request: Request, letter: types.RecordRefused, reason: str, to: types.LogPosition | None
) -> types.DeadLetterSettled:
    producer = door_of(request).producer.identity
    header = outside_header(
        "DeadLetterSettled", identity_of(request), producer, Instant(time.time_ns() // 1000),
        correlation_id=letter.header.correlation_id, tenant=letter.header.tenant, actor=CALLER.get().name,
    )  # fmt: skip
    return types.DeadLetterSettled(header=header, position=letter.position, redriven_to=to, reason=reason)


@router.post("/{partition}/{offset}/redrive", status_code=202)
async def redrive(
    request: Request, partition: Partition, offset: Offset, body: Reasoned | None = None,
) -> Acknowledgement:  # fmt: skip
    """Send the record of a dead letter again, to the partition of its key; for records of submissions, whole and readable."""
    letter = await _letter(request, partition, offset)
    place = position_text(letter.position)
    if letter.position.topic != SUBMISSIONS.name:
        raise refused(
            "conflict",
            f"Expected a refused record of {SUBMISSIONS.name}, but {place} is one of another service's.",
            field="offset",
        )
    if len(letter.value) != letter.value_size_bytes:
        raise refused(
            "conflict",
            f"Expected the record whole, but of {place} only {len(letter.value)} of {letter.value_size_bytes} bytes are kept.",
            field="offset",
        )
    try:
        event = decode(letter.value)
    except UndecodableRecord as error:
        raise refused(
            "conflict", f"Expected a record that can be read, but {place} cannot: {error}", field="offset"
        ) from error
    door = door_of(request)
    key = str(event.job_id).encode()
    number = partition_of(key, door.producer.partitions(SUBMISSIONS.name))
    record = OutgoingRecord(topic=SUBMISSIONS.name, partition=number, key=key, value=letter.value)
    [position] = await door.producer.send([record])
    settled = _settled(request, letter, body.reason if body else "", position)
    await door.producer.publish(settled)
    return Acknowledgement(
        event_id=settled.header.event_id, position=position_text(position), correlation_id=settled.header.correlation_id
    )


@router.post("/{partition}/{offset}/purge", status_code=202)
async def purge(
    request: Request, partition: Partition, offset: Offset, body: Reasoned | None = None,
) -> Acknowledgement:  # fmt: skip
    """Give a dead letter up: it is no longer listed. The log keeps it."""
    letter = await _letter(request, partition, offset)
    settled = _settled(request, letter, body.reason if body else "", None)
    position = await door_of(request).producer.publish(settled)
    return Acknowledgement(
        event_id=settled.header.event_id, position=position_text(position), correlation_id=settled.header.correlation_id
    )
