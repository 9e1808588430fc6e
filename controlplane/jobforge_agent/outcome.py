"""What becomes known when a job concludes: its outcome, and what its handler claims."""

from collections.abc import Iterator
from typing import Final

from controlplane.events.header import Cause, caused_header
from controlplane.events.identity import Instant
from controlplane.events.types import (
    AttemptSucceeded,
    Evidence,
    Producer,
    Source,
    SourceKind,
    TruthAsserted,
    TypedValue,
    ValueKind,
)
from controlplane.jobforge_agent.state import Job

NEED_NO_WORD: Final = frozenset({"failed", "cancelled"})
"""Outcomes that time or a command may bring, whichever attempt runs."""


def outcome_truth(job: Job, outcome: str, cause: Cause, producer: Producer, now: Instant) -> TruthAsserted:
    """Return the assertion that a job ended as `outcome`; JobForge itself is its source.

    What ends a job without a word of its runner is decided again where a store was lost before the conclusion was on the log, perhaps about a
    later attempt: that is another assertion.
    """
    about = f"/{job.attempt_id}" if outcome in NEED_NO_WORD and job.attempt_id else ""
    return TruthAsserted(
        header=caused_header(cause, f"TruthAsserted{about}", 0, producer, now),
        subject=f"job:{job.job_id}", predicate="outcome", object=TypedValue(kind=ValueKind.STRING, text=outcome),
        confidence=1.0, source=Source(kind=SourceKind.SYSTEM, name="jobforge"),
        evidence=Evidence(job_id=job.job_id, attempt_id=job.attempt_id),
    )  # fmt: skip


def claimed_truths(
    job: Job, report: AttemptSucceeded, cause: Cause, producer: Producer, now: Instant
) -> Iterator[TruthAsserted]:
    """Yield one assertion per claim of the attempt that concluded the job; the runner's capability is their source."""
    major = report.capability.rpartition("@")[2].partition(".")[0]
    source = Source(
        kind=SourceKind.JOB, name=f"{report.runner_name}/{job.job_type}@{major}",
        runner_id=report.runner_id, capability=report.capability,
    )  # fmt: skip
    for ordinal, claim in enumerate(report.claims, start=1):
        yield TruthAsserted(
            header=caused_header(cause, "TruthAsserted", ordinal, producer, now),
            subject=claim.subject, predicate=claim.predicate, object=claim.object, confidence=claim.confidence,
            source=source, valid_from=claim.valid_from, valid_to=claim.valid_to,
            evidence=Evidence(job_id=job.job_id, attempt_id=report.attempt_id, inputs=claim.inputs),
        )  # fmt: skip
