"""One gateway process, measured: single submissions and lines in bulk, each acknowledged by the log, beside the raw producer."""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families
from rich.table import Table

from controlplane.cli import show
from controlplane.cli.bench import GIVE_UP_SECONDS, machine, payload, percentiles, with_uvloop
from controlplane.cli.stack import answers
from controlplane.client import LogClient
from controlplane.local.ports import choose_port
from controlplane.local.stack import EmbeddedStack
from controlplane.log.connection import LogConnection
from controlplane.log.topics import ensure_topics
from controlplane.settings import Settings

LINES_PER_REQUEST: Final = 2_000
BULK_CONNECTIONS: Final = 4
WARM: Final = 500
Work = Callable[[int], Awaitable[None]]


def request_bytes(path: str, content: bytes, kind: str) -> bytes:
    """Return a whole HTTP/1.1 request."""
    head = f"POST {path} HTTP/1.1\r\nHost: gateway\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def job_line(number: int) -> bytes:
    """Return a job as JSON, of about 250 bytes."""
    return json.dumps({"job_type": "noop", "payload": payload(number)}).encode()


class Connection:
    """One connection that is kept; it reads no more of HTTP than the gateway speaks, so that the load costs little."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, url: str) -> "Connection":
        """Connect."""
        place = urlsplit(url)
        return cls(*await asyncio.open_connection(place.hostname, place.port, limit=16 * 1024 * 1024))

    async def answer(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; returns the status and the body of its answer."""
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head[9:12])
        if b"content-length:" in head:
            size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            return status, await self._reader.readexactly(size)
        parts = []
        while size := int(await self._reader.readline(), 16):
            parts.append(await self._reader.readexactly(size))
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)
        return status, b"".join(parts)

    def close(self) -> None:
        """Disconnect."""
        self._writer.close()


async def shared(count: int, workers: list[Work]) -> float:
    """Give numbers to workers, each its next when it is done with one; returns the seconds that all took."""
    numbers = iter(range(count))

    async def go_on(work: Work) -> None:
        for number in numbers:
            await work(number)

    started = time.perf_counter()
    async with asyncio.timeout(GIVE_UP_SECONDS):
        await asyncio.gather(*(go_on(work) for work in workers))
    return time.perf_counter() - started


def cpu_seconds(url: str) -> float:
    """Return the CPU time that the gateway has used."""
    text = httpx.get(f"{url}/metrics", timeout=GIVE_UP_SECONDS).text
    return next(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "process_cpu_seconds_total"
    )


async def http_single(url: str, jobs: int, connections: int) -> dict[str, Any]:
    """Return the figures of single submissions over so many connections."""
    opened = [await Connection.open(url) for _ in range(connections)]
    milliseconds: list[float] = []

    def worker(connection: Connection) -> Work:
        async def work(number: int) -> None:
            started = time.perf_counter()
            status, body = await connection.answer(request_bytes("/v1/jobs", job_line(number), "application/json"))
            milliseconds.append((time.perf_counter() - started) * 1000)
            if status != 202:
                raise RuntimeError(f"Expected 202, but the gateway answered {status}: {body[:500]!r}.")

        return work

    workers = [worker(one) for one in opened]
    await shared(WARM, workers)
    milliseconds.clear()
    before = cpu_seconds(url)
    seconds = await shared(jobs, workers)
    used = cpu_seconds(url) - before
    for one in opened:
        one.close()
    return _figures(jobs, seconds, used) | {"latency_ms": percentiles(milliseconds)}


