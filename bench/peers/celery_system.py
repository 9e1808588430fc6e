"""Celery on Redis, as most people run it: prefork with two processes a worker, results in Redis."""

import os
import sys
from time import perf_counter
from typing import Any, Final

import redis
from celery import Celery

from bench.peers import workload

URL: Final = os.environ["PEER_REDIS_URL"]

app = Celery("peer", broker=URL, backend=URL)
app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)


@app.task(name="noop")
def noop(job: dict[str, Any]) -> dict[str, Any]:
    """Do nothing."""
    return workload.result(job)


def worker_commands(workers: int) -> list[list[str]]:
    """Return the commands that start the workers."""
    command = [sys.executable, "-m", "celery", "-A", "bench.peers.celery_system", "worker", "--loglevel=WARNING"]
    return [[*command, "--pool=prefork", "-c", "2", "-n", f"peer{number}@%h"] for number in range(workers)]


def _throughput(jobs: int) -> float:
    started = perf_counter()
    with app.producer_or_acquire() as producer:
        ids = [noop.apply_async((workload.payload(number),), producer=producer).id for number in range(jobs)]
    workload.wait_for_keys(redis.Redis.from_url(URL), [f"celery-task-meta-{task_id}" for task_id in ids])
    return jobs / (perf_counter() - started)


def _latencies(jobs: int) -> list[float]:
    milliseconds = []
    for number in range(jobs):
        started = perf_counter()
        noop.delay(workload.payload(number)).get(timeout=30)
        milliseconds.append((perf_counter() - started) * 1e3)
    return milliseconds


def measure(jobs: int, workers: int) -> workload.PeerFigures:
    """Return the figures of Celery with its workers running."""
    _throughput(200)  # The workers are up, and warm.
    jobs_per_s = _throughput(jobs)
    return workload.PeerFigures(
        system="celery", jobs=jobs, workers=workers, jobs_per_s=round(jobs_per_s, 1),
        latency_ms=workload.percentiles(_latencies(300)),
    )  # fmt: skip
