"""Since when, and until when, somebody listens: a runner is silent only for as long as it would have been heard.

While the brokers, the store or the instance itself are away, heartbeats arrive late or not at all, and so do hand-overs. None of that says
anything about a runner. So silence is counted from what was heard to the last moment at which the log was known to end there, and
from no earlier than the last time that nobody listened.
"""

from typing import Final, NamedTuple

from controlplane.jobforge_agent.state import SECOND

GAP_MICROS: Final = 2 * SECOND
"""Two looks that are further apart have a time between them in which nobody listened."""


class Heard(NamedTuple):
    """When a partition was read to its end without a gap: from the first of those moments to the last (microseconds)."""

    since: int
    until: int


NOTHING: Final = Heard(0, 0)


def heard_on(before: Heard, at: int) -> Heard:
    """Return what is heard once a partition is known to be read to its end at a moment."""
    if at - before.until > GAP_MICROS:
        return Heard(at, at)
    return Heard(before.since, max(before.until, at))
