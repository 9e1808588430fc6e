"""What a stretch of the log says of work and of those who did it: the input of a replay. Values only."""

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Final

import msgspec

from controlplane.events.types import JobSubmitted, LogPosition, RunnerRegistered

SAMPLES_LEAST: Final = 3
"""With fewer attempts nobody is taken for slow or fast."""


class RecordedAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """How long an attempt held its slots, and how it ended."""

    runner_name: str
    micros: int
    succeeded: bool
    retry_micros: int | None = None
    """After a failure: how long until the next attempt may start; None: there is none."""


class RecordedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A submission, and what its attempts did; those that were lost with their runner are left out: a replay loses its own."""

    submitted: JobSubmitted
    position: LogPosition
    at: int
    attempts: tuple[RecordedAttempt, ...] = ()
    cancelled_at: int | None = None


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """From when to when a runner was there; `drained_at`: since when it took no new work."""

    runner: RunnerRegistered
    begin: int
    drained_at: int | None = None
    end: int | None = None


class Occupied(msgspec.Struct, frozen=True, kw_only=True):
    """Slots that a job from before the range held."""

    runner_id: str
    slots: int
    begin: int
    end: int


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt handed to a runner."""

    job_id: str
    attempt_number: int
    runner_id: str
    runner_name: str
    at: int
    reason: str = ""


class Scenario(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Everything that a replay starts from; moments are microseconds since 1970."""

    begin: int
    end: int
    jobs: tuple[RecordedJob, ...]
    presences: tuple[Presence, ...]
    controls: tuple[tuple[int, Any], ...] = ()
    """Declarations and breakers, with the moment of each."""
    occupied: tuple[Occupied, ...] = ()
    decided: tuple[Decided, ...] = ()
    """What was decided then."""

    @cached_property
    def _means(self) -> tuple[dict[tuple[str, str], float], dict[str, float]]:
        of_runner: dict[tuple[str, str], list[int]] = defaultdict(list)
        of_type: dict[str, list[int]] = defaultdict(list)
        for job in self.jobs:
            for attempt in job.attempts:
                of_runner[attempt.runner_name, job.submitted.job_type].append(attempt.micros)
                of_type[job.submitted.job_type].append(attempt.micros)
        means = {key: mean(found) for key, found in of_runner.items() if len(found) >= SAMPLES_LEAST}
        return means, {key: mean(found) for key, found in of_type.items()}

    def micros_on(self, job: RecordedJob, number: int, runner_name: str) -> int:
        """Return how long an attempt takes on a runner: as recorded, scaled by how much slower or faster that runner was."""
        of_runner, of_type = self._means
        job_type = job.submitted.job_type
        if number >= len(job.attempts):
            return int(of_type.get(job_type, 0))
        attempt = job.attempts[number]
        here, there = of_runner.get((runner_name, job_type)), of_runner.get((attempt.runner_name, job_type))
        if runner_name == attempt.runner_name or not here or not there:
            return attempt.micros
        return int(attempt.micros * here / there)


def mean(values: Iterable[int]) -> float:
    """Return the arithmetic mean; zero of nothing."""
    found = list(values)
    return sum(found) / len(found) if found else 0.0
