"""Growth, measured: millions of events in one file, and what the documented questions cost then."""

import asyncio
import json
import multiprocessing
import random
import resource
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.table import Table

from controlplane.cli import show
from controlplane.cli.bench import machine, with_uvloop
from controlplane.demo.history import BEGUN, EVENTS_PER_JOB, JOBS_AT_ONCE, write_jobs
from controlplane.events.catalog import EVENT_TYPES, Service, record_key
from controlplane.events.codec import encode
from controlplane.events.identity import partition_of
from controlplane.events.types import LogPosition, Producer
from controlplane.log.blocks import RecordBlock, block_of
from controlplane.log.positions import Partition
from controlplane.truthcore_projector import queries
from controlplane.truthcore_projector.activity import activity, job_counts
from controlplane.truthcore_projector.cursors import Cursor, tuples
from controlplane.truthcore_projector.fold import fold_blocks
from controlplane.truthcore_projector.moments import NOW
from controlplane.truthcore_projector.store import Store, positions_in
from controlplane.truthcore_projector.truths import Wanted, truth_page

PARTITIONS: Final = 8
PORTION_JOBS: Final = 3 * JOBS_AT_ONCE
"""What one process hands to the other at once: some 65,000 records."""
SPAN_MILLISECONDS: Final = 30 * 24 * 3600 * 1000
"""The events are appended over so much time of the log's clock."""
HISTORY: Final = "history"
POINT_MILLISECONDS: Final = 20.0
AGGREGATE_MILLISECONDS: Final = 1_000.0
SEED: Final = 1

Question = Callable[[Cursor, int], Any]


class _Record(msgspec.Struct, frozen=True):
    topic: str
    partition: int
    key: bytes
    value: bytes
    offset: int = -1
    timestamp: int = -1


class _Pretended:
    """Takes records as a log would, and gives them back as a reader finds them."""

    identity: Final = Producer(service=Service.GATEWAY.value, version="bench", instance=HISTORY)

    def __init__(self) -> None:
        self._ends: dict[Partition, int] = {}
        self._records: dict[Partition, list[_Record]] = {}
        self.now_milliseconds = BEGUN // 1000

    def record(self, event: Any) -> _Record:
        key, topic = record_key(event), EVENT_TYPES[type(event).__name__].topic.name
        return _Record(topic, partition_of(key, PARTITIONS), key, encode(event))

    async def send(self, records: Sequence[_Record]) -> list[LogPosition]:
        positions = []
        for one in records:
            place = (one.topic, one.partition)
            offset = self._ends[place] = self._ends.get(place, -1) + 1
            appended = msgspec.structs.replace(one, offset=offset, timestamp=self.now_milliseconds)
            self._records.setdefault(place, []).append(appended)
            positions.append(LogPosition(topic=one.topic, partition=one.partition, offset=offset))
        return positions

    def taken(self) -> list[RecordBlock]:
        """Return what was sent since the last call."""
        blocks = [block_of(some) for some in self._records.values()]
        self._records.clear()
        return blocks


def _generate(jobs: int, blocks: "Queue[list[RecordBlock] | None]") -> None:
    """Put the records of so many jobs into a queue, None behind the last."""

    async def generate() -> None:
        target = _Pretended()
        for first in range(0, jobs, JOBS_AT_ONCE):
            target.now_milliseconds = BEGUN // 1000 + SPAN_MILLISECONDS * first // jobs
            await write_jobs(target, first, min(JOBS_AT_ONCE, jobs - first), HISTORY)
            if first % PORTION_JOBS == 0:
                await asyncio.to_thread(blocks.put, target.taken())
        await asyncio.to_thread(blocks.put, target.taken())
        blocks.put(None)

    asyncio.run(generate())


async def _blocks(waiting: "Queue[list[RecordBlock] | None]") -> AsyncIterator[RecordBlock]:
    while (some := await asyncio.to_thread(waiting.get)) is not None:
        for block in some:
            yield block


