"""What operators declared of limits, shares, pauses and schedules, and what JobForge says of itself: folded from one topic."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from controlplane.events import types

DEFAULT_WEIGHT: Final = 1.0


def key_subject(tenant: str, key: str) -> str:
    """Return what a limit of a key is declared for: keys of two tenants never meet."""
    return f"key:{tenant}/{key}"


def tenant_of(subject: str) -> str | None:
    """Return the tenant whose key, or which itself, a limit is declared for; None for what is everybody's: a job type.

    Names of tenants hold neither / nor :, so that the first of them ends one.
    """
    kind, _, name = subject.partition(":")
    if kind == "tenant":
        return name
    return name.partition("/")[0] if kind == "key" else None


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """How many attempts may run at once, and how many may start in each period."""

    max_running: int | None = None
    starts: int | None = None
    period_seconds: float = 1.0


ONE_AT_A_TIME: Final = Limit(max_running=1)
"""Of a concurrency key that nobody declared a limit for."""


class Bulk(msgspec.Struct, kw_only=True):
    """A bulk command and what became of it, by partition of jobs."""

    command: types.BulkRequested
    applied: dict[int, types.BulkApplied]


class Controls:
    """A fold: take every event of the topic in the order of each partition, and ask what holds now."""

    def __init__(self, events: Iterable[Any] = ()) -> None:
        """Fold these events."""
        self.limits: dict[str, Limit] = {}
        self.weights: dict[str, float] = {}
        self.pauses: dict[str, types.PauseDeclared] = {}
        self.schedules: dict[str, types.ScheduleDeclared] = {}
        self.fired: dict[str, types.ScheduleFired] = {}
        self.last_job: dict[str, str] = {}
        """The job that each schedule submitted last: a time that was left out since does not hide it."""
        self.breakers: dict[str, types.BreakerChanged] = {}
        self.bulks: dict[str, Bulk] = {}
        self.admission: types.AdmissionChanged | None = None
        self._prefixes: list[str] = []
        for event in events:
            self.take(event)

    def take(self, event: Any) -> None:
        """Add one event; later declarations of a subject replace earlier ones."""
        match event:
            case types.LimitDeclared():
                self._limit(event)
            case types.ShareDeclared():
                self.weights[event.subject.removeprefix("tenant:")] = event.weight
            case types.PauseDeclared():
                self.pauses.pop(event.subject, None)
                if event.paused:
                    self.pauses[event.subject] = event
            case types.ScheduleDeclared() | types.ScheduleRemoved() | types.ScheduleFired():
                self._schedule(event)
            case types.BreakerChanged():
                self.breakers.pop(event.subject, None)
                if event.state != "CLOSED":
                    self.breakers[event.subject] = event
            case types.BulkRequested():
                self.bulks.setdefault(event.bulk_id, Bulk(command=event, applied={}))
            case types.BulkApplied() if event.bulk_id in self.bulks:
                self.bulks[event.bulk_id].applied.setdefault(event.partition, event)
            case types.AdmissionChanged():
                self.admission = event

    def _schedule(self, event: Any) -> None:
        match event:
            case types.ScheduleDeclared():
                self.schedules[event.schedule_id] = event
            case types.ScheduleFired():
                self.fired[event.schedule_id] = event
                if event.job_id is not None:
                    self.last_job[event.schedule_id] = event.job_id
            case _:
                self.schedules.pop(event.schedule_id, None)
                self.fired.pop(event.schedule_id, None)
                self.last_job.pop(event.schedule_id, None)

    def _limit(self, event: types.LimitDeclared) -> None:
        if event.max_running is None and event.starts is None:
            self.limits.pop(event.subject, None)
        else:
            self.limits[event.subject] = Limit(
                max_running=event.max_running, starts=event.starts, period_seconds=event.period_seconds
            )
        self._prefixes = sorted((name for name in self.limits if name.endswith("*")), key=len, reverse=True)

    def limit(self, subject: str) -> Limit | None:
        """Return the limit of a subject: its own, or that of the longest pattern which it matches."""
        own = self.limits.get(subject)
        if own is not None or not self._prefixes:
            return own
        return next((self.limits[name] for name in self._prefixes if subject.startswith(name[:-1])), None)

    def weight(self, tenant: str) -> float:
        """Return a tenant's weight."""
        return self.weights.get(tenant, DEFAULT_WEIGHT)

    def paused(self, pool: str, job_type: str) -> types.PauseDeclared | None:
        """Return why jobs of a type in a pool are not routed now, or None."""
        return self.pauses.get(f"pool:{pool}") or self.pauses.get(f"type:{job_type}")

    def limits_of(
        self, job_type: str, tenant: str, concurrency_key: str | None, rate_key: str | None
    ) -> Iterator[tuple[str, Limit]]:
        """Yield what limits a job: subject and limit. A concurrency key always does, a rate key only where it is declared."""
        if self.limits:
            subjects = [f"type:{job_type}", f"tenant:{tenant}"]
            if rate_key is not None and rate_key != concurrency_key:
                subjects.append(key_subject(tenant, rate_key))
            yield from ((subject, limit) for subject in subjects if (limit := self.limit(subject)) is not None)
        if concurrency_key is not None:
            subject = key_subject(tenant, concurrency_key)
            yield subject, self.limit(subject) or ONE_AT_A_TIME
