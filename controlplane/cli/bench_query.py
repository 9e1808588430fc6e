"""Query latency, measured: point reads of one TruthCore while events arrive at a fixed rate."""

import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Final

import duckdb
import httpx
from rich.table import Table

from controlplane.cli import show
from controlplane.cli.bench import GIVE_UP_SECONDS, machine, percentiles, with_uvloop
from controlplane.cli.stack import answers
from controlplane.demo.history import EVENTS_PER_JOB, write_history
from controlplane.local.ports import choose_port
from controlplane.local.stack import EmbeddedStack
from controlplane.log.connection import LogConnection
from controlplane.log.topics import ensure_topics
from controlplane.settings import Settings

PORTION_SECONDS: Final = 0.25
"""Events arrive in portions of so much time."""
PAUSE_SECONDS: Final = 0.005
SEED: Final = 1
RAW_QUERIES: Final = 200


Questions = dict[str, Callable[[int], tuple[str, dict[str, str]]]]
QUESTIONS: Final[Questions] = {
    "job": lambda n: (f"/v1/jobs/history-{n}", {}),
    "truth": lambda n: ("/v1/truths", {"subject": f"job:history-{n}", "predicate": "outcome"}),
    "record": lambda n: (f"/v1/events/controlplane.submissions/{n % 8}/{n // 16}", {}),
}
RAW: Final[dict[str, Callable[[int], tuple[str, list[Any]]]]] = {
    "job": lambda n: ("SELECT * FROM submissions WHERE job_id = ?", [f"history-{n}"]),
    "truth": lambda n: (
        "SELECT * FROM assertions WHERE subject = ? AND predicate = ?",
        [f"job:history-{n}", "outcome"],
    ),
    "record": lambda n: (
        'SELECT * FROM events WHERE topic = ? AND partition = ? AND "offset" = ?',
        ["controlplane.submissions", n % 8, n // 16],
    ),
}
"""Of what each question has to find, the least that DuckDB could be asked for."""


def measure_queries(history: int, rate: int, seconds: float) -> dict[str, Any]:
    """Return the latencies of point reads over at least so many events, alone and while `rate` more arrive each second."""
    jobs = -(-history // EVENTS_PER_JOB)
    with (
        tempfile.TemporaryDirectory(prefix="controlplane-bench-") as name,
        EmbeddedStack(Path(name), with_valkey=False) as stack,
    ):
        connection = LogConnection(bootstrap=stack.kafka_bootstrap)
        with_uvloop(ensure_topics(connection, Settings(kafka_bootstrap=connection.bootstrap)))
        with_uvloop(write_history(connection, history))
        url = f"http://127.0.0.1:{choose_port(None)}"
        environment = {
            "CONTROLPLANE_KAFKA_BOOTSTRAP": stack.kafka_bootstrap, "CONTROLPLANE_DATA_DIR": name,
            "CONTROLPLANE_TRUTHCORE_PORT": url.rpartition(":")[2],
        }  # fmt: skip
        command = [sys.executable, "-m", "controlplane.cli.main", "service", "truthcore"]
        stack.supervisor.add(
            "truthcore", command, environment, ready=lambda: answers(f"{url}/health/live")
        ).wait_ready()
        with httpx.Client(base_url=url, timeout=GIVE_UP_SECONDS) as client:
            _settle(client, history)
            alone = {kind: _alone(client, kind, jobs, seconds / (2 * len(QUESTIONS))) for kind in QUESTIONS}
            arriving = _while_arriving(connection, client, rate, jobs, seconds)
        stack.supervisor.remove("truthcore")
        raw = _raw(Path(name) / "truthcore.duckdb", jobs)
    return {
        "history": history, **arriving,
        "by_question": {
            kind: {"alone": alone[kind], "arriving": arriving["by_question"][kind], "raw_duckdb": raw[kind]} for kind in QUESTIONS
        }, "machine": machine(),
    }  # fmt: skip


def _alone(client: httpx.Client, kind: str, jobs: int, seconds: float) -> dict[str, float]:
    """Return latency, and CPU time of TruthCore per question, while nothing else is asked of it and nothing arrives."""
    before = _cpu_seconds(client)
    found = _read(client, {kind: QUESTIONS[kind]}, jobs, time.monotonic() + seconds)[kind]
    return percentiles(found) | {"cpu_ms": round((_cpu_seconds(client) - before) * 1000 / len(found), 2)}


def _cpu_seconds(client: httpx.Client) -> float:
    text = client.get("/metrics").text
    return float(next(line for line in text.splitlines() if line.startswith("process_cpu_seconds_total")).split()[1])


def _while_arriving(
    connection: LogConnection, client: httpx.Client, rate: int, jobs: int, seconds: float
) -> dict[str, Any]:
    """Return the latencies while events arrive, how many really did, and how far the projection was behind them."""
    spawn = multiprocessing.get_context("spawn")
    stop, written = spawn.Event(), spawn.Value("q", 0)
    writer = spawn.Process(target=_write, args=(connection, rate, stop, written))
    writer.start()
    try:
        _until(lambda: written.value > 0, "the first events to be written")
        begun, before, folded, cpu = time.monotonic(), written.value, _folded(client), _cpu_seconds(client)
        found = _read(client, QUESTIONS, jobs, begun + seconds)
        took, arrived = time.monotonic() - begun, written.value - before
        projected, cpu = _folded(client) - folded, _cpu_seconds(client) - cpu
        reflects = client.get("/v1/standing").json()["reflects"]
    finally:
        stop.set()
        writer.join()
    every = [one for some in found.values() for one in some]
    return {
        "arrived_per_s": round(arrived / took), "projected_per_s": round(projected / took), "queries": len(every), "queries_per_s": round(len(every) / took, 1),
        "latency_ms": percentiles(every), "by_question": {kind: percentiles(some) for kind, some in found.items()},
        "truthcore_cores": round(cpu / took, 2), "lag_records": reflects["lag_records"], "lag_seconds": reflects["lag_seconds"],
    }  # fmt: skip


def _folded(client: httpx.Client) -> int:
    positions = client.get("/v1/standing").json()["reflects"]["positions"]
    return sum(n for some in positions.values() for n in some.values())


def _raw(file: Path, jobs: int) -> dict[str, dict[str, float]]:
    """Return what DuckDB alone takes for the least that each question has to look up, in the same file, with nobody else in it."""
    chance = random.Random(SEED)
    figures = {}
    with duckdb.connect(str(file), read_only=True) as database:
        for kind, look_up in RAW.items():
            found, before = [], time.process_time()
            for _ in range(RAW_QUERIES):
                statement, parameters = look_up(chance.randrange(jobs))
                started = time.perf_counter()
                database.execute(statement, parameters).fetchall()
                found.append((time.perf_counter() - started) * 1000)
            figures[kind] = percentiles(found) | {"cpu_ms": round((time.process_time() - before) * 1000 / RAW_QUERIES, 2)}  # fmt: skip
    return figures


def _write(connection: LogConnection, rate: int, stop: Event, written: Any) -> None:
    """Write events at a rate until told to stop; a portion that was late is made up for."""
    begun, portion, number = time.monotonic(), max(EVENTS_PER_JOB, round(rate * PORTION_SECONDS)), 0
    while not stop.is_set():
        written.value += with_uvloop(write_history(connection, portion, name=f"live-{number}"))
        number += 1
        time.sleep(max(0.0, begun + written.value / rate - time.monotonic()))


def _read(client: httpx.Client, questions: Questions, jobs: int, until: float) -> dict[str, list[float]]:
    """Ask one question after the other, each about something drawn from the history; return milliseconds by question."""
    chance = random.Random(SEED)
    found: dict[str, list[float]] = {kind: [] for kind in questions}
    while time.monotonic() < until:
        for kind, question in questions.items():
            path, query = question(chance.randrange(jobs))
            started = time.perf_counter()
            answer = client.get(path, params=query)
            found[kind].append((time.perf_counter() - started) * 1000)
            if answer.status_code != 200:
                raise RuntimeError(f"Expected {path} to be answered, but: {answer.text[:300]}")
        time.sleep(PAUSE_SECONDS)
    return found


def _settle(client: httpx.Client, events: int) -> None:
    def there() -> bool:
        return _folded(client) >= events

    _until(there, f"TruthCore to fold {events:,} events")


def _until(there: Callable[[], bool], what: str) -> None:
    give_up_at = time.monotonic() + GIVE_UP_SECONDS
    while not there():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"Expected {what}, but it did not come in {GIVE_UP_SECONDS:g} s.")
        time.sleep(0.2)


def run_query(history: int, rate: int, seconds: float, limit_milliseconds: float | None, *, as_json: bool) -> int:
    """Print the latencies; 1 if p99 is above the limit, where one is given."""
    figures = measure_queries(history, rate, seconds)
    if as_json:
        print(json.dumps(figures))
    else:
        table = Table("Point read", "p50 ms", "p99 ms", "p50 alone", "p99 alone", "CPU ms alone", "raw DuckDB p50", "CPU ms", "CPU / raw", box=None, header_style="dim")  # fmt: skip
        for kind, one in figures["by_question"].items():
            arriving, alone, raw = one["arriving"], one["alone"], one["raw_duckdb"]
            cells = (arriving["p50"], arriving["p99"], alone["p50"], alone["p99"], alone["cpu_ms"], raw["p50"], raw["cpu_ms"], round(alone["cpu_ms"] / raw["cpu_ms"], 1))  # fmt: skip
            table.add_row(kind, *map(str, cells))
        show.console.print(table)
        show.console.print(
            f"[bold]p99 {figures['latency_ms']['p99']} ms[/] of {figures['queries']:,} reads over {history:,} events while {figures['arrived_per_s']:,} events/s"
            f" arrived ({figures['projected_per_s']:,}/s projected, {figures['truthcore_cores']} cores of TruthCore; at the end it lagged by {figures['lag_records']:,}"
            f" records); client, producer, broker and TruthCore share {os.cpu_count()} cores"
        )
    return 1 if limit_milliseconds is not None and figures["latency_ms"]["p99"] > limit_milliseconds else 0
