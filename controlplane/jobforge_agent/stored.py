"""What the schedule store is asked with, and what it answers."""

import msgspec

from controlplane.events.controls import Limit
from controlplane.jobforge_agent.policy import Shares
from controlplane.jobforge_agent.state import Job
from controlplane.log.producer import OutgoingRecord


class StoreLost(RuntimeError):
    """Expected the store where this instance left it, but it is elsewhere: everything owned is folded from the log again."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A lease that the router wants: the job as it will be, the runner's capacity, and the record to publish."""

    job: Job
    queue: str
    capacity: int
    record: OutgoingRecord
    cost: float
    """What it takes of its tenant's part."""
    limits: tuple[tuple[str, Limit], ...] = ()
    """What must allow it: subject and limit."""


class Heads(msgspec.Struct, frozen=True, kw_only=True):
    """What could be routed now."""

    version: str
    """Of the controls."""
    lanes: dict[str, float]
    """Lanes with jobs that wait, and the score of the first job of each."""
    jobs: list[Job]
    busy: dict[str, int]
    shares: dict[str, Shares]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a limit is used."""

    running: int
    recent: int
    """Attempts that started within the period."""
    oldest: int | None
    """When the first of those started."""


class Owned(msgspec.Struct, kw_only=True):
    """A job partition as its owner knows it: under which epoch it is owned, and how many commits of owners it had."""

    epoch: str
    revision: int
    seen_at: int = 0
    """When its owner knew last that the store holds what the log says of it (microseconds of the store's clock); 0: it is being compared."""
