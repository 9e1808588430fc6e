"""A stretch of the log as a scenario: what was submitted in it, who was there, and how each attempt went."""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

import msgspec

from controlplane.events import types
from controlplane.events.catalog import CONTROLS, JOBS, PROGRESS, ROUTING, RUNNERS, SUBMISSIONS
from controlplane.events.types import LogPosition
from controlplane.jobforge_agent import recovery
from controlplane.jobforge_agent.state import SECOND
from controlplane.jobforge_agent.whatif.scenario import (
    Decided,
    Occupied,
    Presence,
    RecordedAttempt,
    RecordedJob,
    Scenario,
)
from controlplane.log.reader import LogReader

JOBS_LIMIT: Final = 500_000
AFTER_SECONDS: Final = 3600.0
"""So long after the range the ends of its attempts are looked for; those that end later are estimated."""
REGISTRATIONS_SINCE_SECONDS: Final = 120.0
"""Runners register again and again; so far back all that live are found."""
MILLISECOND: Final = 1000

_GOVERNING: Final = (types.LimitDeclared, types.ShareDeclared, types.PauseDeclared, types.BreakerChanged)


class TooMuchRecorded(ValueError):
    """Expected fewer jobs in the range than a replay can hold; choose a shorter one."""


class _Attempt(msgspec.Struct, kw_only=True):
    """What is known of one attempt."""

    routed: types.JobRouted
    at: int
    ended_at: int | None = None
    succeeded: bool = False
    retry_at: int | None = None
    lost: bool = False


class _Beats(msgspec.Struct, kw_only=True):
    """What is known of one runner process."""

    runner: types.RunnerRegistered
    begin: int
    last: int
    drained_at: int | None = None
    left_at: int | None = None


class Recording:
    """Takes the records of a range, topic by topic, and says what they come to."""

    def __init__(self, begin: int, end: int, *, lease_seconds: float) -> None:
        """Record what is submitted from `begin` to `end` (microseconds)."""
        self.begin, self.end = begin, end
        self._lease_micros = int(lease_seconds * SECOND)
        self._submitted: dict[str, tuple[types.JobSubmitted, LogPosition, int]] = {}
        self._accepted: set[str] = set()
        self._cancelled: dict[str, int] = {}
        self._attempts: dict[str, _Attempt] = {}
        self._runners: dict[str, _Beats] = {}
        self._controls: list[tuple[int, Any]] = []
        self._latest = end

    def take(self, event: Any, position: LogPosition, at: int) -> None:
        """Take one record; records of one partition come in their order."""
        self._latest = max(self._latest, at)
        match event:
            case types.JobSubmitted() if self.begin <= at <= self.end:
                self._submitted.setdefault(event.job_id, (event, position, at))
                if len(self._submitted) > JOBS_LIMIT:
                    raise TooMuchRecorded(
                        f"Expected at most {JOBS_LIMIT:,} jobs in the range, but found more: choose a shorter one."
                    )
            case types.JobRouted():
                self._attempts.setdefault(event.attempt_id, _Attempt(routed=event, at=at))
            case types.JobAccepted():
                self._accepted.add(event.job_id)
            case types.JobCancelled():
                self._cancelled.setdefault(event.job_id, at)
            case _ if type(event) in _GOVERNING:
                self._controls.append((at, event))
            case _ if hasattr(event, "attempt_id"):
                self._attempt(event, at)
            case _ if hasattr(event, "runner_id"):
                self._presence(event, at)

    def _attempt(self, event: Any, at: int) -> None:
        attempt = self._attempts.get(event.attempt_id)
        if attempt is None:
            return
        match event:
            case types.AttemptLost():
                attempt.lost = True
            case types.AttemptSucceeded() if attempt.ended_at is None:
                attempt.ended_at, attempt.succeeded = at, True
            case types.AttemptFailed() | types.JobFailed() if attempt.ended_at is None:
                attempt.ended_at = at
            case types.JobRetryScheduled():
                attempt.ended_at = attempt.ended_at or at
                attempt.retry_at = event.due_at

    def _presence(self, event: Any, at: int) -> None:
        if isinstance(event, types.RunnerRegistered):
            self._runners.setdefault(event.runner_id, _Beats(runner=event, begin=at, last=at))
        known = self._runners.get(event.runner_id)
        if known is None:
            return
        known.last = max(known.last, at)
        match event:
            case types.RunnerDraining():
                known.drained_at = at
            case types.RunnerHeartbeat() if event.draining and known.drained_at is None:
                known.drained_at = at
            case types.RunnerLeft():
                known.left_at = at

    def scenario(self) -> Scenario:
        """Return what was taken."""
        attempts: dict[str, list[_Attempt]] = {}
        for attempt in sorted(self._attempts.values(), key=lambda one: (one.at, one.routed.attempt_number)):
            attempts.setdefault(attempt.routed.job_id, []).append(attempt)
        jobs = sorted(
            (
                self._job(event, position, at, attempts.get(job_id, []))
                for job_id, (event, position, at) in self._submitted.items()
                if job_id in self._accepted
            ),
            key=lambda job: (job.at, job.submitted.job_id),
        )
        mine = {job.submitted.job_id for job in jobs}
        decided = (
            Decided(
                job_id=job_id, attempt_number=one.routed.attempt_number, runner_id=one.routed.runner_id,
                runner_name=self._name(one.routed.runner_id), at=one.at, reason=one.routed.reason,
            )
            for job_id, found in attempts.items() if job_id in mine for one in found
        )  # fmt: skip
        return Scenario(
            begin=self.begin, end=self.end, jobs=tuple(jobs), presences=tuple(self._presences()),
            controls=tuple(sorted(self._controls, key=lambda pair: pair[0])),
            occupied=tuple(self._occupied(attempts, mine)), decided=tuple(decided),
        )  # fmt: skip

    def _name(self, runner_id: str) -> str:
        known = self._runners.get(runner_id)
        return known.runner.name if known else runner_id

    def _job(self, event: types.JobSubmitted, position: LogPosition, at: int, attempts: list[_Attempt]) -> RecordedJob:
        recorded = tuple(
            RecordedAttempt(
                runner_name=self._name(one.routed.runner_id), micros=one.ended_at - one.at, succeeded=one.succeeded,
                retry_micros=None if one.retry_at is None else max(0, one.retry_at - one.ended_at),
            )
            for one in attempts if not one.lost and one.ended_at is not None
        )  # fmt: skip
        return RecordedJob(
            submitted=event, position=position, at=at, attempts=recorded, cancelled_at=self._cancelled.get(event.job_id)
        )

    def _presences(self) -> Iterable[Presence]:
        for runner_id in sorted(self._runners):
            known = self._runners[runner_id]
            silent = known.last + self._lease_micros < self._latest
            end = known.left_at or (known.last + self._lease_micros if silent else None)
            if end is None or end > self.begin:
                yield Presence(
                    runner=known.runner, begin=min(known.begin, self.begin) if known.begin <= self.begin else known.begin,
                    drained_at=known.drained_at, end=end,
                )  # fmt: skip

    def _occupied(self, attempts: Mapping[str, list[_Attempt]], mine: set[str]) -> Iterable[Occupied]:
        for job_id, found in attempts.items():
            for one in found:
                if job_id not in mine and one.routed.runner_id in self._runners:
                    yield Occupied(
                        runner_id=one.routed.runner_id,
                        slots=one.routed.slots,
                        begin=one.at,
                        end=one.ended_at or self.end,
                    )


