"""The jobs that are not concluded, read once for everybody who asks about them."""

import time
from collections.abc import Callable
from typing import Final

import pyarrow as pa

from controlplane.truthcore_projector.cursors import Cursor, table

LEAST_SECONDS: Final = 0.1
COST_SHARE: Final = 10
"""Reading them takes at most one part in so many of the time, however many ask."""


class UnfinishedJobs:
    """Keeps the last reading for a moment: many clients look at waiting jobs again and again."""

    def __init__(self, elapsed: Callable[[], float] = time.monotonic) -> None:
        """Know nothing yet."""
        self._elapsed = elapsed
        self._table: pa.Table | None = None
        self._good_until = 0.0

    def read(self, cursor: Cursor, *, fresh: bool = False) -> pa.Table:
        """Return the rows of `unfinished_jobs`: of a moment ago, or with `fresh` those that the snapshot has."""
        began = self._elapsed()
        if fresh or self._table is None or began >= self._good_until:
            self._table = table(cursor, "SELECT * FROM unfinished_jobs")
            now = self._elapsed()
            self._good_until = now + max(LEAST_SECONDS, COST_SHARE * (now - began))
        return self._table
