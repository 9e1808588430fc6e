"""Nothing acknowledged is lost and nothing concludes twice, whatever is killed under load (G1, G2, G4, G5)."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.cli.bench import read_back
from controlplane.cli.stack import SystemStack
from controlplane.client import Client, LogClient
from controlplane.events.catalog import Service
from controlplane.events.types import JobSubmitted
from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.settings import Settings
from controlplane.truthcore_projector.replay import verify
from tests.acceptance.security import SECURITY

PAUSE_SECONDS = 3.0
CONCLUDE_WITHIN_SECONDS = 150.0
BATCH = 20


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


async def submit_patiently(client: LogClient, events: list[JobSubmitted]) -> None:
    """Submit until it is acknowledged: the same events again are the same jobs."""
    while True:
        try:
            await client.submit(events)
        except LogUnavailable:
            continue
        return


async def load(connection: LogConnection, stop: asyncio.Event, prefix: str = "job") -> list[str]:
    """Submit jobs without a break until told to stop; returns the ids of those that were acknowledged."""
    acknowledged: list[str] = []
    async with LogClient(connection) as client:
        while not stop.is_set():
            first = len(acknowledged)
            events = [
                client.submission("test.nap", {"seconds": 0.02}, job_id=f"{prefix}-{number}")
                for number in range(first, first + BATCH)
            ]
            await submit_patiently(client, events)
            acknowledged += [event.job_id for event in events]
            await asyncio.sleep(0.1)
    return acknowledged


def wipe(stack: SystemStack) -> None:
    valkey = stack.embedded.valkey
    valkey.kill()
    valkey.wipe()
    valkey.start()


CRASHES: dict[str, Callable[[SystemStack], None]] = {
    "jobforge": lambda stack: kill(stack.services["jobforge"].pid),
    "runner": lambda stack: kill(stack.services["runner-1"].pid),
    "truthcore": lambda stack: kill(stack.services["truthcore"].pid),
    "valkey": lambda stack: kill(stack.embedded.valkey.pid),
    "valkey, wiped": wipe,
    "broker": lambda stack: kill(stack.embedded.kafka.pid),
}


async def crash_everything(stack: SystemStack, connection: LogConnection) -> list[str]:
    stop = asyncio.Event()
    loading = asyncio.create_task(load(connection, stop))
    for crash in CRASHES.values():
        await asyncio.sleep(PAUSE_SECONDS)
        await asyncio.to_thread(crash, stack)
    await asyncio.sleep(PAUSE_SECONDS)
    stop.set()
    return await loading


def wait_until_concluded(client: Client, wanted: int, prefix: str = "") -> None:
    """Wait until so many jobs are concluded whose ids begin so."""
    give_up_at = time.monotonic() + CONCLUDE_WITHIN_SECONDS
    query = f"SELECT count(*) FROM first_conclusions WHERE starts_with(job_id, '{prefix}')"
    while (found := client.sql(query).rows[0][0]) < wanted:
        assert time.monotonic() < give_up_at, f"Expected {wanted} jobs to conclude, but {found} did."
        time.sleep(0.5)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("secure", SECURITY)
def test_every_acknowledged_job_concludes_once_whatever_is_killed(tmp_path: Path, secure: bool) -> None:
    with SystemStack(Settings(secure=secure), tmp_path, agents=2, free_ports=True) as stack, stack.client() as client:
        for number in (1, 2):
            stack.add_runner(f"runner-{number}", "tests.acceptance.handlers:runner")
        while len(client.runners().runners) < 2:
            time.sleep(0.1)
        time.sleep(1.0)
        acknowledged = asyncio.run(crash_everything(stack, stack.connection(Service.CLIENT)))
        connection = stack.connection(Service.AUDITOR)
        wait_until_concluded(client, len(acknowledged))
        _, conclusions, steps = asyncio.run(read_back(connection))
        wrong = {one: len(conclusions.get(one, ())) for one in acknowledged if len(conclusions.get(one, ())) != 1}
        assert wrong == {}
        assert {one: steps[one] for one in acknowledged if "JobCompleted" not in steps[one]} == {}
        truths = client.sql("SELECT count(DISTINCT job_id) FROM assertions WHERE predicate = 'seconds'").rows[0][0]
        assert truths == len(acknowledged)
        verdict = asyncio.run(verify(connection, client.digest()))
        assert verdict.agrees, verdict