def grow(file: Path, events: int, *, quiet: bool) -> dict[str, Any]:
    """Fold at least so many events into a file, by the projection's own way, with a process that makes them in the place of a log."""
    spawn = multiprocessing.get_context("spawn")
    waiting: Queue[list[RecordBlock] | None] = spawn.Queue(2)
    jobs = -(-events // EVENTS_PER_JOB)
    maker = spawn.Process(target=_generate, args=(jobs, waiting), daemon=True)
    maker.start()
    store = Store(file, bulk=True)
    began, cpu_began = time.perf_counter(), time.process_time()
    try:
        done = with_uvloop(fold_blocks(_blocks(waiting), store, jobs * EVENTS_PER_JOB, None if quiet else _progress))
    finally:
        maker.terminate()
        maker.join()
        store.close()
    return {
        "events": done, "seconds": round(time.perf_counter() - began, 1),
        "cpu_us_per_event": round((time.process_time() - cpu_began) / done * 1e6, 2),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }  # fmt: skip


def _progress(done: int, total: int, seconds: float) -> None:
    if done // 1_000_000 > (done - 65_000) // 1_000_000:
        show.console.print(f"{done:,} of {total:,} events after {seconds:.0f} s")


def _job(number: int) -> str:
    return f"{HISTORY}-{number}"


def _sql(text: str) -> Question:
    return lambda cursor, _: tuples(cursor, text)


def _why(cursor: Cursor, job_id: str) -> Any:
    found = queries.submission_of(cursor, job_id)
    return found and queries.effects(cursor, found)


POINTS: Final[dict[str, Question]] = {
    "one job": lambda c, n: queries.job_views(c, [_job(n)], details=True),
    "the records of a job": lambda c, n: queries.job_event_page(c, _job(n), 1000)[0],
    "one truth": lambda c, n: truth_page(c, Wanted(subject=f"job:{_job(n)}", predicate="outcome"), NOW, 100)[0],
    "all truths of a subject": lambda c, n: truth_page(c, Wanted(subject=f"job:{_job(n)}"), NOW, 100)[0],
    "one record": lambda c, n: queries.event_at(c, "controlplane.submissions", n % PARTITIONS, n // (2 * PARTITIONS)),
}
PAGES: Final[dict[str, Question]] = {
    "the newest 50 jobs": lambda c, _: queries.job_page(c, {}, 50, None)[0],
    "the newest 50 failed jobs": lambda c, _: queries.job_page(c, {"phase": "FAILED"}, 50, None)[0],
    "50 jobs found by a part of their id": lambda c, n: queries.job_page(c, {"search": f"-{n}"}, 50, None)[0],
    "the newest 50 records": lambda c, _: queries.event_page(c, {}, 50, None)[0],
    "100 truths by a prefix": lambda c, n: truth_page(c, Wanted(subject=f"job:{_job(n)}*"), NOW, 100)[0],
    "everything that a submission caused": lambda c, n: _why(c, _job(n)),
    "jobs by phase": lambda c, _: job_counts(c, {}),
    "jobs by phase, of one type": lambda c, _: job_counts(c, {"job_type": "noop"}),
    "activity of an hour": lambda c, _: activity(
        c, datetime.fromtimestamp((BEGUN // 1000 + SPAN_MILLISECONDS) / 1000, UTC), 3600, 60
    ),
    "SQL: jobs by phase": _sql("SELECT phase, count(*) FROM jobs GROUP BY phase"),
    "SQL: records by type": _sql("SELECT event_type, count(*) FROM events GROUP BY event_type"),
    "SQL: records per hour": _sql(
        "SELECT date_trunc('hour', log_time) AS hour, count(*) FROM events GROUP BY hour ORDER BY hour"
    ),
    "SQL: truths by value": _sql("SELECT text, count(*) FROM assertions WHERE predicate = 'outcome' GROUP BY text"),
}


def measure_questions(file: Path, jobs: int, rounds: int) -> list[dict[str, Any]]:
    """Ask every question so often, each about a job drawn by chance, as the service would; return wall and CPU milliseconds of each."""
    chance, store = random.Random(SEED), Store(file)
    figures = []
    try:
        for questions, limit, times in (
            (POINTS, POINT_MILLISECONDS, rounds),
            (PAGES, AGGREGATE_MILLISECONDS, max(3, rounds // 10)),
        ):
            for name, ask in questions.items():
                wall, cpu = [], []
                for _ in range(times):
                    began, cpu_began = time.perf_counter(), time.process_time()
                    with store.snapshot() as cursor:
                        found = ask(cursor, chance.randrange(jobs))
                        positions_in(cursor)
                    wall.append((time.perf_counter() - began) * 1000)
                    cpu.append((time.process_time() - cpu_began) * 1000)
                    if not found:
                        raise RuntimeError(f"Expected an answer to {name!r}, but found none.")
                figures.append(
                    {
                        "question": name,
                        "wall_ms": _middle(wall),
                        "worst_ms": round(max(wall), 1),
                        "cpu_ms": _middle(cpu),
                        "limit_ms": limit,
                    }
                )
    finally:
        store.close()
    return figures


def _middle(values: list[float]) -> float:
    return round(statistics.median(values), 1)


def run_growth(events: int, rounds: int, data_dir: Path | None, *, as_json: bool) -> int:
    """Print what the questions cost over so many events; 1 if the CPU time of one is above its limit."""
    with tempfile.TemporaryDirectory(prefix="controlplane-bench-") as name:
        file = (data_dir or Path(name)) / "growth.duckdb"
        grown = None if file.exists() else grow(file, events, quiet=as_json)
        jobs = -(-events // EVENTS_PER_JOB)
        figures = measure_questions(file, jobs, rounds)
        size = file.stat().st_size
    over = [one["question"] for one in figures if one["cpu_ms"] > one["limit_ms"]]
    if as_json:
        print(
            json.dumps(
                {
                    "events": events,
                    "grown": grown,
                    "file_bytes": size,
                    "questions": figures,
                    "over": over,
                    "machine": machine(),
                }
            )
        )
        return 1 if over else 0
    table = Table("Question", "CPU ms", "Wall ms", "Slowest ms", "Limit ms", box=None, header_style="dim")
    for one in figures:
        table.add_row(
            one["question"], str(one["cpu_ms"]), str(one["wall_ms"]), str(one["worst_ms"]), f"{one['limit_ms']:g}"
        )
    show.console.print(table)
    show.console.print(f"{jobs * EVENTS_PER_JOB:,} events in {size / 1e9:.2f} GB; {grown or 'the file was there'}")
    return 1 if over else 0
