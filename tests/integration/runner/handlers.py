"""Handlers for tests that run a runner as a process of its own: `tests.integration.runner.handlers:runner`."""

import asyncio
import os
import signal
import time
from pathlib import Path

from pydantic import BaseModel

from controlplane.runner import JobContext, NonRetryable, Runner

runner = Runner("handlers", slots=4, labels={"region": "eu"})
small = Runner("small", slots=1)


class Mark(BaseModel):
    path: Path


@runner.capability("echo", version="2.1.0")
async def echo(payload: object) -> object:
    """Return what was given."""
    return payload


@runner.capability("holds_the_interpreter")
def hold_the_interpreter(payload: Mark) -> None:
    """Compute until a file appears, giving no other thread of this process more than it takes by force."""
    while not payload.path.exists():
        sum(range(1_000_000))


@runner.capability("waits_for")
async def wait_for(payload: Mark) -> str:
    """Wait until a file appears."""
    while not payload.path.exists():  # noqa: ASYNC110 -- the event is another process's
        await asyncio.sleep(0.01)
    return "seen"


@runner.capability("process.says", executor="process")
def say(payload: str, job: JobContext) -> int:
    """Say everything that can be said, and return the id of the process."""
    job.progress(0.5, payload)
    job.claim("s", "said", payload)
    job.submit("echo", {"said": payload})
    job.log.warning("said %s", payload)
    return os.getpid()


@runner.capability("process.fails", executor="process")
def fail(payload: str) -> None:
    """Fail as asked."""
    match payload:
        case "raises":
            raise NonRetryable("as asked", code="asked")
        case "dies":
            os.kill(os.getpid(), signal.SIGKILL)


@runner.capability("process.deaf", executor="process", timeout=3)
def deaf(payload: Mark) -> None:
    """Note the id of the process and listen to nobody."""
    payload.path.write_text(str(os.getpid()))
    while True:
        time.sleep(60)


@runner.capability("process.polls", executor="process")
def poll(_: None, job: JobContext) -> None:
    """Stop when asked to."""
    job.progress(0.1)
    while True:
        job.raise_if_cancelled()
        time.sleep(0.001)


@small.capability("deaf", timeout=0.1)
def deaf_in_a_thread(_: None) -> None:
    """Listen to nobody, in the only thread."""
    while True:
        time.sleep(60)
