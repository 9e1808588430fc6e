"""The work that every system is given: a no-op job with a payload of about 200 bytes of JSON and a small result."""

from collections.abc import Sequence
from time import perf_counter, sleep
from typing import Any, Final

import msgspec
import redis

LOOK_AT_ONCE: Final = 500
DEADLINE_SECONDS: Final = 300.0


class PeerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one system: throughput with all workers, and latency of one job at a time when idle."""

    system: str
    jobs: int
    workers: int
    jobs_per_s: float
    latency_ms: dict[str, float]


def payload(number: int) -> dict[str, Any]:
    """Return the payload of one job."""
    return {
        "id": number,
        "tenant": "acme",
        "kind": "noop",
        "trace": f"{number:032x}",
        "params": {"alpha": 0.5, "beta": [1, 2, 3], "note": "x" * 80},
    }


def result(job: dict[str, Any]) -> dict[str, Any]:
    """Return the result of one job."""
    return {"ok": True, "id": job["id"]}


def wait_for_keys(client: redis.Redis, keys: Sequence[str]) -> None:
    """Return when every result key is in Redis; looks rarely enough that watching costs next to nothing.

    Raises:
        TimeoutError: some result is missing after five minutes.
    """
    seen, give_up_at = 0, perf_counter() + DEADLINE_SECONDS
    while seen < len(keys):
        pipeline = client.pipeline(transaction=False)
        for key in keys[seen : seen + LOOK_AT_ONCE]:
            pipeline.exists(key)
        present = pipeline.execute()
        seen += present.index(0) if 0 in present else len(present)
        if 0 in present:
            if perf_counter() > give_up_at:
                raise TimeoutError(f"Expected {len(keys)} results, but found {seen} after {DEADLINE_SECONDS:.0f} s.")
            sleep(0.02)


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """Return p50, p95 and p99 by nearest rank."""
    ordered = sorted(milliseconds)
    return {
        f"p{p}": round(ordered[min(len(ordered) - 1, round(p / 100 * (len(ordered) - 1)))], 2) for p in (50, 95, 99)
    }