async def recorded(
    reader: LogReader, counts: Mapping[str, int], begin: int, end: int, *, lease_seconds: float
) -> Scenario:  # fmt: skip
    """Return what the log says of a range (microseconds since 1970).

    Raises:
        TooMuchRecorded: the range has more jobs than a replay can hold.
        LogUnavailable: the brokers did not answer.
    """
    recording = Recording(begin, end, lease_seconds=lease_seconds)
    before = begin - int(REGISTRATIONS_SINCE_SECONDS * SECOND)
    after = end + int(AFTER_SECONDS * SECOND)
    # Attempts are known before what became of them.
    for topic, since, until in (
        (CONTROLS.name, 0, end), (RUNNERS.name, before, after), (SUBMISSIONS.name, begin, end), (ROUTING.name, before, after),
        (PROGRESS.name, before, after), (JOBS.name, begin, after),
    ):  # fmt: skip
        async for event, position, at in _stretch(reader, topic, counts[topic], since, until):
            recording.take(event, position, at)
    return recording.scenario()


async def _stretch(
    reader: LogReader, topic: str, count: int, since: int, until: int
) -> AsyncIterator[tuple[Any, LogPosition, int]]:
    """Yield the events of a topic that were appended between two moments; what cannot be read is passed over."""
    places = [(topic, number) for number in range(count)]
    starts = await reader.offsets_at(dict.fromkeys(places, max(0, since) // MILLISECOND))
    ends = await reader.offsets_at(dict.fromkeys(places, until // MILLISECOND + 1))
    async for record in recovery.records(reader, starts, ends=ends):
        event = recovery.decoded(record)
        if event is not None:
            position = LogPosition(topic=topic, partition=record.partition, offset=record.offset)
            yield event, position, record.timestamp * MILLISECOND
