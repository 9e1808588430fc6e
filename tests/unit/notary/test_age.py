"""The age that the notary tells goes on growing while it cannot look: silence of the log is no proof that nothing came."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from prometheus_client import CollectorRegistry

from controlplane.events.types import Producer
from controlplane.log.connection import LogConnection, LogRefused
from controlplane.log.positions import Partition
from controlplane.log.reader import Batches
from controlplane.notary import notary as module
from controlplane.notary.notary import Notary

PLACE = ("controlplane.jobs", 0)
COUNTS = {"controlplane.jobs": 1, "controlplane.checkpoints": 1}
AGE = "controlplane_notary_oldest_unsigned_seconds"


class Brokers:
    """What the notary meets: brokers that refuse, answer, or say nothing, at a time that the test sets."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0
        self.refuse = self.silent = self.sealed = False
        self.log: list[Any] = []
        self.turns = 0

    def time(self) -> float:
        return self.seconds

    def time_ns(self) -> int:
        return int(self.seconds * 1e9)

    def appended(self) -> None:
        """Append a record now."""
        self.log.append(
            SimpleNamespace(
                topic=PLACE[0], partition=0, offset=len(self.log), timestamp=int(self.seconds * 1000), timestamp_type=1, key=b"k", value=b"v", headers=()
            )
        )  # fmt: skip


class Reader:
    """A reader of these brokers."""

    brokers: Brokers

    def __init__(self, connection: LogConnection, **_: object) -> None:
        self.next = 0

    async def __aenter__(self) -> Self:
        if self.brokers.refuse:
            raise LogRefused("Expected records, but: TopicAuthorizationFailedError().")
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def assign(self, positions: Mapping[Partition, int]) -> None:
        self.next = positions[PLACE]

    async def beginning_offsets(self, places: Collection[Partition]) -> dict[Partition, int]:
        return dict.fromkeys(places, 0)

    end_offsets = beginning_offsets

    async def batch(self, **_: object) -> Batches:
        await asyncio.sleep(0)
        self.brokers.turns += 1
        if self.brokers.refuse:
            raise LogRefused("Expected records, but: TopicAuthorizationFailedError().")
        came = [] if self.brokers.silent else self.brokers.log[self.next :]
        self.next += len(came)
        return {PLACE: came} if came else {}

    def known_ends(self, places: Collection[Partition], *, age_seconds: float) -> dict[Partition, int]:
        assert age_seconds > 0
        return {} if self.brokers.silent else dict.fromkeys(places, len(self.brokers.log))


class Sent:
    """A producer for these brokers."""

    identity = Producer(service="notary", version="0")
    brokers: Brokers

    def __init__(self, *_: object, **__: object) -> None:
        pass

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def send(self, records: Sequence[object]) -> None:
        if self.brokers.sealed and records:
            raise LogRefused("Expected to write, but: TopicAuthorizationFailedError().")

    def record(self, event: object) -> object:
        return event


@pytest.fixture
def brokers(monkeypatch: pytest.MonkeyPatch) -> Brokers:
    brokers = Brokers()
    monkeypatch.setattr(Reader, "brokers", brokers, raising=False)
    monkeypatch.setattr(Sent, "brokers", brokers, raising=False)
    for name, double in (("LogReader", Reader), ("LogProducer", Sent), ("time", brokers), ("AGAIN_SECONDS", 0.01)):
        monkeypatch.setattr(module, name, double)
    return brokers


async def test_the_age_grows_for_as_long_as_the_log_cannot_be_read(brokers: Brokers, tmp_path: Path) -> None:
    registry, key, stop = CollectorRegistry(), Ed25519PrivateKey.generate(), asyncio.Event()
    notary = Notary(
        LogConnection(bootstrap="nowhere:1"), key, (key.public_key(),), COUNTS, every_records=1000, every_seconds=60.0, registry=registry
    )  # fmt: skip

    def age() -> float:
        return registry.get_sample_value(AGE) or 0.0

    async def turns() -> None:
        since = brokers.turns
        async with asyncio.timeout(10.0):
            while brokers.turns < since + 3:  # noqa: ASYNC110 -- the double has no event, and no time passes
                await asyncio.sleep(0)

    brokers.refuse = True
    work = asyncio.create_task(notary.run(stop))
    await asyncio.sleep(0.01)
    brokers.seconds += 700.0
    assert age() == 700.0, "It never read: whatever is on the log may be unsigned."

    brokers.refuse = False
    await turns()
    assert age() <= module.TOLD_SECONDS

    brokers.appended()
    await turns()
    brokers.seconds += 30.0
    await turns()
    assert age() == 30.0, "A record that was read waits."
    brokers.seconds += 31.0
    await turns()
    assert age() <= module.TOLD_SECONDS, "It is signed."

    brokers.silent = True
    await turns()
    brokers.seconds += 700.0
    await turns()
    assert notary.reading
    assert age() >= 700.0, "Brokers that say nothing are no brokers without news."

    brokers.refuse = True
    await turns_of_refusal(notary)
    brokers.seconds += 100.0
    assert age() >= 800.0, "What may no longer be read goes on ageing."
    brokers.refuse = brokers.silent = False
    await turns()
    brokers.seconds += 61.0  # The record comes again: these brokers keep no checkpoint.
    await turns()
    assert age() <= module.TOLD_SECONDS

    brokers.sealed = True
    for _ in range(10):
        brokers.appended()
        brokers.seconds += 70.0
        await turns()
    assert age() >= 700.0, "Records come, are read, and no signature reaches the log."
    brokers.sealed = False
    await turns()
    stop.set()
    await work


async def turns_of_refusal(notary: Notary) -> None:
    """Wait until the notary was refused."""
    async with asyncio.timeout(10.0):
        while notary.reading:  # noqa: ASYNC110 -- as above
            await asyncio.sleep(0)
