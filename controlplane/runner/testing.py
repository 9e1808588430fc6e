"""A test kit for handlers: run one in this process, exactly as a runner does but without a log, and see all that it said."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal, TypeVar

import msgspec
from prometheus_client import CollectorRegistry

from controlplane.api.submissions import json_content
from controlplane.contents import ContentStore
from controlplane.events.catalog import ROUTING
from controlplane.events.codec import encode
from controlplane.events.header import outside_header
from controlplane.events.identity import random_id
from controlplane.events.types import (
    AttemptCancelled,
    AttemptFailed,
    AttemptProgressed,
    AttemptRevoked,
    AttemptSucceeded,
    Claim,
    ErrorEnvelope,
    JobLogged,
    JobRouted,
    JobSubmitted,
    LogLine,
    LogPosition,
    Producer,
)
from controlplane.log.producer import RecordTooLarge
from controlplane.log.topics import LARGEST_RECORD_BYTES
from controlplane.runner.attempt import now_micros
from controlplane.runner.attempts import Attempts
from controlplane.runner.capability import Handler
from controlplane.runner.definition import Runner
from controlplane.runner.joblogs import JobLogHandler
from controlplane.runner.metrics import Metrics
from controlplane.runner.outbox import Acknowledged
from controlplane.runner.threads import HandlerThreads

__all__ = ["HandlerRun", "run_handler", "run_handler_async"]

INLINE_LIMIT_BYTES: Final = 256 * 1024
IDENTITY: Final = Producer(service="runner", version="test", instance="test")

Event = TypeVar("Event", bound=msgspec.Struct)


class HandlerRun(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one attempt, and everything that was said in it."""

    outcome: Literal["succeeded", "failed", "cancelled"]
    result: Any = None
    """As the handler's result type; None unless it succeeded."""
    error: ErrorEnvelope | None = None
    claims: tuple[Claim, ...] = ()
    progress: tuple[tuple[float, str], ...] = ()
    children: tuple[JobSubmitted, ...] = ()
    logs: tuple[LogLine, ...] = ()
    events: tuple[Any, ...] = ()
    """Every event, in order, as a runner would have written it."""


class _Recording:
    """A sink that keeps what it is given; everything is held to the schemas and limits of the log."""

    identity: Final = IDENTITY

    def __init__(self) -> None:
        self.events: list[msgspec.Struct] = []

    def emit(
        self, event: msgspec.Struct, *, partition: int | None = None, droppable: bool = False,
        acknowledged: Acknowledged | None = None,
    ) -> None:  # fmt: skip
        """Keep an event."""
        size = len(encode(event))
        if size > LARGEST_RECORD_BYTES:
            raise RecordTooLarge(f"Expected a record of at most {LARGEST_RECORD_BYTES} bytes, but found {size}.")
        self.events.append(event)
        if acknowledged is not None:
            asyncio.get_running_loop().call_soon(acknowledged)

    def of(self, kind: type[Event]) -> list[Event]:
        """Return the events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]


def run_handler(
    runner: Runner, job_type: str, payload: object = None, *, major: int = 1, job_id: str | None = None,
    attempt_number: int = 1, timeout_seconds: float | None = None, cancel_after_seconds: float | None = None,
) -> HandlerRun:  # fmt: skip
    """Run one attempt of a job and return what came of it; for tests that are plain functions.

    The payload goes through JSON and its contract, the result too. A handler for worker processes runs in a thread.
    """
    return asyncio.run(
        run_handler_async(
            runner, job_type, payload, major=major, job_id=job_id, attempt_number=attempt_number,
            timeout_seconds=timeout_seconds, cancel_after_seconds=cancel_after_seconds,
        )
    )  # fmt: skip


async def run_handler_async(
    runner: Runner, job_type: str, payload: object = None, *, major: int = 1, job_id: str | None = None,
    attempt_number: int = 1, timeout_seconds: float | None = None, cancel_after_seconds: float | None = None,
) -> HandlerRun:  # fmt: skip
    """Run one attempt of a job and return what came of it; for async tests. See `run_handler`."""
    recording = _Recording()
    threads = HandlerThreads(runner.slots, name="handler")
    contents = ContentStore("memory://", inline_limit_bytes=INLINE_LIMIT_BYTES)
    attempts = Attempts(
        runner, slots=runner.slots, sink=recording, contents=contents,
        inline_limit_bytes=INLINE_LIMIT_BYTES, threads=threads, processes=None, metrics=Metrics(CollectorRegistry()),
    )  # fmt: skip
    job, attempt = job_id or random_id(), random_id()
    header = outside_header("JobRouted", attempt, IDENTITY, now_micros(), correlation_id=job)
    routed = JobRouted(
        header=header, job_id=job, attempt_id=attempt, attempt_number=attempt_number, runner_id=runner.name, job_type=job_type,
        contract_major=major, payload=json_content(payload), pool=runner.pool, priority=5, job_partition=0, lease_seconds=6.0,
        timeout_seconds=timeout_seconds, queued_at=now_micros(),
    )  # fmt: skip
    revoked = AttemptRevoked(
        header=header, job_id=job, attempt_id=attempt, attempt_number=attempt_number, runner_id=runner.name, reason="cancelled"
    )  # fmt: skip
    with _logs_captured():
        attempts.take(routed, LogPosition(topic=ROUTING.name, partition=0, offset=0))
        if cancel_after_seconds is not None:
            asyncio.get_running_loop().call_later(cancel_after_seconds, attempts.revoke, revoked)
        await attempts.idle()
    threads.stop()
    return _run_of(runner.handler(job_type, major), recording, contents)


@contextmanager
def _logs_captured() -> Iterator[None]:
    root, handler = logging.getLogger(), JobLogHandler()
    level = root.level
    root.addHandler(handler)
    root.setLevel(min(level, logging.INFO))
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


def _run_of(handler: Handler | None, recording: _Recording, contents: ContentStore) -> HandlerRun:
    outcome: Literal["succeeded", "failed", "cancelled"] = "cancelled"
    result: Any = None
    error: ErrorEnvelope | None = None
    claims: tuple[Claim, ...] = ()
    for event in recording.events:
        match event:
            case AttemptSucceeded() if handler is not None:
                outcome, claims = "succeeded", event.claims
                result = handler.result.validate_json(contents.check_out(event.result))
            case AttemptFailed():
                outcome, error = "failed", event.error
            case AttemptCancelled():
                outcome = "cancelled"
    return HandlerRun(
        outcome=outcome, result=result, error=error, claims=claims,
        progress=tuple((one.fraction, one.message) for one in recording.of(AttemptProgressed)),
        children=tuple(recording.of(JobSubmitted)),
        logs=tuple(line for one in recording.of(JobLogged) for line in one.lines), events=tuple(recording.events),
    )  # fmt: skip
