"""The times of a cron expression in a time zone, read by `cronsim`.

Source of the syntax: crontab(5), with Debian's treatment of daylight saving time.
"""

from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

MICROS: Final = 1_000_000


class ScheduleInvalid(ValueError):
    """Expected a cron expression and a time zone, but found something else; the message names it."""


def times(cron: str, time_zone: str, after: int) -> CronSim:
    """Return the times of a cron expression after a moment (microseconds), as an iterator of aware datetimes.

    Raises:
        ScheduleInvalid: the expression is none, never comes true, or the zone is not known.
    """
    return _times(cron, time_zone, after, back=False)


def times_before(cron: str, time_zone: str, before: int) -> CronSim:
    """Return the times of a cron expression before a moment (microseconds), the last one first; raises as `times` does.

    In the hour that is repeated when daylight saving time ends, those of a fixed hour that came in its first pass are left out.
    """
    return _times(cron, time_zone, before, back=True)


def _times(cron: str, time_zone: str, start: int, *, back: bool) -> CronSim:
    try:
        zone = ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ScheduleInvalid(
            f"Expected an IANA time zone, for example Europe/Berlin, but found {time_zone!r}."
        ) from error
    try:
        return CronSim(cron, datetime.fromtimestamp(start / MICROS, UTC).astimezone(zone), reverse=back)
    except CronSimError as error:
        raise ScheduleInvalid(f"Expected a cron expression of five fields, but found {cron!r}: {error}.") from error
