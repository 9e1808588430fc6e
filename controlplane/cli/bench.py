"""Benchmarks: real jobs on a real broker, held to what the topics say afterwards."""

import asyncio
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.table import Table

from controlplane.cli import show
from controlplane.cli.stack import SystemStack
from controlplane.client import Client, LogClient
from controlplane.events.catalog import TERMINAL, TOPICS
from controlplane.events.codec import decode
from controlplane.log.connection import LogConnection
from controlplane.log.reader import LogReader
from controlplane.log.topics import partition_counts
from controlplane.settings import settings

IDLE_JOBS: Final = 300
SUBMIT_AT_ONCE: Final = 500
SLOTS: Final = 256
GIVE_UP_SECONDS: Final = 240.0
STEPS: Final = ("JobSubmitted", "JobAccepted", "JobRouted", "AttemptStarted", "AttemptSucceeded", "JobCompleted")
T = TypeVar("T")
RUNNER: Final = "controlplane.demo.noop:runner"


def machine() -> dict[str, Any]:
    """Return the machine that a figure belongs to."""
    return {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}


def payload(number: int) -> dict[str, Any]:
    """Return a payload of about 200 bytes."""
    return {"id": number, "tenant": "acme", "kind": "noop", "trace": f"{number:032x}", "note": "x" * 100}


def percentiles(milliseconds: list[float]) -> dict[str, float]:
    """Return p50, p95 and p99 by nearest rank."""
    ordered = sorted(milliseconds)
    return {
        f"p{p}": round(ordered[min(len(ordered) - 1, round(p / 100 * (len(ordered) - 1)))], 2) for p in (50, 95, 99)
    }


class Measured:
    """What the client saw: when each job was concluded."""

    def __init__(self, client: LogClient) -> None:
        self._client = client
        self.concluded: dict[str, float] = {}
        self._moved = asyncio.Event()

    async def follow(self, begun: asyncio.Event) -> None:
        """Note conclusions as they come."""
        async for batch in self._client.conclusions():
            now = time.perf_counter()
            for one in batch:
                self.concluded.setdefault(one.job_id, now)
            begun.set()
            self._moved.set()

    async def until(self, job_ids: set[str]) -> None:
        """Return when all these jobs are concluded."""
        async with asyncio.timeout(GIVE_UP_SECONDS):
            while not job_ids <= self.concluded.keys():
                self._moved.clear()
                await self._moved.wait()


async def measure(connection: LogConnection, jobs: int) -> dict[str, Any]:
    """Return throughput of a flood and latency of one job at a time, as the client sees them."""
    async with LogClient(connection) as client:
        measured = Measured(client)
        begun = asyncio.Event()
        following = asyncio.create_task(measured.follow(begun))
        await begun.wait()
        await _flood(client, measured, min(jobs, 1000), "warm")
        milliseconds = []
        for number in range(IDLE_JOBS):
            event = client.submission("noop", payload(number), job_id=f"idle-{number}")
            started = time.perf_counter()
            await client.submit([event])
            await measured.until({event.job_id})
            milliseconds.append((time.perf_counter() - started) * 1000)
        seconds = await _flood(client, measured, jobs, "flood")
        following.cancel()
        return {"jobs": jobs, "seconds": round(seconds, 3), "jobs_per_s": round(jobs / seconds, 1), "latency_ms": percentiles(milliseconds)}  # fmt: skip


async def _flood(client: LogClient, measured: Measured, jobs: int, name: str) -> float:
    started = time.perf_counter()
    ids = []
    sending = []
    for first in range(0, jobs, SUBMIT_AT_ONCE):
        events = [
            client.submission("noop", payload(number), job_id=f"{name}-{number}")
            for number in range(first, min(jobs, first + SUBMIT_AT_ONCE))
        ]
        ids += [event.job_id for event in events]
        sending.append(asyncio.create_task(client.submit(events)))
        await asyncio.sleep(0)
    await asyncio.gather(*sending)
    await measured.until(set(ids))
    return time.perf_counter() - started


async def read_back(connection: LogConnection) -> tuple[Counter[str], dict[str, set[str]], dict[str, set[str]]]:
    """Return what the topics hold: events by type, the conclusions of each job by event id, and the steps of each job."""
    counts = await partition_counts(connection)
    places = [(topic, number) for topic in TOPICS for number in range(counts[topic])]
    kinds: Counter[str] = Counter()
    conclusions: dict[str, set[str]] = {}
    steps: dict[str, set[str]] = {}
    async with LogReader(connection, client_id="controlplane-bench") as reader:
        ends = await reader.end_offsets(places)
        left = {one for one, end in ends.items() if end}
        await reader.assign(dict.fromkeys(left, "earliest"))
        while left:
            for one, batch in (await reader.batch(timeout_seconds=0.5)).items():
                for record in batch:
                    event = decode(record.value)
                    kinds[type(event).__name__] += 1
                    if job_id := getattr(event, "job_id", None):
                        steps.setdefault(job_id, set()).add(type(event).__name__)
                    if type(event) in TERMINAL:
                        conclusions.setdefault(event.job_id, set()).add(event.header.event_id)
                if batch[-1].offset + 1 >= ends[one]:
                    left.discard(one)
    return kinds, conclusions, steps


