"""Query latency, measured: point reads of one TruthCore while events arrive at a fixed rate."""

import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Final

import httpx

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


def measure_queries(history: int, rate: int, seconds: float) -> dict[str, Any]:
    """Return the latencies of point reads over at least so many events, while `rate` more arrive each second."""
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
            spawn = multiprocessing.get_context("spawn")
            stop, written = spawn.Event(), spawn.Value("q", 0)
            writer = spawn.Process(target=_write, args=(connection, rate, stop, written))
            writer.start()
            try:
                _until(lambda: written.value > 0, "the first events to be written")
                begun, before = time.monotonic(), written.value
                milliseconds = _read(client, -(-history // EVENTS_PER_JOB), begun + seconds)
                took, arrived = time.monotonic() - begun, written.value - before
                reflects = client.get("/v1/standing").json()["reflects"]
            finally:
                stop.set()
                writer.join()
    every = [one for some in milliseconds.values() for one in some]
    return {
        "history": history, "arrived_per_s": round(arrived / took), "queries": len(every), "latency_ms": percentiles(every),
        "by_question": {kind: percentiles(some) for kind, some in milliseconds.items()},
        "lag_records": reflects["lag_records"], "lag_seconds": reflects["lag_seconds"], "machine": machine(),
    }  # fmt: skip


def _write(connection: LogConnection, rate: int, stop: Event, written: Any) -> None:
    """Write events at a rate until told to stop; a portion that was late is made up for."""
    begun, portion, number = time.monotonic(), max(EVENTS_PER_JOB, round(rate * PORTION_SECONDS)), 0
    while not stop.is_set():
        written.value += with_uvloop(write_history(connection, portion, name=f"live-{number}"))
        number += 1
        time.sleep(max(0.0, begun + written.value / rate - time.monotonic()))


def _read(client: httpx.Client, jobs: int, until: float) -> dict[str, list[float]]:
    """Ask one question after the other, each about something drawn from the history; return milliseconds by question."""
    chance = random.Random(SEED)
    questions: dict[str, Callable[[int], tuple[str, dict[str, str]]]] = {
        "job": lambda n: (f"/v1/jobs/history-{n}", {}),
        "truth": lambda n: ("/v1/truths", {"subject": f"job:history-{n}", "predicate": "outcome"}),
        "record": lambda n: (f"/v1/events/controlplane.submissions/{n % 8}/{n // 16}", {}),
    }
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
        positions = client.get("/v1/standing").json()["reflects"]["positions"]
        return bool(sum(n for some in positions.values() for n in some.values()) >= events)

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
        for kind, one in {"every point read": figures["latency_ms"], **figures["by_question"]}.items():
            show.console.print(f"[bold]{kind:>17}[/]  p50 {one['p50']} ms, p95 {one['p95']} ms, p99 {one['p99']} ms")
        show.console.print(
            f"{figures['queries']:,} reads over {history:,} events while {figures['arrived_per_s']:,} events/s arrived;"
            f" at the end the projection lagged by {figures['lag_records']:,} records"
        )
    return 1 if limit_milliseconds is not None and figures["latency_ms"]["p99"] > limit_milliseconds else 0
