"""What routing a job costs with a long queue, against a short one: the shipped store and router on a real Valkey.

The log and the runners are left out: what is routed is taken as done at once, and as many jobs come in as went.
"""

import asyncio
import heapq
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from controlplane.cli import show
from controlplane.cli.bench import machine
from controlplane.events import types
from controlplane.events.catalog import SUBMISSIONS, TOPICS, Service
from controlplane.events.codec import decode
from controlplane.events.header import Cause, outside_header
from controlplane.events.identity import Instant
from controlplane.events.job_contracts import Registry
from controlplane.events.types import LogPosition
from controlplane.jobforge_agent.changes import Changes
from controlplane.jobforge_agent.decide import Context, new_job
from controlplane.jobforge_agent.outbox import Outbox
from controlplane.jobforge_agent.policy import least_loaded
from controlplane.jobforge_agent.router import Router
from controlplane.jobforge_agent.state import CRITICAL, Job
from controlplane.jobforge_agent.store import Store
from controlplane.jobforge_agent.transitions import Phase
from controlplane.local.stack import EmbeddedStack
from controlplane.log.connection import LogConnection
from controlplane.log.producer import LogProducer, OutgoingRecord

TENANTS: Final = ("red", "green", "blue", "white")
KINDS: Final = ("resize", "index")
RUNNERS: Final = 4
SLOTS: Final = 16
STORED_AT_ONCE: Final = 1000
LEASE_SECONDS: Final = 6.0
MILLISECOND: Final = 1000
"""Between two submissions, in microseconds."""
SEED: Final = 7


class _Kept(Outbox):
    """Keeps what the router publishes, in its order, instead of sending it."""

    routed: list[types.JobRouted]

    def publish(self, name: str, records: Sequence[OutgoingRecord]) -> None:
        """Keep the decisions."""
        self.routed += [decode(one.value) for one in records]


class Queue:
    """One queue of a constant length, and what is known of it without asking the store."""

    def __init__(self, url: str, size: int) -> None:
        """Prepare a queue in a namespace of its own."""
        self.size = size
        self.faults: list[str] = []
        self.seconds: list[float] = []
        """Per routed job, one figure per round."""
        self.routed = 0
        self._random = random.Random(SEED)
        self._store = Store(url, f"bench-queue-{size}", "bench")
        producer = LogProducer(
            LogConnection(bootstrap="none"),
            service=Service.JOBFORGE,
            partitions=dict.fromkeys(TOPICS, 4),
            instance="bench",
        )
        self._identity = producer.identity
        self._outbox = _Kept(producer, self._store, "bench")
        self._outbox.routed = []
        self._router = Router(self._store, self._outbox, producer, policy=least_loaded, lease_seconds=LEASE_SECONDS)
        self._waiting: dict[str, Job] = {}
        self._lines: dict[str, list[tuple[int, str]]] = {tenant: [] for tenant in TENANTS}
        self._critical: list[tuple[int, str]] = []
        self._number = 0
        self._now = time.time_ns() // 1000

    async def fill(self) -> None:
        """Register the runners and put the jobs into the queue."""
        capabilities = tuple(types.Capability(job_type=kind, version="1.0.0") for kind in KINDS)
        for number in range(RUNNERS):
            name = f"runner-{number + 1}"
            header = outside_header("RunnerRegistered", name, self._identity, Instant(self._now))
            runner = types.RunnerRegistered(
                header=header, runner_id=name, name=name, slots=SLOTS, capabilities=capabilities, inbox_partition=0,
                heartbeat_seconds=2.0,
            )  # fmt: skip
            await self._store.runners.register(runner, self._now)
        self._router.update(await self._store.runners.registered(), await self._store.runners.beats(), set())
        await self._submit(self.size)

    async def _submit(self, count: int) -> None:
        for first in range(0, count, STORED_AT_ONCE):
            jobs = [self._job() for _ in range(min(STORED_AT_ONCE, count - first))]
            await self._store.commit(Changes.between((None, job) for job in jobs))
            for job in jobs:
                self._waiting[job.job_id] = job
                line = self._critical if job.priority >= CRITICAL else self._lines[job.tenant]
                heapq.heappush(line, (job.score, job.job_id))

    def _job(self) -> Job:
        self._number += 1
        name, draw = f"job-{self._number}", self._random
        at = Instant(self._now + self._number * MILLISECOND)
        tenant = draw.choice(TENANTS)
        header = outside_header("JobSubmitted", name, self._identity, at, tenant=tenant)
        submitted = types.JobSubmitted(
            header=header, job_id=name, job_type=draw.choice(KINDS), payload=types.Content(data=b'{"size": 1}'),
            priority=draw.randint(0, CRITICAL),
        )  # fmt: skip
        place = LogPosition(topic=SUBMISSIONS.name, partition=0, offset=self._number)
        cause = Cause(position=place, correlation_id=name, tenant=tenant)
        return new_job(
            submitted, Context(cause=cause, now=at, registry=Registry({}), producer=self._identity, partition=0)
        )

    async def round(self) -> None:
        """Route until every slot is taken, then end those attempts and let as many jobs come in."""
        began = time.perf_counter()
        count = await self._router.route_once()
        self.seconds.append((time.perf_counter() - began) / max(1, count))
        routed, self._outbox.routed = self._outbox.routed, []
        self.routed += len(routed)
        if len(routed) != RUNNERS * SLOTS:
            self.faults.append(f"Expected {RUNNERS * SLOTS} jobs to be routed, but {len(routed)} were.")
        self._hold(routed)
        leased = await self._store.jobs([one.job_id for one in routed])
        ended = [(job, job.tombstone(Phase.COMPLETED, job.last)) for job in leased.values()]
        await self._store.commit(Changes.between(ended))
        await self._store.published([one.attempt_id for one in routed])
        await self._submit(len(routed))

    def _hold(self, routed: Sequence[types.JobRouted]) -> None:
        """Hold the order against what is promised: critical jobs first and by age, then each tenant's by its score."""
        for one in routed:
            job = self._waiting.pop(one.job_id)
            line = self._critical or self._lines[job.tenant]
            expected = line[0][1]
            if expected == one.job_id:
                heapq.heappop(line)
            else:
                self.faults.append(f"Expected {expected} to be routed next, but found {one.job_id}.")
                own = self._critical if job.priority >= CRITICAL else self._lines[job.tenant]
                own.remove((job.score, job.job_id))
                heapq.heapify(own)

    async def commands(self) -> int:
        """Return how many commands the server executed so far, those inside of scripts included."""
        client: Any = self._store._redis  # noqa: SLF001 -- the same connection, so that nothing else is counted
        return sum(int(one["calls"]) for one in (await client.info("commandstats")).values())

    async def close(self) -> None:
        """Disconnect."""
        await self._store.close()


