"""What a running handler says, as values: within the process they are handed over, from a worker process they are sent."""

import msgspec

from controlplane.events.types import Claim, ErrorEnvelope, LogLine


class JobFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the routing decision says about an attempt, as far as it concerns the handler."""

    job_id: str
    job_type: str
    attempt_id: str
    attempt_number: int
    correlation_id: str
    tenant: str
    pool: str
    priority: int


class Progressed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """So much is done."""

    fraction: float
    message: str


class Submitted(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A child job is to be submitted."""

    job_id: str
    request: bytes
    """A JobRequest as JSON, its payload left out."""
    payload: bytes


class Logged(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A line was logged."""

    line: LogLine


class Returned(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The handler of a worker process returned this result, as JSON that keeps its contract."""

    result: bytes
    claims: tuple[Claim, ...]


class Raised(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The handler of a worker process failed, or its payload or result broke the contract."""

    error: ErrorEnvelope
    details: str = ""
    """The traceback, for the local log only."""


class Stopped(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The handler of a worker process stopped because it was asked to."""


class Execute(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A worker process is to run this attempt."""

    major: int
    facts: JobFacts
    payload: bytes
    sealed: bool
    """Whether the log has the payload encrypted: then what breaks the contract is not quoted."""


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A worker process is to ask its handler to stop."""

    reason: str


Report = Progressed | Submitted | Logged
FromWorker = Report | Returned | Raised | Stopped
ToWorker = Execute | Stop
