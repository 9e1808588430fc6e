"""Leases by hand: the attempts of a runner without a log, for what a single run of the test kit does not show."""

import asyncio
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from controlplane.api.submissions import json_content
from controlplane.contents import ContentStore
from controlplane.events.codec import encode
from controlplane.events.header import outside_header
from controlplane.events.identity import random_id
from controlplane.events.types import JobRouted, LogPosition
from controlplane.runner import Runner
from controlplane.runner.attempt import now_micros
from controlplane.runner.attempts import Attempts
from controlplane.runner.metrics import Metrics
from controlplane.runner.outbox import Acknowledged
from controlplane.runner.processes import WorkerProcesses
from controlplane.runner.testing import IDENTITY, INLINE_LIMIT_BYTES
from controlplane.runner.threads import HandlerThreads


class Kept:
    """A sink that keeps what can be encoded; events of the kinds in `broken` cannot."""

    identity = IDENTITY

    def __init__(self, *broken: type[msgspec.Struct]) -> None:
        self.events: list[Any] = []
        self._broken = broken

    def emit(
        self, event: msgspec.Struct, *, partition: int | None = None, droppable: bool = False,
        acknowledged: Acknowledged | None = None,
    ) -> None:  # fmt: skip
        """Keep an event."""
        if isinstance(event, self._broken):
            raise KeyError("no encoder")
        encode(event)
        self.events.append(event)
        if acknowledged is not None:
            asyncio.get_running_loop().call_soon(acknowledged)

    @property
    def names(self) -> list[str]:
        """Return the kinds of what was kept, in order."""
        return [type(event).__name__ for event in self.events]


def attempts_of(runner: Runner, sink: Kept, processes: WorkerProcesses | None = None) -> Attempts:
    """Return the attempts of a runner in this event loop; its threads end with their process."""
    return Attempts(
        runner, slots=runner.slots, sink=sink, contents=ContentStore("memory://", inline_limit_bytes=INLINE_LIMIT_BYTES),
        inline_limit_bytes=INLINE_LIMIT_BYTES, threads=HandlerThreads(runner.slots, name="handler"), processes=processes,
        metrics=Metrics(CollectorRegistry()),
    )  # fmt: skip


def lease(attempts: Attempts, job_type: str, payload: object = None) -> str:
    """Lease a new job and return its attempt's id."""
    attempt_id = random_id()
    header = outside_header("JobRouted", attempt_id, IDENTITY, now_micros(), correlation_id=attempt_id)
    routed = JobRouted(
        header=header, job_id=attempt_id, attempt_id=attempt_id, attempt_number=1, runner_id="r", job_type=job_type,
        contract_major=1, payload=json_content(payload), pool="default", priority=5, job_partition=0, lease_seconds=6.0,
        timeout_seconds=None, queued_at=now_micros(),
    )  # fmt: skip
    attempts.take(routed, LogPosition(topic="controlplane.routing", partition=0, offset=0))
    return attempt_id
