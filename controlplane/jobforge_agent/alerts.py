"""Conditions that need an operator: raised once when they begin, cleared once when they end, whatever instances see them."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from controlplane.events.header import outside_header
from controlplane.events.identity import name_based_id, random_id
from controlplane.events.types import AlertCleared, AlertRaised, Producer, Severity
from controlplane.jobforge_agent.moments import Now

SEVERITIES: Final = {
    "runner_lost": Severity.WARNING,
    "breaker_open": Severity.WARNING,
    "admission_closed": Severity.ERROR,
    "store_unavailable": Severity.ERROR,
}
"""Every kind of condition, and how loud it is."""
RAISED: Final = "raised"

DecideOnce = Callable[[Sequence[msgspec.Struct], tuple[str, str, str]], Awaitable[bool]]


class Alerts:
    """Raises and clears the alerts of one instance."""

    def __init__(self, decide_once: DecideOnce, producer: Producer, now: Now) -> None:
        """Publish through an agent's guarded commit."""
        self._decide_once = decide_once
        self._producer = producer
        self._now = now

    async def set(self, kind: str, subject: str, message: str, *, raised: bool) -> None:
        """Raise or clear an alert; nothing happens if it is as it shall be."""
        alert_id = name_based_id(f"alert/{kind}/{subject}")
        event_type = AlertRaised if raised else AlertCleared
        header = outside_header(event_type.__name__, random_id(), self._producer, self._now(), correlation_id=alert_id)
        event: msgspec.Struct
        if raised:
            event = AlertRaised(
                header=header, alert_id=alert_id, kind=kind, severity=SEVERITIES[kind], subject=subject, message=message
            )
        else:
            event = AlertCleared(header=header, alert_id=alert_id, kind=kind, subject=subject, message=message)
        before, after = ("", RAISED) if raised else (RAISED, "")
        await self._decide_once([event], (f"alert/{alert_id}", before, after))
