"""How an instance lives while the schedule store does not answer: degraded, and said so on the log."""

import asyncio
import logging
from functools import partial
from typing import Final

import msgspec
import redis

from controlplane.jobforge_agent.alerts import Alerts, Answer
from controlplane.jobforge_agent.moments import elapsed

logger = logging.getLogger(__name__)


class _Word(msgspec.Struct, frozen=True):
    """What is to be said of the store."""

    text: str
    raised: bool


BEGINS: Final = _Word("The schedule store answers an instance that begins.", raised=False)
"""Said first: an instance that died may have left the alert raised."""


class Outage:
    """Whether the store answers one instance, and since when. What there is to say of it is said until it is on the log."""

    def __init__(self, alerts: Alerts) -> None:
        """Begin with a store that answers."""
        self._alerts = alerts
        self._since = 0.0
        self._unsaid: _Word | None = BEGINS
        self._saying: tuple[_Word, Answer] | None = None
        self.going_on = False
        self.ended_at = 0.0

    def begins(self, error: redis.RedisError) -> None:
        """Note that the store does not answer: this instance is degraded until it does, and an alert says so."""
        if not self.going_on:
            self.going_on, self._since = True, elapsed()
            logger.error("The schedule store does not answer, deciding stops until it does: %s", error)
            self._unsaid = _Word(f"The schedule store does not answer: {error}", raised=True)
        if self._unsaid is not None:
            self._say(self._unsaid)

    async def is_over(self) -> None:
        """Note that the store answers; returns when the end of an outage is on the log, or was not taken there: then it is said again."""
        if self.going_on:
            self.going_on, self.ended_at = False, elapsed()
            text = f"The schedule store did not answer for {self.ended_at - self._since:.1f} s; nothing was decided meanwhile."
            logger.warning("%s", text)
            self._unsaid = _Word(text, raised=False)
        if self._unsaid is not None:
            await asyncio.wait([self._say(self._unsaid)])

    def _say(self, word: _Word) -> Answer:
        """Say a word, unless that is under way."""
        if self._saying is not None and self._saying[0] is word and not self._saying[1].done():
            return self._saying[1]
        answer = self._alerts.tell(word.text, raised=word.raised)
        answer.add_done_callback(partial(self._said, word))
        self._saying = word, answer
        return answer

    def _said(self, word: _Word, answer: Answer) -> None:
        if answer.cancelled():
            return
        if (error := answer.exception()) is not None:
            logger.warning("An alert did not reach the log: %s", error)
        elif self._unsaid is word:
            self._unsaid = None
