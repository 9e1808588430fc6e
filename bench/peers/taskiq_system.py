"""taskiq on Redis streams with acknowledgements, tuned: results are looked for every millisecond."""

import asyncio
import os
import sys
from time import perf_counter
from typing import Any, Final

import redis
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from bench.peers import workload

URL: Final = os.environ["PEER_REDIS_URL"]
SUBMIT_AT_ONCE: Final = 200
LOOK_EVERY_SECONDS: Final = 0.001

backend: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(redis_url=URL)
broker = RedisStreamBroker(url=URL).with_result_backend(backend)


@broker.task(task_name="noop")
async def noop(job: dict[str, Any]) -> dict[str, Any]:
    """Do nothing."""
    return workload.result(job)


def worker_commands(workers: int) -> list[list[str]]:
    """Return the command that starts the workers."""
    command = [sys.executable, "-m", "taskiq", "worker", "bench.peers.taskiq_system:broker", "--workers", str(workers)]
    return [[*command, "--max-async-tasks", "100", "--max-prefetch", "0", "--log-level", "WARNING"]]


async def _throughput(jobs: int) -> float:
    started = perf_counter()
    ids: list[str] = []
    for first in range(0, jobs, SUBMIT_AT_ONCE):
        numbers = range(first, min(jobs, first + SUBMIT_AT_ONCE))
        tasks = await asyncio.gather(*(noop.kiq(workload.payload(number)) for number in numbers))
        ids += [task.task_id for task in tasks]
    await asyncio.to_thread(workload.wait_for_keys, redis.Redis.from_url(URL), ids)
    return jobs / (perf_counter() - started)


async def _latencies(jobs: int) -> list[float]:
    milliseconds = []
    for number in range(jobs):
        started = perf_counter()
        task = await noop.kiq(workload.payload(number))
        await task.wait_result(check_interval=LOOK_EVERY_SECONDS, timeout=30)
        milliseconds.append((perf_counter() - started) * 1e3)
    return milliseconds


async def _measure(jobs: int, workers: int) -> workload.PeerFigures:
    await broker.startup()
    await _throughput(200)  # The workers are up, and warm.
    jobs_per_s = await _throughput(jobs)
    latency_ms = workload.percentiles(await _latencies(300))
    await broker.shutdown()
    return workload.PeerFigures(
        system="taskiq", jobs=jobs, workers=workers, jobs_per_s=round(jobs_per_s, 1), latency_ms=latency_ms
    )


def measure(jobs: int, workers: int) -> workload.PeerFigures:
    """Return the figures of taskiq with its workers running."""
    return asyncio.run(_measure(jobs, workers))
