"""Conditions that need an operator: raised once when they begin, cleared once when they end, whatever instances see them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
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

logger = logging.getLogger(__name__)

DecideOnce = Callable[[Sequence[msgspec.Struct], tuple[str, str, str]], Awaitable[bool]]


class Alerts:
    """Raises and clears the alerts of one instance."""

    def __init__(self, decide_once: DecideOnce, producer: LogProducer, now: Now) -> None:
        """Publish through an agent's guarded commit."""
        self._decide_once = decide_once
        self._producer = producer
        self._now = now

    async def set(self, kind: str, subject: str, message: str, *, raised: bool) -> None:
        """Raise or clear an alert; nothing happens if it is as it shall be."""
        event = self._event(kind, subject, message, raised=raised)
        before, after = ("", RAISED) if raised else (RAISED, "")
        await self._decide_once([event], (f"alert/{event.alert_id}", before, after))

    def tell(self, message: str, *, raised: bool) -> "asyncio.Future[list[LogPosition]]":
        """Raise or clear the alert about the store, which cannot be asked: each instance that notices tells it, under one id."""
        record = self._producer.record(self._event("store_unavailable", "schedule store", message, raised=raised))
        answer = self._producer.send([record])
        answer.add_done_callback(_told)
        return answer

    def _event(self, kind: str, subject: str, message: str, *, raised: bool) -> AlertRaised | AlertCleared:
        alert_id = name_based_id(f"alert/{kind}/{subject}")
        event_type = AlertRaised if raised else AlertCleared
        header = outside_header(
            event_type.__name__, random_id(), self._producer.identity, self._now(), correlation_id=alert_id
        )
        if raised:
            return AlertRaised(
                header=header, alert_id=alert_id, kind=kind, severity=SEVERITIES[kind], subject=subject, message=message
            )
        return AlertCleared(header=header, alert_id=alert_id, kind=kind, subject=subject, message=message)


def _told(answer: "asyncio.Future[list[LogPosition]]") -> None:
    if not answer.cancelled() and (error := answer.exception()) is not None:
        logger.warning("An alert did not reach the log: %s", error)
