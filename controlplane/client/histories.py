"""What of a job's events was told: page by page, and look by look until the job is concluded."""

from typing import Final

from controlplane.api.models import EventsAnswer, EventView
from controlplane.client.calls import CONCLUSIONS

FIRST_LOOK_SECONDS: Final = 0.01
LOOK_SECONDS: Final = 0.25
"""A job that is waited for is looked at after 10 ms, then ever less often, at least so often."""


class Told:
    """Which of a job's events were told, and where and when to ask for more.

    A record may come late into the order of time. So a look begins a page before the last one of the look before, and the last look of a job of
    many pages, when it is concluded, begins at its beginning: nothing is left out.
    """

    def __init__(self, *, follow: bool = False) -> None:
        """Begin at the beginning: for one look, or with `follow` for one after the other until the job is concluded."""
        self.over = False
        self.cursor: str | None = None
        """Where the next page begins."""
        self.pause_seconds = 0.0
        """How long to wait before it is asked for."""
        self._follow = follow
        self._seen: set[str] = set()
        self._starts: list[str | None] = [None]
        self._whole = True
        self._fresh = self._concluded = False
        self._look_seconds = FIRST_LOOK_SECONDS

    def fresh(self, page: EventsAnswer) -> list[EventView]:
        """Take the page that was asked for; return what was not told yet."""
        fresh = [one for one in page.events if one.position not in self._seen]
        self._seen.update(one.position for one in fresh)
        self._fresh = self._fresh or bool(fresh)
        self._concluded = self._concluded or any(one.event_type in CONCLUSIONS for one in fresh)
        if page.next_cursor is not None:
            self.cursor, self.pause_seconds = page.next_cursor, 0.0
            self._starts = [self._starts[-1], page.next_cursor]
        else:
            self._look_again()
        return fresh

    def _look_again(self) -> None:
        self.over = not self._follow or (self._concluded and self._whole)
        self.cursor = None if self._concluded else self._starts[0]
        self._starts, self._whole = [self.cursor], self.cursor is None
        self._look_seconds = FIRST_LOOK_SECONDS if self._fresh else min(self._look_seconds * 1.5, LOOK_SECONDS)
        self.pause_seconds, self._fresh = self._look_seconds, False
