"""Simulated runners: they register, beat, start, succeed, fail, hang, forget, vanish, report twice and report too late."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from controlplane.events import types
from controlplane.events.catalog import ROUTING, Service
from controlplane.events.codec import decode
from controlplane.events.errors import envelope
from controlplane.events.header import Cause, caused_header, outside_header
from controlplane.events.identity import partition_of
from controlplane.events.types import LogPosition
from tests.simulation.logs import Link, Record, SimulatedLog, SimulatedProducer
from tests.simulation.world import Process, World

HEARTBEAT_SECONDS: Final = 2.0
REGISTER_EVERY_SECONDS: Final = 30.0
OUTAGE_SECONDS: Final = 8.0

RETRY: Final = types.RetryPolicy(max_attempts=3, initial_backoff_seconds=0.3, max_backoff_seconds=2.0)
SCHEMA: Final = '{"type": "object", "required": ["size"]}'
CAPABILITIES: Final = (
    types.Capability(job_type="light", version="1.0.0", payload_schema=SCHEMA, retry=RETRY, timeout_seconds=20.0),
    types.Capability(job_type="heavy", version="1.2.0", payload_schema=SCHEMA, retry=RETRY, timeout_seconds=4.0, slots=2),
)  # fmt: skip


class Behaviour(msgspec.Struct, kw_only=True):
    """How attempts end, as weights, and how often reports are made twice."""

    succeeds: float = 1.0
    fails: float = 0.0
    breaks: float = 0.0
    """Fails for good."""
    hangs: float = 0.0
    forgets: float = 0.0
    """The attempt is gone, the runner lives."""
    has_children: float = 0.0
    reports_twice: float = 0.0
    ignores_revocation: float = 0.0
    longest_seconds: float = 1.5
    outage: str | None = None
    """What every attempt fails of at first."""


class Runner(Process):
    """One runner process."""

    def __init__(
        self, world: World, log: SimulatedLog, name: str, *, slots: int, labels: dict[str, str], behaviour: Behaviour
    ) -> None:
        """Start it: it registers and reads its inbox from the end."""
        self.runner_id = world.new_id(f"{name}-")
        super().__init__(world, self.runner_id)
        self.slots = slots
        self.labels = labels
        self.held: dict[str, types.JobRouted] = {}
        self.draining = False
        self.kind = name
        self._log = log
        self._behaviour = behaviour
        self._producer = SimulatedProducer(Link(bootstrap="simulated", log=log, process=self), Service.RUNNER)
        self._inbox = (ROUTING.name, partition_of(self.runner_id.encode(), log.counts[ROUTING.name]))
        self._attempts: dict[str, asyncio.Task[None]] = {}
        self._seen: set[str] = set()
        self._stopped: set[str] = set()
        self._ordinals: dict[str, int] = {}
        self._registered: LogPosition | None = None
        self._reports = 0
        self.start(self._live())

    async def _live(self) -> None:
        position = len(self._log.partitions[self._inbox])
        await self.step()
        await self._register()
        self.start(self._beat())
        while True:
            records = self._log.partitions[self._inbox][position:]
            position += len(records)
            for record in records:
                self._take(record)
            if position == len(self._log.partitions[self._inbox]):
                await self._log.routed.wait()
            await self.step()

    # Presence

    def _header(self, name: str) -> types.EventHeader:
        ordinal = self._ordinals[name] = self._ordinals.get(name, -1) + 1
        if self._registered is None:
            return outside_header(name, f"{self.runner_id}/{ordinal}", self._producer.identity, self.now())
        cause = Cause(position=self._registered, correlation_id=self.runner_id)
        return caused_header(cause, name, ordinal, self._producer.identity, self.now())

    async def _register(self) -> None:
        registered = types.RunnerRegistered(
            header=self._header("RunnerRegistered"), runner_id=self.runner_id, name=self.kind, slots=self.slots,
            labels=self.labels, capabilities=CAPABILITIES, inbox_partition=self._inbox[1],
            heartbeat_seconds=HEARTBEAT_SECONDS,
        )  # fmt: skip
        self._registered = await self._sent(registered)

    async def _beat(self) -> None:
        sequence, registered_at = 0, self.world.seconds
        while True:
            await self.step()
            if self.world.seconds - registered_at > REGISTER_EVERY_SECONDS:
                registered_at = self.world.seconds
                await self._register()
            sequence += 1
            heartbeat = types.RunnerHeartbeat(
                header=self._header("RunnerHeartbeat"), runner_id=self.runner_id, sequence=sequence,
                attempt_ids=tuple(self.held), draining=self.draining,
            )  # fmt: skip
            await self._sent(heartbeat)
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def drain(self) -> None:
        """Take no new work, finish what runs, and leave."""
        self.draining = True
        await self._sent(types.RunnerDraining(header=self._header("RunnerDraining"), runner_id=self.runner_id))
        while self.held:  # noqa: ASYNC110 -- in virtual time
            await asyncio.sleep(0.1)
        await self._sent(types.RunnerLeft(header=self._header("RunnerLeft"), runner_id=self.runner_id))
        self.vanish()

    def vanish(self) -> None:
        """End without a word; some of what it said last still arrives."""
        self._producer.crash()
        self.die()

    # Attempts

    def _take(self, record: Record) -> None:
        event = decode(record.value)
        if event.runner_id != self.runner_id:
            return
        if isinstance(event, types.AttemptRevoked):
            self._revoke(event)
        elif event.attempt_id not in self._seen:
            self._seen.add(event.attempt_id)
            self.held[event.attempt_id] = event
            position = LogPosition(topic=record.topic, partition=record.partition, offset=record.offset)
            self._attempts[event.attempt_id] = self.start(self._attempt(event, position))

    def _revoke(self, event: types.AttemptRevoked) -> None:
        self._seen.add(event.attempt_id)
        routed = self.held.get(event.attempt_id)
        if routed is None or event.attempt_id in self._stopped:
            return
        if self.world.happens(self._behaviour.ignores_revocation):
            return
        self._stopped.add(event.attempt_id)
        self._attempts[event.attempt_id].cancel()
        cancelled = types.AttemptCancelled(
            header=outside_header("AttemptCancelled", event.attempt_id, self._producer.identity, self.now()),
            **_about(routed), reason=event.reason,
        )  # fmt: skip
        self.start(self._report(routed, [cancelled]))

    def _ending(self) -> str:
        weights = msgspec.structs.asdict(self._behaviour)
        endings = ("succeeds", "fails", "breaks", "hangs", "forgets", "has_children")
        return self.world.random.choices(endings, [weights[one] for one in endings])[0]

    async def _attempt(self, routed: types.JobRouted, position: LogPosition) -> None:
        await self.step()
        cause = Cause(position=position, correlation_id=routed.header.correlation_id)
        started = types.AttemptStarted(header=self._caused(cause, "AttemptStarted"), **_about(routed))
        self.start(self._sent(started))
        await asyncio.sleep(self.world.random.uniform(0.01, self._behaviour.longest_seconds))
        await self.step()
        ending = self._ending()
        if ending == "hangs":
            return
        if ending == "forgets":
            del self.held[routed.attempt_id]
            return
        children: Sequence[Any] = ()
        if ending == "has_children" and not routed.job_id.startswith("child"):
            children = [self._child(routed, position)]
        await self._report(routed, [*children, self._observation(ending, routed, cause)])

    def _observation(self, ending: str, routed: types.JobRouted, cause: Cause) -> Any:
        outage = self._behaviour.outage if self.world.seconds < OUTAGE_SECONDS else None
        if outage is not None or ending in {"fails", "breaks"}:
            error = envelope(
                outage or "handler_failed",
                "It was drawn so.",
                error_id=f"error-{routed.attempt_id}",
                retryable=ending != "breaks",
            )
            return types.AttemptFailed(header=self._caused(cause, "AttemptFailed"), **_about(routed), error=error)
        return types.AttemptSucceeded(
            header=self._caused(cause, "AttemptSucceeded"), **_about(routed), runner_name=self.kind,
            result=types.Content(data=routed.attempt_id.encode()), capability=f"{routed.job_type}@1.0.0",
        )  # fmt: skip

    def _child(self, routed: types.JobRouted, position: LogPosition) -> types.JobSubmitted:
        header = outside_header(
            "JobSubmitted", f"child-{routed.attempt_id}", self._producer.identity, self.now(), causation=position,
            correlation_id=routed.header.correlation_id,
        )  # fmt: skip
        return types.JobSubmitted(
            header=header, job_id=f"child-of-{routed.attempt_id}", job_type="light", payload=types.Content(data=b'{"size": 1}'),
            priority=routed.priority, parent=types.ParentJob(job_id=routed.job_id, attempt_id=routed.attempt_id),
        )  # fmt: skip

    def _caused(self, cause: Cause, name: str) -> types.EventHeader:
        return caused_header(cause, name, 0, self._producer.identity, self.now())

    async def _report(self, routed: types.JobRouted, events: Sequence[Any]) -> None:
        for event in events:
            await self._sent(event)
        if self.world.happens(self._behaviour.reports_twice):
            await asyncio.sleep(self.world.random.uniform(0, 3))
            for event in events:
                await self._sent(event)
        self.held.pop(routed.attempt_id, None)

    async def _sent(self, event: Any) -> LogPosition:
        """Send an event until it is acknowledged."""
        return await self._producer.deliver(self._producer.record(event))


def _about(routed: types.JobRouted) -> dict[str, Any]:
    return {
        "job_id": routed.job_id, "attempt_id": routed.attempt_id, "attempt_number": routed.attempt_number,
        "runner_id": routed.runner_id,
    }  # fmt: skip
