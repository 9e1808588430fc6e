"""What JobForge's metrics say after jobs moved: each stage, outcome and error as an operator's query would find it."""

import inspect
import re
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from controlplane.events import types
from controlplane.events.errors import envelope
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant
from controlplane.events.types import Content, LogPosition, Producer
from controlplane.jobforge_agent import batch
from controlplane.jobforge_agent.agent import Agent
from controlplane.jobforge_agent.depths import QueueKey, priority_class, queue_key
from controlplane.jobforge_agent.metrics import LETTER_CODES, Metrics
from controlplane.jobforge_agent.state import SECOND, Job
from controlplane.jobforge_agent.transitions import Phase

PLACE = LogPosition(topic="controlplane.submissions", partition=0, offset=1)
SUBMITTED = Job(
    job_id="j", partition=0, submission=PLACE, submitted_at=10 * SECOND, correlation_id="c", tenant="acme", actor=None,
    job_type="image.thumbnail", contract_major=1, pool="default", priority=5, payload=Content(), slots=1,
    retry=types.RetryPolicy(), attempt_timeout_micros=None, queue_timeout_micros=None, deadline=None, required_labels={},
    preferred_labels={}, parent=None, phase=Phase.QUEUED, last=PLACE, queued_at=11 * SECOND,
)  # fmt: skip


def moved(job: Job, phase: Phase, **changes: object) -> Job:
    return msgspec.structs.replace(job, phase=phase, **changes)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> int:
        return int(self.seconds * SECOND)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics(registry: CollectorRegistry, clock: Clock) -> Metrics:
    return Metrics(registry, now_micros=clock)


def test_each_stage_of_a_job_is_measured_once(registry: CollectorRegistry, metrics: Metrics, clock: Clock) -> None:
    routed = moved(SUBMITTED, Phase.ROUTED, attempt_id="a1", routed_at=13 * SECOND)
    running = moved(routed, Phase.RUNNING)
    for moment, before, after in (
        (11, None, SUBMITTED),
        (13, SUBMITTED, routed),
        (14, routed, running),
        (15, running, running),
        (19, running, moved(running, Phase.COMPLETED)),
    ):
        clock.seconds = moment
        metrics.moved([(before, after)])
    sums = {
        "submitted_to_accepted": 1.0, "queued_to_routed": 2.0, "routed_to_started": 1.0, "started_to_concluded": 5.0,
        "submitted_to_concluded": 9.0,
    }  # fmt: skip
    for stage, seconds in sums.items():
        assert registry.get_sample_value("controlplane_stage_seconds_sum", {"stage": stage}) == seconds, stage
        assert registry.get_sample_value("controlplane_stage_seconds_count", {"stage": stage}) == 1, stage
    labels = {"outcome": "COMPLETED", "job_type": "image.thumbnail"}
    assert registry.get_sample_value("controlplane_conclusions_total", labels) == 1


def test_a_retried_attempt_is_no_conclusion(registry: CollectorRegistry, metrics: Metrics) -> None:
    running = moved(SUBMITTED, Phase.RUNNING, attempt_id="a1", routed_at=13 * SECOND)
    metrics.moved([(SUBMITTED, running), (running, moved(running, Phase.RETRYING, attempt_id=None))])
    stage = {"stage": "started_to_concluded"}
    assert registry.get_sample_value("controlplane_stage_seconds_count", stage) == 0


def test_refused_job_types_make_no_series(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.moved([(None, moved(SUBMITTED, Phase.REJECTED, job_type=f"made.up.{number}")) for number in range(5)])
    labels = {"outcome": "REJECTED", "job_type": ""}
    assert registry.get_sample_value("controlplane_conclusions_total", labels) == 5


def test_errors_are_counted_by_category(registry: CollectorRegistry, metrics: Metrics) -> None:
    header = outside_header("JobFailed", "x", Producer(service="jobforge", version="0"), Instant(1))
    failed = types.JobFailed(
        header=header, job_id="j", attempt_id="a1", attempt_number=1, runner_id="r", error=envelope("handler_failed", "no")
    )  # fmt: skip
    refused = types.RecordRefused(
        header=header, position=PLACE, key=None, value=b"", value_size_bytes=0, consumer="jobforge",
        error=envelope("record_undecodable", "no"),
    )  # fmt: skip
    metrics.decided([failed, failed, refused, types.JobCancelled(header=header, job_id="j", attempt_id=None)])
    labels = {"category": "EXECUTION", "code": "handler_failed"}
    assert registry.get_sample_value("controlplane_attempt_failures_total", labels) == 2
    assert registry.get_sample_value("controlplane_dead_letters_total", {"code": "record_undecodable"}) == 1


def test_every_reason_to_put_a_record_aside_is_counted_from_zero(registry: CollectorRegistry, metrics: Metrics) -> None:
    """A series that is born at 1 has no increase: the first record put aside would raise no alert."""
    del metrics
    source = inspect.getsource(batch)
    reasons = {
        *re.findall(r'_with_error\(\s*consumed,\s*"(\w+)"', source),
        *re.findall(r'envelope\(\s*"(\w+)"', source),
    }
    assert reasons == set(LETTER_CODES)
    for code in reasons:
        assert registry.get_sample_value("controlplane_dead_letters_total", {"code": code}) == 0, code


async def test_what_is_put_aside_of_runners_and_controls_is_counted(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    async def taken(*_: object, **__: object) -> bool:
        return True

    async def refreshed() -> None:
        pass

    agent: Any = SimpleNamespace(
        metrics=metrics, notes=SimpleNamespace(take=taken, refresh=refreshed),
        _producer=SimpleNamespace(identity=Producer(service="jobforge", version="0"), record=lambda event: event),
        _outbox=SimpleNamespace(next_name=lambda: "one", publish=lambda name, records: None),
    )  # fmt: skip
    record = SimpleNamespace(
        topic="controlplane.controls", partition=0, offset=3, timestamp=1, key=b"k", value=b"garbage"
    )
    await Agent._note(agent, [batch.consume(record, 1)], {})
    assert registry.get_sample_value("controlplane_dead_letters_total", {"code": "record_undecodable"}) == 1


def test_what_is_no_longer_there_is_no_longer_told(registry: CollectorRegistry, metrics: Metrics) -> None:
    key = queue_key(SUBMITTED)
    assert key == QueueKey(pool="default", job_type="image.thumbnail", priority_class="normal", tenant="acme")
    metrics.queues({key: 7})
    metrics.runners({"media-1": {"busy": 3, "free": 1}})
    metrics.breakers({("job_type", "image.thumbnail"): "OPEN"})
    metrics.outbox(lambda: 2.5)
    assert registry.get_sample_value("controlplane_queue_depth", key._asdict()) == 7
    assert registry.get_sample_value("controlplane_runner_slots", {"runner": "media-1", "state": "busy"}) == 3
    assert registry.get_sample_value("controlplane_breaker_state", {"kind": "job_type", "name": "image.thumbnail"}) == 2
    assert registry.get_sample_value("controlplane_outbox_age_seconds") == 2.5
    away = False
    metrics.store(lambda: not away)
    assert registry.get_sample_value("controlplane_store_answers") == 1
    away = True
    assert registry.get_sample_value("controlplane_store_answers") == 0
    metrics.queues({})
    assert registry.get_sample_value("controlplane_queue_depth", key._asdict()) is None


@pytest.mark.parametrize(
    ("priority", "name"), [(0, "low"), (3, "low"), (4, "normal"), (6, "normal"), (7, "high"), (9, "critical")]
)
def test_priorities_have_classes(priority: int, name: str) -> None:
    assert priority_class(priority) == name
