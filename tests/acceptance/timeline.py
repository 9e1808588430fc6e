"""What is on the log, with the times at which it was appended: what acceptance tests of several instances judge by."""

from typing import Any

import msgspec

from controlplane.events.catalog import JOBS, ROUTING, SUBMISSIONS, TERMINAL
from controlplane.events.codec import decode, encode
from controlplane.events.types import Producer
from controlplane.log.connection import LogConnection
from controlplane.log.reader import LogReader
from controlplane.log.topics import partition_counts

NOBODY = Producer(service="", version="")


class Appended(msgspec.Struct, frozen=True, kw_only=True):
    """One record of the log."""

    topic: str
    partition: int
    offset: int
    at: int
    """Append time, milliseconds since 1970."""
    event: Any
    value: bytes

    @property
    def instance(self) -> str:
        """Return which process wrote it."""
        return str(self.event.header.producer.instance)


async def timeline(
    connection: LogConnection, topics: tuple[str, ...] = (SUBMISSIONS.name, JOBS.name, ROUTING.name)
) -> list[Appended]:
    """Return everything on some topics, each partition in its order."""
    counts = await partition_counts(connection)
    places = [(topic, number) for topic in topics for number in range(counts[topic])]
    found: list[Appended] = []
    async with LogReader(connection, client_id="controlplane-test-timeline") as reader:
        ends = await reader.end_offsets(places)
        left = {one for one, end in ends.items() if end}
        await reader.assign(dict.fromkeys(left, "earliest"))
        while left:
            for (topic, partition), batch in (await reader.batch(timeout_seconds=0.5)).items():
                found += [
                    Appended(
                        topic=topic,
                        partition=partition,
                        offset=one.offset,
                        at=one.timestamp,
                        event=decode(one.value),
                        value=one.value,
                    )
                    for one in batch
                ]
                if batch[-1].offset + 1 >= ends[topic, partition]:
                    left.discard((topic, partition))
    return found


def conclusions(records: list[Appended]) -> dict[str, set[str]]:
    """Return the ids of the events that conclude each job."""
    found: dict[str, set[str]] = {}
    for one in records:
        if type(one.event) in TERMINAL:
            found.setdefault(one.event.job_id, set()).add(one.event.header.event_id)
    return found


def not_once(records: list[Appended], jobs: list[str]) -> dict[str, int]:
    """Return which jobs did not conclude exactly once, and how often they did."""
    found = conclusions(records)
    return {one: len(found.get(one, ())) for one in jobs if len(found.get(one, ())) != 1}


def differing(records: list[Appended], *, whoever: bool = False) -> list[str]:
    """Return the ids of events that are on the log more than once and do not say the same each time, to the byte; `whoever` wrote them."""
    said: dict[str, set[bytes]] = {}
    for one in records:
        event, value = one.event, one.value
        if whoever:
            header = msgspec.structs.replace(event.header, producer=NOBODY)
            value = encode(msgspec.structs.replace(event, header=header))
        said.setdefault(event.header.event_id, set()).add(value)
    return [event_id for event_id, values in said.items() if len(values) > 1]
