"""Replay, measured: a log folded into complete projections, against what aiokafka reads of the same log on the same machine."""

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

from controlplane.api.models import DigestAnswer, TableDigest
from controlplane.cli import show
from controlplane.cli.bench import GIVE_UP_SECONDS, STEPS, machine, measure, running, with_uvloop
from controlplane.cli.stack import answers
from controlplane.client import Client
from controlplane.demo.history import write_history
from controlplane.local.ports import choose_port
from controlplane.local.stack import EmbeddedStack
from controlplane.log.connection import LogConnection
from controlplane.log.positions import Partition
from controlplane.log.reader import LogReader
from controlplane.log.topics import ensure_topics
from controlplane.settings import Settings
from controlplane.truthcore_projector.replay import positions_of, rebuild

MAX_RSS_UNIT_BYTES: Final = 1 if sys.platform == "darwin" else 1024
CATCH_UP_PER_S: Final = 10_000
"""A live projection slower than this is given up on."""


def replay_jobs(events: int) -> dict[str, Any]:
    """Return the figures of a replay of at least so many events of jobs that ran."""
    with running(2, 2) as (folder, client, connection):
        with_uvloop(measure(connection, events // (len(STEPS) + 1) + 1))
        return _figures(connection, _settled(client, events), folder)


def replay_history(events: int) -> dict[str, Any]:
    """Return the figures of a replay of at least so many mixed events, written straight to the log; TruthCore alone runs beside it."""
    with (
        tempfile.TemporaryDirectory(prefix="controlplane-bench-") as name,
        EmbeddedStack(Path(name), with_valkey=False) as stack,
    ):
        connection = LogConnection(bootstrap=stack.kafka_bootstrap)
        url = f"http://127.0.0.1:{choose_port(None)}"
        with_uvloop(_written(connection, events))
        environment = {
            "CONTROLPLANE_KAFKA_BOOTSTRAP": stack.kafka_bootstrap, "CONTROLPLANE_DATA_DIR": name,
            "CONTROLPLANE_TRUTHCORE_PORT": url.rpartition(":")[2],
        }  # fmt: skip
        command = [sys.executable, "-m", "controlplane.cli.main", "service", "truthcore"]
        child = stack.supervisor.add("truthcore", command, environment, ready=lambda: answers(f"{url}/health/live"))
        child.wait_ready()
        with Client(url) as client:
            return _figures(connection, _settled(client, events), Path(name))


async def _written(connection: LogConnection, events: int) -> None:
    await ensure_topics(connection, Settings(kafka_bootstrap=connection.bootstrap))
    await write_history(connection, events)


def _settled(client: Client, events: int) -> DigestAnswer:
    """Return the live digest once the projection has read the whole log."""
    give_up_at = time.monotonic() + GIVE_UP_SECONDS + events / CATCH_UP_PER_S
    while True:
        reflects = client.sql("SELECT 1").reflects
        if (
            reflects.lag_records == 0
            and sum(n for some in reflects.positions.values() for n in some.values()) >= events
        ):
            return client.digest()
        if time.monotonic() > give_up_at:
            raise TimeoutError(
                f"Expected the projection to reach the end of the log, but it lacks {reflects.lag_records}."
            )
        time.sleep(0.5)


def _figures(connection: LogConnection, live: DigestAnswer, folder: Path) -> dict[str, Any]:
    until = positions_of(live)
    # In a process of its own, so that the peak of its memory is the replay's.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        tables, records, seconds, peak_bytes = pool.submit(
            _rebuilt, connection, until, folder / "replay.duckdb"
        ).result()
    raw = with_uvloop(raw_read(connection, until))
    rate = records / seconds
    return {
        "events": records, "seconds": round(seconds, 3), "events_per_s": round(rate), "raw_read_per_s": round(raw),
        "ratio": round(rate / raw, 3), "peak_mib": round(peak_bytes / 2**20), "digest_equal": tables == live.tables, "machine": machine(),
    }  # fmt: skip


def _rebuilt(
    connection: LogConnection, until: dict[Partition, int], file: Path
) -> tuple[list[TableDigest], int, float, int]:
    tables, records, seconds = with_uvloop(rebuild(connection, until, file))
    return tables, records, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAX_RSS_UNIT_BYTES


async def raw_read(connection: LogConnection, until: dict[Partition, int]) -> float:
    """Return how many records a second aiokafka reads of the same partitions, discarding them."""
    async with LogReader(connection, client_id="controlplane-bench-raw") as reader:
        left = {one for one, end in until.items() if end}
        await reader.assign(dict.fromkeys(left, "earliest"))
        done, started = 0, time.perf_counter()
        while left:
            for one, batch in (await reader.batch(timeout_seconds=0.5)).items():
                done += len(batch)
                if batch[-1].offset + 1 >= until[one]:
                    left.discard(one)
        return done / (time.perf_counter() - started)


def run_replay(events: int, *, written: bool, as_json: bool) -> int:
    """Print the figures of a replay; 1 if its digest differs from the live projection's."""
    figures = replay_history(events) if written else replay_jobs(events)
    if as_json:
        print(json.dumps(figures))
    else:
        show.console.print(
            f"[bold]{figures['events_per_s']:,} events/s[/] of {figures['events']:,} into complete projections, {figures['ratio']:.0%} of what"
            f" aiokafka reads ({figures['raw_read_per_s']:,}/s); peak memory {figures['peak_mib']:,} MiB;"
            f" digest equal: {figures['digest_equal']}"
        )
    return 0 if figures["digest_equal"] else 1
