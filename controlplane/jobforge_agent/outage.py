"""How an instance lives while the schedule store does not answer: degraded, and said so on the log."""

import asyncio
import logging

import redis

from controlplane.jobforge_agent.alerts import Alerts
from controlplane.jobforge_agent.moments import elapsed

logger = logging.getLogger(__name__)


class Outage:
    """Whether the store answers one instance, and since when."""

    def __init__(self, alerts: Alerts) -> None:
        """Begin with a store that answers."""
        self._alerts = alerts
        self._since = 0.0
        self._met = False
        self.going_on = False
        self.ended_at = 0.0

    def begins(self, error: redis.RedisError) -> None:
        """Note that the store does not answer: this instance is degraded until it does, and an alert says so."""
        if not self.going_on:
            self.going_on, self._since = True, elapsed()
            logger.error("The schedule store does not answer, deciding stops until it does: %s", error)
            self._alerts.tell(f"The schedule store does not answer: {error}", raised=True)

    async def is_over(self) -> None:
        """Note that the store answers; returns when the end of an outage is on the log."""
        if self.going_on:
            self.going_on, self.ended_at = False, elapsed()
            text = f"The schedule store did not answer for {self.ended_at - self._since:.1f} s; nothing was decided meanwhile."
            logger.warning("%s", text)
        elif not self._met:  # One that died may have left the alert raised.
            text = "The schedule store answers an instance that begins."
        else:
            return
        self._met = True
        await asyncio.wait([self._alerts.tell(text, raised=False)])