async def measure(url: str, sizes: Sequence[int], rounds: int) -> dict[str, Any]:
    """Return what routing costs with each queue; rounds of the queues alternate, so that both meet the same machine."""
    queues = [Queue(url, size) for size in sizes]
    for queue in queues:
        await queue.fill()
    commands = Counter[int]()
    for _ in range(rounds):
        for queue in queues:
            before = await queue.commands()
            await queue.round()
            commands[queue.size] += await queue.commands() - before
    for queue in queues:
        await queue.close()
    found = {
        str(queue.size): {
            "microseconds_per_job": round(statistics.median(queue.seconds) * 1e6, 1),
            "commands_per_job": round(commands[queue.size] / max(1, queue.routed), 2), "routed": queue.routed,
        }
        for queue in queues
    }  # fmt: skip
    short, long = (found[str(size)] for size in sizes)
    return {
        "queues": found, "ratio": round(long["microseconds_per_job"] / short["microseconds_per_job"], 3),
        "ratio_of_commands": round(long["commands_per_job"] / short["commands_per_job"], 3),
        "faults": [fault for queue in queues for fault in queue.faults][:20], "machine": machine(),
    }  # fmt: skip


def run_queue(jobs: int, few: int, rounds: int, *, as_json: bool) -> int:
    """Print what routing a job costs with both queues; 1 if one was not routed in the promised order."""
    with (
        tempfile.TemporaryDirectory(prefix="controlplane-bench-") as folder,
        EmbeddedStack(Path(folder), with_kafka=False) as stack,
    ):
        figures = asyncio.run(measure(stack.redis_url, (few, jobs), rounds))
    if as_json:
        print(json.dumps(figures))
    else:
        table = Table(
            "Queued jobs", "Microseconds per routed job", "Commands per routed job", box=None, header_style="dim"
        )
        for size, one in figures["queues"].items():
            table.add_row(f"{int(size):,}", str(one["microseconds_per_job"]), str(one["commands_per_job"]))
        show.console.print(table)
        show.console.print(f"ratio {figures['ratio']} (time), {figures['ratio_of_commands']} (commands)")
        for fault in figures["faults"]:
            show.console.print(f"[red]{fault}[/]")
    return 1 if figures["faults"] else 0
