"""What TruthCore tells of its projection: how far behind the log it is, and what its batches cost."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from controlplane.truthcore_projector.projector import Projector

LETTER_CODES: Final = ("record_undecodable", "event_unexpected")
"""Why TruthCore puts records aside. Counted from 0: what is born at 1 has no increase, and raises no alert."""
BUCKETS_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class ProjectionMeasures:
    """Metrics of one projection."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metrics."""
        self._registry = registry
        self._seconds = Histogram(
            "controlplane_projection_batch_seconds", "Time to decode a batch of records and to write its rows.",
            registry=registry, buckets=BUCKETS_SECONDS,
        )  # fmt: skip
        self._records = Counter(
            "controlplane_projection_records_total", "Records that were projected.", registry=registry
        )

        self._letters = Counter("controlplane_dead_letters_total", "Records put aside.", ["code"], registry=registry)
        for code in LETTER_CODES:
            self._letters.labels(code)

    def watch(self, projector: Projector) -> None:
        """Ask a projector at each scrape, and be told of its batches."""
        records = Gauge(
            "controlplane_projection_lag_records",
            "Records that are on the log and not projected.",
            registry=self._registry,
        )
        records.set_function(lambda: projector.reflects().lag_records)
        seconds = Gauge(
            "controlplane_projection_lag_seconds",
            "Age of what is projected, while it is behind.",
            registry=self._registry,
        )
        seconds.set_function(lambda: projector.reflects().lag_seconds)
        reading = Gauge("controlplane_projection_reading", "1 while the log is read.", registry=self._registry)
        reading.set_function(lambda: projector.reading)
        projector.on_batch = self._batch
        projector.on_letter = lambda code: self._letters.labels(code).inc()

    def _batch(self, records: int, seconds: float) -> None:
        self._records.inc(records)
        self._seconds.observe(seconds)
