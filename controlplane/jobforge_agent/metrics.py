"""What one JobForge instance counts, in Prometheus' terms: depth of queues, time per stage, outcomes, errors, runners, breakers.

Whoever decides calls `moved` with jobs before and after and `decided` with the events; whoever looks at the store hands over what
it found with `queues`, `runners` and `breakers`. Nothing here waits, and nothing that is counted changes a decision.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controlplane.events import types
from controlplane.jobforge_agent.depths import QueueKey
from controlplane.jobforge_agent.state import SECOND, Job
from controlplane.jobforge_agent.transitions import CONCLUDED, LEASED, Phase

STAGES: Final = (
    "submitted_to_accepted", "queued_to_routed", "routed_to_started", "started_to_concluded", "submitted_to_concluded",
)  # fmt: skip
BUCKETS_SECONDS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    300,
    1800,
    7200,
)
STARTED_AT_MOST: Final = 100_000
"""So many running attempts are remembered for their run time; those beyond are not measured."""

LETTER_CODES: Final = ("record_undecodable", "event_unexpected", "wrong_partition", "not_found", "record_poisonous")
"""Why JobForge puts records aside. Counted from 0: what is born at 1 has no increase, and raises no alert."""

BREAKER_STATES: Final = {"CLOSED": 0, "HALF_OPEN": 1, "OPEN": 2}


class _Found(Collector):
    """Gauges of what was found last: a series that is not found any more is gone, instead of standing still."""

    def __init__(self) -> None:
        self.depths: Mapping[QueueKey, int] = {}
        self.slots: Mapping[str, Mapping[str, int]] = {}
        self.breakers: Mapping[tuple[str, str], str] = {}
        self.outbox_age_seconds: Callable[[], float] = lambda: 0.0

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics."""
        depth = GaugeMetricFamily(
            "controlplane_queue_depth", "Jobs that are ready and wait for a runner.", labels=QueueKey._fields
        )
        for key, count in self.depths.items():
            depth.add_metric(key, count)
        yield depth
        slots = GaugeMetricFamily("controlplane_runner_slots", "Slots of runners by state.", labels=("runner", "state"))
        for runner, states in self.slots.items():
            for state, count in states.items():
                slots.add_metric((runner, state), count)
        yield slots
        state_of = GaugeMetricFamily(
            "controlplane_breaker_state", "Circuit breakers: 0 closed, 1 half open, 2 open.", labels=("kind", "name")
        )
        for name, state in self.breakers.items():
            state_of.add_metric(name, BREAKER_STATES[state])
        yield state_of
        yield GaugeMetricFamily(
            "controlplane_outbox_age_seconds", "Age of the oldest decision that the log has not acknowledged.",
            value=self.outbox_age_seconds(),
        )  # fmt: skip