def faults_of(jobs: list[str], conclusions: dict[str, set[str]], steps: dict[str, set[str]]) -> list[str]:
    """Return what is missing or too much: every job concludes exactly once, and each of its steps is on the log."""
    faults = [
        f"{one}: {len(conclusions.get(one, ()))} conclusions" for one in jobs if len(conclusions.get(one, ())) != 1
    ]
    missing = {one: [step for step in STEPS if step not in steps.get(one, ())] for one in jobs}
    return faults + [f"{one}: no {', '.join(names)}" for one, names in missing.items() if names]


@contextlib.contextmanager
def running(runners: int, agents: int, *, secure: bool | None = None) -> Iterator[tuple[Path, Client, LogConnection]]:
    """Keep a stack of its own with no-op runners up during the block; gives its folder, a client and its log."""
    chosen = settings() if secure is None else settings().model_copy(update={"secure": secure})
    with (
        tempfile.TemporaryDirectory(prefix="controlplane-bench-") as folder,
        SystemStack(chosen, Path(folder), agents=agents, free_ports=True) as stack,
        stack.client() as client,
    ):
        for number in range(runners):
            stack.add_runner(f"runner-{number + 1}", RUNNER, slots=SLOTS)
        _wait_for_runners(client, runners)
        yield Path(folder), client, stack.connection()


def e2e(jobs: int, runners: int, agents: int, *, secure: bool | None = None) -> dict[str, Any]:
    """Return the figures of an end-to-end run on a stack of its own, secured as the settings say unless it is said here."""
    with running(runners, agents, secure=secure) as (_, _, connection):
        figures = with_uvloop(measure(connection, jobs))
        kinds, conclusions, steps = with_uvloop(read_back(connection))
    names = [f"flood-{n}" for n in range(jobs)] + [f"idle-{n}" for n in range(IDLE_JOBS)]
    faults = faults_of(names, conclusions, steps)
    return figures | {
        "runners": runners, "agents": agents, "records": sum(kinds.values()), "records_by_event": dict(kinds),
        "faults": faults[:20], "concluded_once": not faults, "machine": machine(),
    }  # fmt: skip


def with_uvloop(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end on uvloop."""
    import uvloop

    return uvloop.run(work)


def _wait_for_runners(client: Client, wanted: int) -> None:
    give_up_at = time.monotonic() + GIVE_UP_SECONDS
    while len([one for one in client.runners().runners if one.state == "REGISTERED"]) < wanted:
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"Expected {wanted} runners to register, but they did not.")
        time.sleep(0.1)
    time.sleep(1.0)  # JobForge reads the same registrations.


def run_e2e(jobs: int, runners: int, agents: int, *, as_json: bool) -> int:
    """Print the figures of an end-to-end run; 1 if a job did not conclude exactly once or a step is missing."""
    figures = e2e(jobs, runners, agents)
    if as_json:
        print(json.dumps(figures))
    else:
        latency = figures["latency_ms"]
        show.console.print(
            f"[bold]{figures['jobs_per_s']:,} jobs/s[/] ({jobs:,} jobs, {runners} runners, {agents} agents)"
        )
        show.console.print(f"idle latency p50 {latency['p50']} ms, p95 {latency['p95']} ms, p99 {latency['p99']} ms")
        show.console.print(
            f"{figures['records']:,} records on the log; every job concluded once: {figures['concluded_once']}"
        )
    return 0 if figures["concluded_once"] else 1


def run_all(jobs: int, events: int) -> int:
    """Print our figures beside the peers' in one table of ratios."""
    from controlplane.cli.bench_replay import replay_jobs
    from controlplane.local.stack import EmbeddedStack

    peers = {}
    for system in ("taskiq", "celery"):
        with (
            tempfile.TemporaryDirectory(prefix="controlplane-bench-") as folder,
            EmbeddedStack(Path(folder), with_kafka=False) as stack,
        ):
            peers[system] = _peer(system, jobs if system == "taskiq" else min(jobs, 5000), stack.redis_tcp_url)
    ours = e2e(jobs, 2, 2)
    again = replay_jobs(events)
    table = Table("System", "Jobs/s", "Ours / theirs", "Idle p50 ms", "Idle p99 ms", box=None, header_style="dim")
    table.add_row(
        "controlplane", f"{ours['jobs_per_s']:,.0f}", "", str(ours["latency_ms"]["p50"]), str(ours["latency_ms"]["p99"])
    )
    for name, one in peers.items():
        ratio = f"{ours['jobs_per_s'] / one['jobs_per_s']:.2f}"
        table.add_row(
            name, f"{one['jobs_per_s']:,.0f}", ratio, str(one["latency_ms"]["p50"]), str(one["latency_ms"]["p99"])
        )
    show.console.print(table)
    show.console.print(f"replay {again['events_per_s']:,} events/s, {again['ratio']:.0%} of the raw read; {machine()}")
    return 0 if ours["concluded_once"] and again["digest_equal"] else 1


def _peer(system: str, jobs: int, redis_url: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.peers.measure", system, "--jobs", str(jobs), "--workers", "2"]
    environment = os.environ | {"PEER_REDIS_URL": redis_url}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)  # noqa: S603 -- our own
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures
