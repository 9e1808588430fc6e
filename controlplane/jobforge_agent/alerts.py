"""Conditions that need an operator: raised once when they begin, cleared once when they end, whatever instances see them."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final

import msgspec

from controlplane.events.header import outside_header
from controlplane.events.identity import name_based_id, random_id
from controlplane.events.types import AlertCleared, AlertRaised, LogPosition, Severity
from controlplane.jobforge_agent.moments import Now
from controlplane.log.producer import LogProducer

SEVERITIES: Final = {
    "runner_lost": Severity.WARNING,
    "breaker_open": Severity.WARNING,
    "admission_closed": Severity.ERROR,
    "store_unavailable": Severity.ERROR,
}
"""Every kind of condition, and how loud it is."""
RAISED: Final = "raised"

Answer = asyncio.Future[list[LogPosition]]
Guards = Callable[[Sequence[str]], Awaitable[Mapping[str, str]]]
DecideOnce = Callable[[Sequence[msgspec.Struct], tuple[str, str, str]], Awaitable[bool]]


class Alerts:
    """Raises and clears the alerts of one instance."""

    def __init__(self, decide_once: DecideOnce, guards: Guards, producer: LogProducer, now: Now) -> None:
        """Publish through an agent's guarded commit; `guards` reads what such commits have set."""
        self._decide_once = decide_once
        self._guards = guards
        self._producer = producer
        self._now = now

    async def set(self, kind: str, subject: str, message: str, *, raised: bool) -> None:
        """Raise or clear an alert; nothing happens if it is as it shall be."""
        before, after = ("", RAISED) if raised else (RAISED, "")
        event = self.event(kind, subject, message, raised=raised)
        await self._decide_once([event], (_guard(kind, subject), before, after))

    async def raised(self, kind: str, subjects: Collection[str]) -> list[str]:
        """Return those subjects of which an alert is raised, whichever instance raised it."""
        if not subjects:
            return []
        names = {_guard(kind, subject): subject for subject in subjects}
        found = await self._guards(list(names))
        return [subject for name, subject in names.items() if found[name] == RAISED]

    def tell(self, message: str, *, raised: bool) -> Answer:
        """Raise or clear the alert about the store, which cannot be asked: each instance that notices tells it, under one id."""
        event = self.event("store_unavailable", "schedule store", message, raised=raised)
        return self._producer.send([self._producer.record(event)])

    def event(self, kind: str, subject: str, message: str, *, raised: bool) -> AlertRaised | AlertCleared:
        """Return the event of an alert that begins or ends with another decision, to be published with it."""
        alert_id = _alert_id(kind, subject)
        event_type = AlertRaised if raised else AlertCleared
        header = outside_header(
            event_type.__name__, random_id(), self._producer.identity, self._now(), correlation_id=alert_id
        )
        if raised:
            return AlertRaised(
                header=header, alert_id=alert_id, kind=kind, severity=SEVERITIES[kind], subject=subject, message=message
            )
        return AlertCleared(header=header, alert_id=alert_id, kind=kind, subject=subject, message=message)


def _alert_id(kind: str, subject: str) -> str:
    return name_based_id(f"alert/{kind}/{subject}")


def _guard(kind: str, subject: str) -> str:
    return f"alert/{_alert_id(kind, subject)}"