class Metrics:
    """Counters, histograms and gauges of one JobForge instance."""

    def __init__(self, registry: CollectorRegistry, *, now_micros: Callable[[], int] | None = None) -> None:
        """Register the metrics."""
        self._now = now_micros or (lambda: time.time_ns() // 1000)
        self._found = _Found()
        registry.register(self._found)
        stages = Histogram(
            "controlplane_stage_seconds", "Time that jobs spend in a stage.", ["stage"], registry=registry, buckets=BUCKETS_SECONDS
        )  # fmt: skip
        self._stages = {name: stages.labels(name) for name in STAGES}
        self._conclusions = Counter(
            "controlplane_conclusions_total", "Jobs concluded, by outcome.", ["outcome", "job_type"], registry=registry
        )
        self._failures = Counter(
            "controlplane_attempt_failures_total", "Attempts and jobs that failed, by category of the error.",
            ["category", "code"], registry=registry,
        )  # fmt: skip
        self._refused = Counter(
            "controlplane_observations_refused_total", "Observations without a valid lease, recorded and not applied.",
            ["code"], registry=registry,
        )  # fmt: skip
        self._absorbed = Counter(
            "controlplane_redeliveries_absorbed_total",
            "Records that came again and changed nothing.",
            registry=registry,
        )
        self._dead_letters = Counter(
            "controlplane_dead_letters_total", "Records put aside.", ["code"], registry=registry
        )
        for code in LETTER_CODES:
            self._dead_letters.labels(code)
        self._folded = Counter(
            "controlplane_partitions_folded_total", "Partitions folded from the log again.", registry=registry
        )
        self._records_folded = Counter(
            "controlplane_records_folded_total",
            "Records read to fold partitions from the log again.",
            registry=registry,
        )
        self._owned = Gauge(
            "controlplane_owned_partitions", "Job partitions that this instance owns.", registry=registry
        )
        self._store = Gauge(
            "controlplane_store_answers", "1 while the schedule store answers this instance, 0 while it does not.", registry=registry
        )  # fmt: skip
        self._started: dict[str, int] = {}
        self._counted: dict[type[msgspec.Struct], Callable[[Any], None]] = {
            types.JobRetryScheduled: self._failed,
            types.JobFailed: self._failed,
            types.JobRejected: self._failed,
            types.ObservationRefused: lambda event: self._refused.labels(event.error.code).inc(),
            types.RecordRefused: lambda event: self._dead_letters.labels(event.error.code).inc(),
        }

    # What the store and the group said last

    def queues(self, depths: Mapping[QueueKey, int]) -> None:
        """Take the depth of all ready queues."""
        self._found.depths = depths

    def runners(self, slots: Mapping[str, Mapping[str, int]]) -> None:
        """Take the slots of every live runner by state: busy, free, draining."""
        self._found.slots = slots

    def breakers(self, states: Mapping[tuple[str, str], str]) -> None:
        """Take the state of every breaker by kind and name: CLOSED, HALF_OPEN or OPEN."""
        self._found.breakers = states

    def outbox(self, age_seconds: Callable[[], float]) -> None:
        """Take what tells the age of the oldest unacknowledged decision, asked at each scrape."""
        self._found.outbox_age_seconds = age_seconds

    def store(self, answers: Callable[[], bool]) -> None:
        """Take what tells whether the schedule store answers, asked at each scrape."""
        self._store.set_function(answers)

    def owns(self, partitions: int) -> None:
        """Take how many job partitions this instance owns."""
        self._owned.set(partitions)

    def tell_nothing(self) -> None:
        """Leave queues, runners and breakers to the instance that tells them."""
        self._found.depths, self._found.slots, self._found.breakers = {}, {}, {}

    # What happened

    def moved(self, pairs: Iterable[tuple[Job | None, Job]]) -> None:
        """Measure the stages that jobs ended by moving from one state to the next; called after the commit."""
        now = self._now()
        for before, after in pairs:
            self._measure(before, after, now)

    def _measure(self, before: Job | None, after: Job, now: int) -> None:
        was, is_now = before.phase if before else None, after.phase
        if was is is_now:
            return
        if was is None:
            self._observe("submitted_to_accepted", now - after.submitted_at)
        if is_now is Phase.ROUTED:
            self._observe("queued_to_routed", after.routed_at - after.queued_at)
        elif is_now is Phase.RUNNING:
            self._observe("routed_to_started", now - after.routed_at)
            if after.attempt_id is not None and len(self._started) < STARTED_AT_MOST:
                self._started[after.attempt_id] = now
        elif was in LEASED and before is not None and before.attempt_id is not None:
            started = self._started.pop(before.attempt_id, None)
            if started is not None and is_now in CONCLUDED:
                self._observe("started_to_concluded", now - started)
        if is_now in CONCLUDED:
            self._observe("submitted_to_concluded", now - after.submitted_at)
            # Whoever makes up job types must not make up series.
            self._conclusions.labels(is_now.value, "" if is_now is Phase.REJECTED else after.job_type).inc()

    def _observe(self, stage: str, micros: int) -> None:
        self._stages[stage].observe(max(0, micros) / SECOND)

    def decided(self, events: Iterable[msgspec.Struct]) -> None:
        """Count the failures, refusals and dead letters among decided events."""
        for event in events:
            counted = self._counted.get(type(event))
            if counted is not None:
                counted(event)

    def _failed(self, event: Any) -> None:
        self._failures.labels(event.error.category.value, event.error.code).inc()

    def absorbed(self, records: int) -> None:
        """Count records that came again and changed nothing."""
        self._absorbed.inc(records)

    def records_folded(self, count: int) -> None:
        """Count records that were read to restore jobs."""
        self._records_folded.inc(count)

    def folded(self) -> None:
        """Count a partition that had to be folded from the log."""
        self._folded.inc()
