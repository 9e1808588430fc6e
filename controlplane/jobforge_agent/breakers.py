"""Circuit breakers: who is to blame for a failed attempt, and when to stop asking them. Pure.

A breaker belongs to one destination: a runner process, or whatever the handlers of a job type call. It counts only that destination's
own errors: a payload that a handler cannot digest says nothing of either.

Source: Nygard, "Release It!" (2007), circuit breaker; Azure Architecture Center, "Circuit Breaker pattern" (half-open with probes).
"""

from collections.abc import Container
from typing import Final

import msgspec

from controlplane.events.types import BreakerChanged, Category
from controlplane.jobforge_agent.state import SECOND

CLOSED: Final = "CLOSED"
OPEN: Final = "OPEN"
HALF_OPEN: Final = "HALF_OPEN"

_OF_THE_TYPE: Final = frozenset({Category.UNAVAILABLE, Category.TIMEOUT})
"""What the handlers call did not answer."""
_OF_THE_RUNNER: Final = frozenset({Category.INTERNAL})
"""The runner itself is broken."""


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """When a breaker opens, for how long, and what closes it again."""

    failures: int = 5
    """So many failures within the window, and"""
    ratio: float = 0.5
    """so large a part of what was counted."""
    window_seconds: float = 30.0
    open_seconds: float = 10.0
    """After the first opening; doubled with each further one in a row."""
    most_open_seconds: float = 300.0
    probes: int = 1
    """Attempts that may run at once while it is half open."""
    successes: int = 2
    """Successes in a row that close it."""


THRESHOLDS: Final = Thresholds()


def of_type(job_type: str) -> str:
    """Return the subject of a job type's breaker."""
    return f"breaker:type:{job_type}"


def of_runner(runner_id: str) -> str:
    """Return the subject of a runner's breaker."""
    return f"breaker:runner:{runner_id}"


def is_gone(subject: str, runners: Container[str]) -> bool:
    """Say whether a breaker is that of a runner which is none of these."""
    prefix = of_runner("")
    return subject.startswith(prefix) and subject.removeprefix(prefix) not in runners


def succeeded(job_type: str, runner_id: str) -> tuple[tuple[str, bool], ...]:
    """Return what a success says of whom."""
    return ((of_type(job_type), True), (of_runner(runner_id), True))


def failed(job_type: str, runner_id: str, category: Category) -> tuple[tuple[str, bool], ...]:
    """Return what a failure of this category says of whom."""
    if category in _OF_THE_TYPE:
        return ((of_type(job_type), False), (of_runner(runner_id), True))
    if category in _OF_THE_RUNNER:
        return ((of_runner(runner_id), False),)
    return ((of_type(job_type), True), (of_runner(runner_id), True))


def lost_with(runner_id: str) -> tuple[tuple[str, bool], ...]:
    """Return what a lost attempt says of its runner."""
    return ((of_runner(runner_id), False),)


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What was observed of a destination since its breaker last changed, or since the window began."""

    successes: int = 0
    failures: int = 0
    since: int = 0
    """Microseconds since 1970; 0: nothing was observed."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """The next state of a breaker, and why."""

    state: str
    until: int | None
    openings: int
    reason: str


def judge(
    breaker: BreakerChanged | None, counted: Counted, now: int, limits: Thresholds = THRESHOLDS, *, gone: bool = False
) -> Change | None:
    """Return what becomes of a breaker, or None if it stays; `breaker` is None while it is closed, `gone` says that nobody can be tried any more."""
    if breaker is None:
        total = counted.failures + counted.successes
        if counted.failures >= limits.failures and counted.failures >= limits.ratio * total:
            return _opened(0, f"{counted.failures} of the last {total} attempts failed because of it.", now, limits)
        return None
    if breaker.state == OPEN:
        if now < (breaker.until or 0):
            return None
        return Change(
            state=HALF_OPEN, until=None, openings=breaker.openings, reason="Its time to rest is over: tries again."
        )
    if gone:
        return Change(state=CLOSED, until=None, openings=0, reason="The runner is gone: there is nobody to try.")
    if counted.failures:
        return _opened(breaker.openings, "The trial failed.", now, limits)
    if counted.successes >= limits.successes:
        return Change(state=CLOSED, until=None, openings=0, reason=f"{counted.successes} trials succeeded.")
    return None


def _opened(openings: int, reason: str, now: int, limits: Thresholds) -> Change:
    seconds = min(limits.most_open_seconds, limits.open_seconds * 2**openings)
    return Change(state=OPEN, until=now + int(seconds * SECOND), openings=openings + 1, reason=reason)


def outdated(counted: Counted, now: int, limits: Thresholds = THRESHOLDS) -> bool:
    """Say whether the window of a closed breaker is over, so that counting begins anew."""
    return bool(counted.since) and now - counted.since > limits.window_seconds * SECOND
