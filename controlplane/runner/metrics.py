"""What a runner process counts, in Prometheus' terms."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from controlplane.runner.attempt import Attempt


class Metrics:
    """Counters of one runner process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metrics."""
        self.busy_slots = Gauge("controlplane_runner_process_busy_slots", "Slots taken by attempts.", registry=registry)
        self.slots = Gauge("controlplane_runner_process_slots", "Slots that the runner offers.", registry=registry)
        self._by_outcome: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        self._attempts = Counter(
            "controlplane_runner_attempts_total",
            "Attempts that ended, by how.",
            ["job_type", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "controlplane_runner_attempt_seconds", "Run time of handlers.", ["job_type"], registry=registry,
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
        )  # fmt: skip

    def ended(self, attempt: Attempt) -> None:
        """Count an attempt."""
        key = (attempt.handler.job_type, attempt.outcome)
        counted = self._by_outcome.get(key)
        if counted is None:  # Looking labels up by name costs as much as the rest of the counting.
            counted = self._by_outcome[key] = (self._attempts.labels(*key), self._seconds.labels(key[0]))
        counted[0].inc()
        counted[1].observe(attempt.duration_micros / 1_000_000)
