"""Handlers of the scheduling tests, in runners of several pools: `controlplane runner tests.acceptance.scheduling_handlers:NAME`."""

import asyncio
import os
from typing import Any

from controlplane.runner import DestinationUnavailable, JobContext, NonRetryable, RetryLater, Runner

main = Runner("main", slots=8)
narrow = Runner("narrow", pool="narrow", slots=1)
eu = Runner("eu", pool="regions", slots=2, labels={"region": "eu"})
us = Runner("us", pool="regions", slots=2, labels={"region": "us"})

LONG_SECONDS = 120


async def nap(payload: dict[str, Any], job: JobContext) -> dict[str, Any]:
    """Sleep."""
    await asyncio.sleep(payload.get("seconds", 0))
    return {"attempt": job.attempt_number}


async def hang(_: dict[str, Any]) -> None:
    """Take for ever."""
    await asyncio.sleep(LONG_SECONDS)


async def hang_once(_: dict[str, Any], job: JobContext) -> dict[str, Any]:
    """Take for ever in the first attempt."""
    if job.attempt_number == 1:
        await asyncio.sleep(LONG_SECONDS)
    return {"attempt": job.attempt_number}


async def later(payload: dict[str, Any], job: JobContext) -> dict[str, Any]:
    """Ask for patience in the first attempt."""
    if job.attempt_number == 1:
        raise RetryLater(payload["seconds"])
    return {"attempt": job.attempt_number}


async def fail(payload: dict[str, Any]) -> None:
    """Fail, for good or not."""
    raise NonRetryable("Expected to work, but never does.") if payload.get("final") else ValueError("not this time")


async def downstream(payload: dict[str, Any]) -> dict[str, Any]:
    """Call what may be down."""
    if payload["down"]:
        raise DestinationUnavailable("Expected the printer to answer, but it is off.")
    return {"printed": True}


async def parent(_: dict[str, Any], job: JobContext) -> dict[str, Any]:
    """Submit two children that take for ever, and wait."""
    for name in ("first", "second"):
        await job.submit("s.hang_once", {}, key=name)
    await asyncio.sleep(LONG_SECONDS)
    return {}


async def talk(payload: dict[str, Any], job: JobContext) -> dict[str, Any]:
    """Log a line, go on working, log another."""
    job.log.info("begins with %s", payload["words"])
    await asyncio.sleep(payload["seconds"])
    job.log.warning("ends")
    return {}


async def echo(payload: dict[str, Any]) -> dict[str, Any]:
    """Return what came."""
    return payload


def die(_: dict[str, Any]) -> None:
    """Take the worker process down."""
    os._exit(1)


for runner in (main, narrow, eu, us):
    runner.capability("s.nap")(nap)
    runner.capability("s.echo")(echo)
    runner.capability("s.hang")(hang)
    runner.capability("s.hang_once")(hang_once)
for name, handler in (
    ("later", later), ("fail", fail), ("downstream", downstream), ("parent", parent), ("talk", talk),
):  # fmt: skip
    main.capability(f"s.{name}")(handler)
main.capability("s.die", executor="process")(die)
