"""One process that submits straight to the log, beside the stock producer with the same bytes and the same promise."""

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from rich.table import Table

from controlplane.cli import show
from controlplane.cli.bench import machine, payload, with_uvloop
from controlplane.client import LogClient
from controlplane.events.catalog import SUBMISSIONS
from controlplane.events.codec import encode
from controlplane.events.identity import partition_of
from controlplane.local.stack import EmbeddedStack
from controlplane.log.connection import LogConnection
from controlplane.log.topics import ensure_topics, partition_counts
from controlplane.settings import Settings

AT_ONCE: Final = 500
CALLS_OPEN: Final = 16
"""So many calls of `submit` wait for the log at a time; more would only take memory."""
ROUNDS: Final = 3
Flood = Callable[[int], Awaitable[None]]


async def _in_portions(count: int, send: Callable[[int, int], Awaitable[Any]]) -> None:
    room = asyncio.Semaphore(CALLS_OPEN)

    async def portion(first: int) -> None:
        async with room:
            await send(first, min(count, first + AT_ONCE))

    async with asyncio.TaskGroup() as portions:
        for first in range(0, count, AT_ONCE):
            portions.create_task(portion(first))


def _ours(client: LogClient) -> Flood:
    async def send(first: int, last: int) -> None:
        await client.submit([client.submission("noop", payload(number)) for number in range(first, last)])

    return lambda count: _in_portions(count, send)


def _stock(producer: AIOKafkaProducer, client: LogClient, partitions: int) -> Flood:
    """Return a flood of records that are there already: the producer alone is measured, without making or writing events."""
    events = [client.submission("noop", payload(number)) for number in range(AT_ONCE)]
    records = [(event.job_id.encode(), encode(event)) for event in events]
    places = [partition_of(key, partitions) for key, _ in records]

    async def send(first: int, last: int) -> None:
        waiting = [
            await producer.send(SUBMISSIONS.name, value=value, key=key, partition=place)
            for (key, value), place in zip(records[: last - first], places, strict=False)
        ]
        await asyncio.gather(*waiting)

    return lambda count: _in_portions(count, send)


async def measure_client(connection: LogConnection, jobs: int) -> dict[str, Any]:
    """Return submissions a second, and CPU of this process for each, of ours and of the stock producer, by turns; the best of each counts."""
    partitions = (await partition_counts(connection))[SUBMISSIONS.name]
    stock = AIOKafkaProducer(
        acks="all", enable_idempotence=True, linger_ms=5, max_batch_size=512 * 1024, **connection.client_arguments()
    )
    found: dict[str, list[tuple[float, float]]] = {"ours": [], "stock": []}
    async with LogClient(connection) as client:
        await stock.start()
        try:
            floods = {"ours": _ours(client), "stock": _stock(stock, client, partitions)}
            for flood in floods.values():
                await flood(min(jobs, 5_000))  # Warm.
            for _ in range(ROUNDS):
                for name, flood in floods.items():
                    started, used = time.perf_counter(), time.process_time()
                    await flood(jobs)
                    found[name].append((time.perf_counter() - started, time.process_time() - used))
        finally:
            await stock.stop()
    figures = {
        name: {"per_s": round(jobs / min(wall for wall, _ in times), 1), "cpu_us": round(min(used for _, used in times) / jobs * 1e6, 1)}
        for name, times in found.items()
    }  # fmt: skip
    return {
        "jobs": jobs, **figures, "ratio": round(figures["ours"]["per_s"] / figures["stock"]["per_s"], 2), "machine": machine()
    }  # fmt: skip


def run_client(jobs: int, *, as_json: bool) -> int:
    """Print the figures; a submission that the log does not take ends the run."""
    with (
        tempfile.TemporaryDirectory(prefix="controlplane-bench-") as name,
        EmbeddedStack(Path(name), with_valkey=False) as stack,
    ):
        connection = LogConnection(bootstrap=stack.kafka_bootstrap)
        with_uvloop(ensure_topics(connection, Settings(kafka_bootstrap=connection.bootstrap)))
        found = with_uvloop(measure_client(connection, jobs))
    if as_json:
        print(json.dumps(found))
        return 0
    table = Table("", "Submissions/s", "CPU us each", box=None, header_style="dim")
    table.add_row("client, events made and written", f"{found['ours']['per_s']:,}", str(found["ours"]["cpu_us"]))
    table.add_row("aiokafka, bytes that are there", f"{found['stock']['per_s']:,}", str(found["stock"]["cpu_us"]))
    show.console.print(table)
    show.console.print(f"ratio {found['ratio']}")
    return 0
