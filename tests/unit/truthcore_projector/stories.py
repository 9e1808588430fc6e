"""Logs for tests of the projection: records of any topic, each on the partition of its key, one second apart."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from controlplane.events import types
from controlplane.events.catalog import EVENT_TYPES, record_key
from controlplane.events.codec import encode
from controlplane.events.header import Cause, caused_header, outside_header
from controlplane.events.identity import Instant
from controlplane.events.types import LogPosition, Producer
from controlplane.events.values import typed_value
from controlplane.log.positions import position_text
from controlplane.truthcore_projector.decode import Decoder
from controlplane.truthcore_projector.store import Store

SYSTEM = Producer(service="test", version="0")
START_SECONDS = 1_700_000_000


def header(name: str, identity: str, cause: LogPosition | None = None) -> types.EventHeader:
    if cause is None:
        return outside_header(name, identity, SYSTEM, Instant(0))
    return caused_header(Cause(position=cause, correlation_id="chain"), name, 0, SYSTEM, Instant(0))


def _micros(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1_000_000)


class Projection:
    """A projection to which events are told one by one."""

    def __init__(self, file: Path | None = None) -> None:
        self.store, self.decoder = Store(file or ":memory:"), Decoder()
        self.ends: dict[tuple[str, int], int] = {}
        self.seconds = START_SECONDS

    def close(self) -> None:
        self.decoder.close()
        self.store.close()

    def tell(self, event: Any) -> LogPosition:
        topic, key = EVENT_TYPES[type(event).__name__].topic.name, record_key(event)
        place = (topic, sum(key) % 2)
        offset = self.ends.get(place, 0)
        self.ends[place] = offset + 1
        record = SimpleNamespace(
            topic=topic, partition=place[1], offset=offset, value=encode(event), key=key, timestamp=self.seconds * 1000
        )
        self.seconds += 1
        self.store.write(self.decoder.decode([record]), {place: offset + 1})
        return LogPosition(topic=topic, partition=place[1], offset=offset)

    def says(
        self, subject: str, predicate: str, value: Any, source: str, confidence: float = 0.9, *, name: str | None = None,
        inputs: tuple[str, ...] = (), job: str | None = None, attempt: str | None = None, supersedes: str | None = None,
        cause: LogPosition | None = None, valid: tuple[datetime, datetime | None] | None = None,
    ) -> tuple[str, str]:  # fmt: skip
        """Assert something; returns the assertion's id and its position."""
        identity = name or f"{subject}/{predicate}/{source}/{value}"
        event = types.TruthAsserted(
            header=header("TruthAsserted", identity, cause), subject=subject, predicate=predicate, object=typed_value(value),
            confidence=confidence, source=types.Source(kind=types.SourceKind.CLIENT, name=source),
            evidence=types.Evidence(job_id=job, attempt_id=attempt, inputs=inputs), supersedes=supersedes,
            valid_from=_micros(valid[0]) if valid else None, valid_to=_micros(valid[1]) if valid else None,
        )  # fmt: skip
        return event.header.event_id, position_text(self.tell(event))

    def declares(self, predicate: str, cardinality: types.Cardinality) -> None:
        self.tell(
            types.PredicateDeclared(
                header=header("PredicateDeclared", predicate), subject=f"predicate:{predicate}", predicate=predicate,
                cardinality=cardinality, rule=types.FusionRule.DEFAULT,
            )
        )  # fmt: skip

    def runs(self, job: str, runner: str, parent: str | None = None, *, fails: bool = False) -> LogPosition:
        """Run a job in one attempt, named after the job; returns the position of what the runner said last."""
        lease: dict[str, Any] = {"job_id": job, "attempt_id": f"{job}-a", "attempt_number": 1, "runner_id": runner}
        submitted = self.tell(
            types.JobSubmitted(
                header=header("JobSubmitted", job), job_id=job, job_type="measure", payload=types.Content(data=b"{}"),
                parent=None if parent is None else types.ParentJob(job_id=parent, attempt_id=f"{parent}-a"),
            )
        )  # fmt: skip
        started = self.tell(types.AttemptStarted(header=header("AttemptStarted", job, submitted), **lease))
        if fails:
            error = types.ErrorEnvelope(
                error_id=job, category=types.Category.EXECUTION, severity=types.Severity.ERROR, code="handler_failed",
                message="Expected a lens, but found none.", retryable=False,
                contract_version=types.ContractVersion(major=1, minor=0, patch=0),
            )  # fmt: skip
            return self.tell(types.AttemptFailed(header=header("AttemptFailed", job, started), **lease, error=error))
        return self.tell(
            types.AttemptSucceeded(
                header=header("AttemptSucceeded", job, started),
                **lease,
                capability="measure@1.0.0",
                runner_name=runner,
                result=types.Content(data=b"{}"),
            )
        )


@contextmanager
def projection() -> Iterator[Projection]:
    """Yield an empty projection."""
    made = Projection()
    try:
        yield made
    finally:
        made.close()
