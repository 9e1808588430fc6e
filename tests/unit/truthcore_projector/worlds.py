"""Generated logs of the whole system, and the TruthCore that answers for one: whole, in shards, or as a replica that read in another order."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI

from controlplane.events import types
from controlplane.events.catalog import EVENT_TYPES, TOPICS, record_key
from controlplane.events.codec import encode
from controlplane.events.errors import envelope
from controlplane.events.header import Cause, caused_header, outside_header
from controlplane.events.identity import Instant, partition_of
from controlplane.events.types import LogPosition, Producer
from controlplane.events.values import typed_value
from controlplane.log.connection import LogConnection
from controlplane.log.positions import Partition, position_text
from controlplane.truthcore_projector.cursors import Parameters
from controlplane.truthcore_projector.decode import Decoder
from controlplane.truthcore_projector.http import create_app
from controlplane.truthcore_projector.parts import _Open, read_table, statement_bytes
from controlplane.truthcore_projector.projector import Projector
from controlplane.truthcore_projector.shards import WHOLE_LOG, Shard
from controlplane.truthcore_projector.store import Store

COUNTS = {topic.name: {"jobs": 4, "routing": 4, "other": 3}[topic.partitions_like] for topic in TOPICS.values()}
SYSTEM = Producer(service="test", version="0")
START_SECONDS = 1_700_000_000
RUNNERS = ("runner-a", "runner-b", "runner-c")


class World:
    """A log of jobs, runners, truths and garbage, drawn from a seed; each record on the partition that its service would choose."""

    def __init__(self, seed: int, steps: int) -> None:
        self.chance = random.Random(seed)
        self.records: list[Any] = []
        self.ends: dict[Partition, int] = {
            (topic, number): 0 for topic, count in COUNTS.items() for number in range(count)
        }
        self.jobs: list[tuple[str, LogPosition]] = []
        self.assertions: list[tuple[str, str, LogPosition]] = []
        for number in range(steps):
            self.chance.choice((self._job, self._job, self._truth, self._truth, self._truth, self._word, self._beat))(
                number
            )

    def _header(
        self, name: str, identity: str, cause: LogPosition | None = None, ordinal: int = 0
    ) -> types.EventHeader:
        if cause is None:
            return outside_header(name, identity, SYSTEM, Instant(0), correlation_id="outside")
        return caused_header(Cause(position=cause, correlation_id="chain"), name, ordinal, SYSTEM, Instant(0))

    def tell(self, event: Any, inbox: int | None = None, *, value: bytes | None = None) -> LogPosition:
        topic, key = EVENT_TYPES[type(event).__name__].topic.name, record_key(event)
        place = (topic, partition_of(key, COUNTS[topic]) if inbox is None else inbox % COUNTS[topic])
        offset = self.ends[place]
        self.ends[place] += 1
        seconds = START_SECONDS + len(self.records) // 2
        self.records.append(
            SimpleNamespace(
                topic=topic, partition=place[1], offset=offset, timestamp=seconds * 1000, key=key, value=encode(event) if value is None else value
            )
        )  # fmt: skip
        return LogPosition(topic=topic, partition=place[1], offset=offset)

    def _job(self, number: int) -> None:
        job, chance = f"job-{number}", self.chance
        parent = None
        if self.jobs and chance.random() < 0.4:
            parent = types.ParentJob(job_id=(name := chance.choice(self.jobs)[0]), attempt_id=f"{name}-a")
        cause = self.tell(
            types.JobSubmitted(
                header=self._header("JobSubmitted", job), job_id=job, job_type=chance.choice(("measure", "weigh")),
                payload=types.Content(data=b'{"n":1}'), parent=parent,
            )
        )  # fmt: skip
        self.jobs.append((job, cause))
        if chance.random() < 0.1:
            return
        self.tell(
            types.JobAccepted(
                header=self._header("JobAccepted", job, cause),
                job_id=job,
                job_type="measure",
                pool="default",
                priority=5,
            )
        )
        runner = chance.choice(RUNNERS)
        lease: dict[str, Any] = {"job_id": job, "attempt_id": f"{job}-a", "attempt_number": 1, "runner_id": runner}
        routed = self.tell(
            types.JobRouted(
                header=self._header("JobRouted", job, cause), **lease, job_type="measure", contract_major=1, payload=types.Content(data=b"{}"),
                pool="default", priority=5, job_partition=cause.partition, lease_seconds=6.0, queued_at=Instant(0), reason="least loaded",
            ), RUNNERS.index(runner),
        )  # fmt: skip
        if chance.random() < 0.2:
            return
        started = self.tell(types.AttemptStarted(header=self._header("AttemptStarted", job, routed), **lease))
        error = envelope("handler_failed", "Expected a lens, but found none.", error_id=job)
        if chance.random() < 0.3:
            self.tell(types.AttemptFailed(header=self._header("AttemptFailed", job, started), **lease, error=error))
            concluded = self.tell(types.JobFailed(header=self._header("JobFailed", job, started), **lease, error=error))
        else:
            concluded = self.tell(
                types.JobCompleted(
                    header=self._header("JobCompleted", job, started),
                    **lease,
                    result=types.Content(data=b'{"ok":true}'),
                )
            )
        for ordinal in range(chance.randint(0, 2)):
            self._say(f"claim-{number}-{ordinal}", concluded, job)

    def _truth(self, number: int) -> None:
        self._say(f"said-{number}", None, None)

    def _say(self, name: str, cause: LogPosition | None, job: str | None) -> None:
        chance = self.chance
        subject, predicate = f"thing:{chance.randint(0, 9)}", chance.choice(("free", "one", "many"))
        inputs: tuple[str, ...] = ()
        if self.assertions and chance.random() < 0.5:
            _, identity, position = chance.choice(self.assertions)
            inputs = (chance.choice((identity, position_text(position))),)
        supersedes = None
        mine = [identity for about, identity, _ in self.assertions if about == subject]
        if mine and chance.random() < 0.2:
            supersedes = chance.choice(mine)
        event = types.TruthAsserted(
            header=self._header("TruthAsserted", name, cause, number_of(name)), subject=subject, predicate=predicate,
            object=typed_value(chance.choice((1, 2.5, "x", "y", True))), confidence=chance.choice((0.2, 0.5, 0.9)),
            source=types.Source(kind=types.SourceKind.CLIENT, name=chance.choice(("eye", "ear", "hand"))),
            evidence=types.Evidence(job_id=job, attempt_id=None if job is None else f"{job}-a", inputs=inputs), supersedes=supersedes,
        )  # fmt: skip
        self.assertions.append((subject, event.header.event_id, self.tell(event)))

    def _word(self, number: int) -> None:
        """Declare, retract, or write garbage."""
        chance = self.chance
        match chance.randint(0, 3):
            case 0:
                name = chance.choice(("one", "many"))
                self.tell(
                    types.PredicateDeclared(
                        header=self._header("PredicateDeclared", f"{name}-{number}"), subject=f"predicate:{name}", predicate=name,
                        cardinality=types.Cardinality.SINGLE if name == "one" else types.Cardinality.MULTIPLE, rule=types.FusionRule.DEFAULT,
                    )
                )  # fmt: skip
            case 1:
                name = chance.choice(("eye", "ear"))
                self.tell(
                    types.SourceDeclared(
                        header=self._header("SourceDeclared", f"{name}-{number}"), subject=f"source:{name}", source_name=name,
                        reliability=chance.choice((0.1, 0.5, 0.9)),
                    )
                )  # fmt: skip
            case 2 if self.assertions:
                subject, identity, _ = chance.choice(self.assertions)
                self.tell(
                    types.TruthRetracted(
                        header=self._header("TruthRetracted", f"r-{number}"), subject=subject, assertion_id=identity,
                        source=types.Source(kind=types.SourceKind.CLIENT, name="eye"),
                    )
                )  # fmt: skip
            case _:
                garbage = types.RunnerLeft(header=self._header("RunnerLeft", f"g-{number}"), runner_id="?")
                place = self.tell(garbage, value=b"garbage")
                self.tell(
                    types.RecordRefused(
                        header=self._header("RecordRefused", f"g-{number}", place), position=place, key=b"?", value=b"garbage",
                        value_size_bytes=7, consumer="truthcore",
                        error=envelope("record_undecodable", "Expected an event.", error_id=f"g-{number}"),
                    )
                )  # fmt: skip

    def _beat(self, number: int) -> None:
        runner = self.chance.choice(RUNNERS)
        self.tell(
            types.RunnerRegistered(
                header=self._header("RunnerRegistered", f"{runner}-{number}"), runner_id=runner, name=runner, pool="default", slots=2,
                inbox_partition=RUNNERS.index(runner), heartbeat_seconds=2.0,
            )
        )  # fmt: skip


def number_of(name: str) -> int:
    """Return an ordinal that follows from a name."""
    return sum(name.encode())


class _Peer:
    """A snapshot of another store, with every statement and answer as it goes over the wire."""

    def __init__(self, store: Store, projector: Projector) -> None:
        self._open = _Open(store)
        self.standing = projector.standing(store.positions())

    def table(self, query: str, parameters: Parameters, about: Sequence[str] = ()) -> Any:
        return read_table(self._open.answer(statement_bytes(query, parameters, about)))

    def close(self) -> None:
        self._open.close()


class _InProcess:
    """The other shards, without processes."""

    def __init__(self, others: Mapping[int, tuple[Store, Projector]]) -> None:
        self._others = others

    @contextmanager
    def parts(self, shards: Sequence[int], *_: Any) -> Iterator[list[_Peer]]:
        with ExitStack() as stack:
            parts = [_Peer(*self._others[shard]) for shard in shards]
            for part in parts:
                stack.callback(part.close)
            yield parts


def _filled(world: World, shard: Shard, chance: random.Random | None) -> tuple[Store, Projector]:
    store, decoder = Store(":memory:", shard=shard), Decoder()
    by_place: dict[Partition, list[Any]] = {}
    for record in world.records:
        place = (record.topic, record.partition)
        if shard.reads(place) and shard.keeps(record.topic, record.key, COUNTS["controlplane.jobs"]):
            by_place.setdefault(place, []).append(record)
    places = list(by_place)
    if chance is not None:
        chance.shuffle(places)
    for place in places:
        store.write(decoder.decode(by_place[place]), {})
    store.write(decoder.decode([]), {place: end for place, end in world.ends.items() if shard.reads(place)})
    decoder.close()
    return store, Projector(LogConnection(bootstrap="127.0.0.1:1"), store, COUNTS, shard=shard, name=f"core-{shard}")


@contextmanager
def answering(world: World, shards: int = 1, *, at: int = 0, chance: random.Random | None = None) -> Iterator[FastAPI]:
    """Yield a TruthCore over a world: the whole, or shard `at` of several that asks the others."""
    with ExitStack() as stack:
        made = {
            number: _filled(world, Shard(number=number, of=shards) if shards > 1 else WHOLE_LOG, chance)
            for number in range(shards)
        }
        for store, projector in made.values():
            stack.callback(store.close)
            stack.callback(projector.close)
        others = {number: one for number, one in made.items() if number != at}
        peers: Any = _InProcess(others) if others else None
        yield create_app(*made[at], {}, peers)