async def http_bulk(url: str, jobs: int) -> dict[str, Any]:
    """Return the figures of jobs as lines, many in a request."""
    opened = [await Connection.open(url) for _ in range(BULK_CONNECTIONS)]

    def worker(connection: Connection) -> Work:
        async def work(number: int) -> None:
            first = number * LINES_PER_REQUEST
            lines = b"\n".join(job_line(one) for one in range(first, first + LINES_PER_REQUEST))
            status, body = await connection.answer(request_bytes("/v1/jobs/bulk", lines, "application/x-ndjson"))
            taken = body.count(b'"position"')
            if status != 200 or taken != LINES_PER_REQUEST:
                raise RuntimeError(
                    f"Expected {LINES_PER_REQUEST} positions, but found {taken} ({status}): {body[:500]!r}."
                )

        return work

    workers = [worker(one) for one in opened]
    await shared(BULK_CONNECTIONS, workers)
    before = cpu_seconds(url)
    seconds = await shared(jobs // LINES_PER_REQUEST, workers)
    used = cpu_seconds(url) - before
    for one in opened:
        one.close()
    return _figures(jobs // LINES_PER_REQUEST * LINES_PER_REQUEST, seconds, used)


async def raw(connection: LogConnection, count: int, at_once: int, size: int) -> float:
    """Return the submissions a second that our producer alone acknowledges: events of `size` in each call, so many calls at once."""
    async with LogClient(connection) as client:

        async def work(number: int) -> None:
            await client.submit([client.submission("noop", payload(number * size + one)) for one in range(size)])

        await shared(at_once * 2, [work] * at_once)
        calls = count // size
        return calls * size / await shared(calls, [work] * at_once)


def _figures(jobs: int, seconds: float, used: float) -> dict[str, Any]:
    return {"jobs": jobs, "jobs_per_s": round(jobs / seconds, 1), "cpu_us_per_job": round(used / jobs * 1e6, 1)}


def measure_gateway(jobs: int, lines: int, connections: int) -> dict[str, Any]:
    """Return the figures of one gateway on a broker of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="controlplane-bench-") as name,
        EmbeddedStack(Path(name), with_valkey=False) as stack,
    ):
        connection = LogConnection(bootstrap=stack.kafka_bootstrap)
        with_uvloop(ensure_topics(connection, Settings(kafka_bootstrap=connection.bootstrap)))
        url = f"http://127.0.0.1:{choose_port(None)}"
        environment = {
            "CONTROLPLANE_KAFKA_BOOTSTRAP": stack.kafka_bootstrap, "CONTROLPLANE_DATA_DIR": name,
            "CONTROLPLANE_GATEWAY_PORT": url.rpartition(":")[2],
        }  # fmt: skip
        command = [sys.executable, "-m", "controlplane.cli.main", "service", "gateway"]
        stack.supervisor.add("gateway", command, environment, ready=lambda: answers(f"{url}/health/live")).wait_ready()
        single = with_uvloop(http_single(url, jobs, connections))
        single["raw_per_s"] = round(with_uvloop(raw(connection, jobs, connections, 1)), 1)
        bulk = with_uvloop(http_bulk(url, lines))
        bulk["raw_per_s"] = round(with_uvloop(raw(connection, lines, BULK_CONNECTIONS, LINES_PER_REQUEST)), 1)
    for one in (single, bulk):
        one["ratio"] = round(one["jobs_per_s"] / one["raw_per_s"], 3)
    return {"single": single, "bulk": bulk, "connections": connections, "machine": machine()}


def run_gateway(jobs: int, lines: int, connections: int, *, as_json: bool) -> int:
    """Print the figures; an answer that is no acknowledgement ends the run."""
    found = measure_gateway(jobs, lines, connections)
    if as_json:
        print(json.dumps(found))
        return 0
    table = Table("", "Jobs/s", "Raw producer/s", "Ratio", "Gateway CPU us/job", box=None, header_style="dim")
    for name in ("single", "bulk"):
        one = found[name]
        table.add_row(name, f"{one['jobs_per_s']:,}", f"{one['raw_per_s']:,}", str(one["ratio"]), str(one["cpu_us_per_job"]))  # fmt: skip
    show.console.print(table)
    latency = found["single"]["latency_ms"]
    show.console.print(f"single, {connections} connections: p50 {latency['p50']} ms, p99 {latency['p99']} ms")
    return 0
