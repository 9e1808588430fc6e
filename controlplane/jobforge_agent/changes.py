"""What a decided job changes in the store: derived from the job before and after, so that no index can be forgotten."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from controlplane.jobforge_agent.depths import depth_name
from controlplane.jobforge_agent.state import Job
from controlplane.jobforge_agent.transitions import Phase

TOMBSTONE_SECONDS: Final = 24 * 3600
"""How long a concluded job is remembered, to tell repeats from news. The log remembers for ever."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Job).decode


def encode_job(job: Job) -> bytes:
    """Return a job as bytes for the store."""
    return _encode(job)


def decode_job(data: bytes) -> Job:
    """Return the job that the store kept."""
    return _decode(data)


class Changes:
    """The writes of one commit, gathered over its jobs; the names are those that `commit.lua` reads."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.jobs: list[tuple[str, bytes, int]] = []
        self.ready: list[tuple[str, int, str, str]] = []
        self.unready: list[tuple[str, str, str]] = []
        """Queue, score, job, and under which name its depth is counted."""
        self.waited: list[tuple[str, str]] = []
        """Jobs that must still be in their queue: a router may have leased them since they were read."""
        self.due: list[tuple[int, int, str]] = []
        self.undue: list[tuple[int, str]] = []
        self.release: list[tuple[str, str, int, tuple[str, ...]]] = []
        self.lease: list[tuple[str, str, int, tuple[str, ...], str]] = []
        """Leases that the log knows and the store lost; the router's own are made when it claims."""
        self.open: list[tuple[int, int, str]] = []
        self.close: list[tuple[int, str]] = []
        self.children: list[tuple[str, str]] = []
        self.standing: list[str] = []
        """Parents that must not be cancelled with their children: another instance may have done so since they were read."""
        self.orphans: list[tuple[str, str]] = []
        """Children that concluded."""
        self.failed: list[tuple[int, int, str]] = []
        """Jobs that failed, were cancelled or rejected: their work may be asked for again."""
        self.settled: list[tuple[int, str]] = []
        """Of those, jobs whose work was asked for again."""
        self.observed: list[tuple[str, str, int]] = []
        """What circuit breakers count: destination, `successes` or `failures`, how many."""
        self.guards: list[tuple[str, str, str, str]] = []
        """Hash, field, the value that it must have, the value that it gets; empty for none."""

    @classmethod
    def between(cls, pairs: Iterable[tuple[Job | None, Job]]) -> "Changes":
        """Return the writes that lead from each job before to the same job after; only the last state counts."""
        changes = cls()
        for before, after in pairs:
            if before is not after:
                changes.add(before, after)
        return changes

    def add(self, before: Job | None, after: Job) -> None:
        """Gather the writes of one job."""
        self.jobs.append((after.job_id, encode_job(after), TOMBSTONE_SECONDS if after.concluded else 0))
        self._queue(before, after)
        self._timer(before, after)
        if before is not None and before.leased and before.attempt_id != (after.attempt_id if after.leased else None):
            self.release.append((before.runner_id or "", before.attempt_id or "", before.slots, before.holds))
        if after.leased and (before is None or before.attempt_id != after.attempt_id or not before.leased):
            self.lease.append((after.runner_id or "", after.attempt_id or "", after.slots, after.holds, after.job_id))
        if before is None and not after.concluded:
            self.open.append((after.partition, after.submission.offset, after.job_id))
        elif before is not None and after.concluded and not before.concluded:
            self.close.append((after.partition, after.job_id))
        self._family(before, after)

    def _queue(self, before: Job | None, after: Job) -> None:
        waited = before is not None and before.phase is Phase.QUEUED
        waits = after.phase is Phase.QUEUED
        if waited:
            self.waited.append((after.queue, after.job_id))
        moves = waited and before is not None and before.score != after.score
        if before is not None and waited and (moves or not waits):
            self.unready.append((before.queue, before.job_id, depth_name(before)))
        if waits and (moves or not waited):
            self.ready.append((after.queue, after.score, after.job_id, depth_name(after)))

    def _family(self, before: Job | None, after: Job) -> None:
        begins, ends = before is None, after.concluded and (before is None or not before.concluded)
        if after.parent is not None:
            if begins and not ends:
                self.children.append((after.parent.job_id, after.job_id))
            elif ends and not begins:
                self.orphans.append((after.parent.job_id, after.job_id))
        if ends and after.phase is not Phase.COMPLETED:
            self.failed.append((after.partition, after.submission.offset, after.job_id))
        if after.retried_as is not None and (before is None or before.retried_as is None):
            self.settled.append((after.partition, after.job_id))

    def observe(self, observed: Iterable[tuple[str, bool]]) -> None:
        """Add up what was observed of destinations."""
        counts = Counter(observed)
        self.observed += [(name, "successes" if good else "failures", count) for (name, good), count in counts.items()]

    def guard(self, hash_name: str, field: str, expected: str, new: str) -> None:
        """Commit only if a field still has a value, and set it; empty stands for no value."""
        self.guards.append((hash_name, field, expected, new))

    def _timer(self, before: Job | None, after: Job) -> None:
        was = before.due_at if before is not None else None
        if after.due_at is not None and after.due_at != was:
            self.due.append((after.partition, after.due_at, after.job_id))
        elif after.due_at is None and was is not None:
            self.undue.append((after.partition, after.job_id))

    @property
    def moves_work(self) -> bool:
        """Say whether the router may find something to do afterwards."""
        return bool(self.ready or self.release)

    def as_fields(self) -> dict[str, Any]:
        """Return the writes under their names."""
        return dict(vars(self))
