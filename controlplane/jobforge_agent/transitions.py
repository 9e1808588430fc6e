"""The legal transitions of a job: one table, read by the code, the tests and the diagram in the docs."""

from enum import StrEnum
from typing import Final

import msgspec

from controlplane.events import types


class Phase(StrEnum):
    """Where a job stands in JobForge."""

    DELAYED = "DELAYED"
    QUEUED = "QUEUED"
    ROUTED = "ROUTED"
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    REJECTED = "REJECTED"


WAITING: Final = frozenset({Phase.DELAYED, Phase.QUEUED, Phase.RETRYING})
LEASED: Final = frozenset({Phase.ROUTED, Phase.RUNNING})
CONCLUDED: Final = frozenset({Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED, Phase.REJECTED})

_LEASE_ENDS: Final[dict[type[msgspec.Struct], Phase]] = {
    types.JobRetryScheduled: Phase.RETRYING,
    types.JobCompleted: Phase.COMPLETED,
    types.JobFailed: Phase.FAILED,
    types.JobCancelled: Phase.CANCELLED,
}

TRANSITIONS: Final[dict[Phase, dict[type[msgspec.Struct], Phase]]] = {
    Phase.DELAYED: {types.JobCancelled: Phase.CANCELLED, types.JobFailed: Phase.FAILED},
    Phase.QUEUED: {types.JobRouted: Phase.ROUTED, types.JobCancelled: Phase.CANCELLED, types.JobFailed: Phase.FAILED},
    Phase.RETRYING: {types.JobCancelled: Phase.CANCELLED, types.JobFailed: Phase.FAILED},
    Phase.ROUTED: {types.AttemptStarted: Phase.RUNNING, **_LEASE_ENDS},
    Phase.RUNNING: _LEASE_ENDS,
}
"""What may follow in a phase, and where it leads. DELAYED and RETRYING become QUEUED when their time comes: no event."""
