"""JobForge's part in memory: the shipped decisions and policy over a log and a table of jobs, with a clock that skips what nobody does."""

import asyncio
import time
from collections import defaultdict
from typing import Any, Final

import msgspec
from prometheus_client import CollectorRegistry

from controlplane.contents import ContentStore
from controlplane.events.catalog import PROGRESS, SUBMISSIONS
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant, random_id
from controlplane.events.job_contracts import Registry
from controlplane.events.types import AttemptRevoked, LogPosition, Producer, RunnerRegistered
from controlplane.jobforge_agent import rules
from controlplane.jobforge_agent.batch import consume, decide_batch
from controlplane.jobforge_agent.decide import Context, Decision, Related, on_due
from controlplane.jobforge_agent.leasing import leased
from controlplane.jobforge_agent.policy import Candidate, Policy, Situation
from controlplane.jobforge_agent.state import Job
from controlplane.jobforge_agent.transitions import Phase
from controlplane.runner import Runner
from controlplane.runner.attempts import Attempts
from controlplane.runner.metrics import Metrics
from controlplane.runner.outbox import Acknowledged
from controlplane.runner.threads import HandlerThreads
from controlplane.testing.memory_log import MemoryLog

INLINE_LIMIT_BYTES: Final = 256 * 1024
LEASE_SECONDS: Final = 3600.0
JOBFORGE: Final = Producer(service="jobforge", version="test", instance="test")
READ: Final = frozenset({SUBMISSIONS.name, PROGRESS.name})


class _Sink:
    """Where the attempts of a runner write: straight to the log."""

    def __init__(self, engine: "Engine", runner: Runner) -> None:
        self.identity: Final = Producer(service="runner", version="test", instance=runner.name)
        self._engine = engine

    def emit(
        self, event: msgspec.Struct, *, partition: int | None = None, droppable: bool = False,
        acknowledged: Acknowledged | None = None,
    ) -> None:  # fmt: skip
        """Write an event."""
        self._engine.append(event)
        if acknowledged is not None:
            asyncio.get_running_loop().call_soon(acknowledged)


class Engine:
    """Decides, routes and runs until there is nothing left to do. Belongs to the event loop in which it is made."""

    def __init__(self, runners: tuple[Runner, ...], policy: Policy, contents: ContentStore) -> None:
        """Register runners with a new log."""
        self.skipped_micros = 0
        """How far the clock was set forward, instead of waiting for a retry or a time to start."""
        self.log = MemoryLog(lambda: self.now)
        self.jobs: dict[str, Job] = {}
        self.concluded: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.changed = asyncio.Event()
        self._policy = policy
        self._read = 0
        self._attempts: dict[str, Attempts] = {}
        self._registered: dict[str, RunnerRegistered] = {}
        self._threads: list[HandlerThreads] = []
        for runner in runners:
            self._add(runner, contents)
        self._registry = Registry(self._registered)

    @property
    def now(self) -> Instant:
        """Return the time as this control plane has it."""
        return Instant(time.time_ns() // 1000 + self.skipped_micros)

    def append(self, event: msgspec.Struct) -> LogPosition:
        """Append an event; what follows from it is decided in the next step."""
        position = self.log.append(event)
        self.changed.set()
        return position

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self.changed.clear()
            while self._decide() or self._route() or self._skip():  # noqa: ASYNC110 -- gives others their turn, waits for nothing
                await asyncio.sleep(0)
            await self.changed.wait()

    def close(self) -> None:
        """Let the threads of handlers end."""
        for threads in self._threads:
            threads.stop()

    @property
    def idle(self) -> bool:
        """Say whether no handler runs."""
        return not any(attempts.held for attempts in self._attempts.values())

    def _add(self, runner: Runner, contents: ContentStore) -> None:
        threads = HandlerThreads(runner.slots, name=f"handler {runner.name}")
        self._threads.append(threads)
        sink = _Sink(self, runner)
        registered = RunnerRegistered(
            header=outside_header("RunnerRegistered", random_id(), sink.identity, self.now), runner_id=runner.name,
            name=runner.name, pool=runner.pool, slots=runner.slots, labels=runner.labels, inbox_partition=0,
            capabilities=tuple(handler.contract() for handler in runner.handlers.values()), heartbeat_seconds=2.0,
        )  # fmt: skip
        self._registered[runner.name] = registered
        self.log.append(registered)
        self._attempts[runner.name] = Attempts(
            runner, slots=runner.slots, sink=sink, contents=contents, inline_limit_bytes=INLINE_LIMIT_BYTES, threads=threads,
            processes=None, metrics=Metrics(CollectorRegistry()),
        )  # fmt: skip

    def _decide(self) -> bool:
        """Decide what was appended since the last step, as JobForge decides a batch."""
        fresh, self._read = self.log.records[self._read :], len(self.log.records)
        batch = [consume(record, 1) for record in fresh if record.topic in READ]
        if not batch:
            return False
        decided = decide_batch(
            batch, self.jobs, partition=0, registry=self._registry, producer=JOBFORGE,
            related=Related(children=self._children(), parents=self.jobs),
        )  # fmt: skip
        self._take(decided.jobs, decided.events)
        return True

    def _children(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for job in self.jobs.values():
            if job.parent is not None and not job.concluded:
                found[job.parent.job_id] = (*found.get(job.parent.job_id, ()), job.job_id)
        return found

    def _take(self, jobs: dict[str, Job], events: Any) -> None:
        self.jobs.update(jobs)
        for event in events:
            self.log.append(event)
            if isinstance(event, AttemptRevoked) and event.runner_id in self._attempts:
                self._attempts[event.runner_id].revoke(event)
        for name in jobs:
            if self.jobs[name].concluded:
                self.concluded[name].set()

    def _route(self) -> bool:
        """Ask the policy who gets what."""
        waiting = [job for job in self.jobs.values() if job.phase is Phase.QUEUED]
        if not waiting:
            return False
        assigned = self._policy(
            Situation(jobs=waiting, runners={name: self._candidate(name) for name in self._registered})
        )
        for one in assigned:
            job, routed = leased(one, random_id(), self.now, producer=JOBFORGE, lease_seconds=LEASE_SECONDS)
            self.jobs[job.job_id] = job
            self._attempts[one.runner_id].take(routed, self.log.append(routed))
        return bool(assigned)

    def _candidate(self, name: str) -> Candidate:
        runner = self._registered[name]
        busy = sum(job.slots for job in self.jobs.values() if job.leased and job.runner_id == name)
        return Candidate(
            runner_id=name, pool=runner.pool, slots=runner.slots, busy=busy, labels=runner.labels, offers=rules.offers(runner)
        )  # fmt: skip

    def _skip(self) -> bool:
        """Set the clock to the next moment at which something is due, when nothing happens before."""
        if not self.idle or self._read < len(self.log.records):
            return False
        due = [job for job in self.jobs.values() if job.due_at is not None and not job.concluded]
        if not due:
            return False
        moment = min(job.due_at or 0 for job in due)
        self.skipped_micros += max(0, moment - self.now)
        for job in due:
            if job.due_at is not None and job.due_at <= self.now:
                context = Context(
                    cause=job.cause, now=self.now, registry=self._registry, producer=JOBFORGE, partition=0
                )
                decision: Decision = on_due(job, context)
                if decision.job is not None:
                    self._take({job.job_id: decision.job}, decision.events)
        return True
