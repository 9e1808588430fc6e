"""The jobs that are not concluded, read once for everybody who asks about them."""

import time
from collections.abc import Callable
from typing import Final

import pyarrow as pa

from controlplane.truthcore_projector.cursors import Cursor, table
from controlplane.truthcore_projector.visibility import TENANTS

LEAST_SECONDS: Final = 0.1
COST_SHARE: Final = 10
"""Reading them takes at most one part in so many of the time, however many ask."""
READINGS_KEPT: Final = 64


class UnfinishedJobs:
    """Keeps the last reading for a moment: many clients look at waiting jobs again and again."""

    def __init__(self, elapsed: Callable[[], float] = time.monotonic) -> None:
        """Know nothing yet."""
        self._elapsed = elapsed
        self._readings: dict[tuple[str, ...] | None, tuple[pa.Table, float]] = {}
        """By the tenants that are seen: the rows, and until when they are good."""

    def read(self, cursor: Cursor, *, fresh: bool = False) -> pa.Table:
        """Return the rows of `unfinished_jobs` that the request at hand may see: of a moment ago, or with `fresh` those that the snapshot has."""
        began, tenants = self._elapsed(), TENANTS.get()
        kept, good_until = self._readings.get(tenants, (None, 0.0))
        if kept is not None and not fresh and began < good_until:
            return kept
        found = table(cursor, "SELECT * FROM unfinished_jobs")
        now = self._elapsed()
        if len(self._readings) >= READINGS_KEPT:
            self._readings.clear()
        self._readings[tenants] = (found, now + max(LEAST_SECONDS, COST_SHARE * (now - began)))
        return found
