"""What a log must not have, whatever a projection makes of it: broken guarantees, found by reading all of it."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from controlplane.log.positions import Partition
from controlplane.truthcore_projector.cursors import Cursor, tuples

FINDINGS_LIMIT: Final = 100


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One broken guarantee: which, about what, in words, and the records that show it."""

    kind: str
    subject: str
    message: str
    positions: list[str]


_CONCLUDED_TWICE: Final = """SELECT c.job_id, list(c.phase ORDER BY c."offset") AS phases,
    list(c.topic || '/' || c.partition || '/' || c."offset" ORDER BY c."offset") AS places
  FROM conclusions AS c JOIN events AS e ON e.topic = c.topic AND e.partition = c.partition AND e."offset" = c."offset"
  WHERE c.job_id IN (SELECT job_id FROM conclusions GROUP BY job_id HAVING count(*) > 1)
  GROUP BY c.job_id HAVING count(DISTINCT e.event_id) > 1"""
"""Published twice under one id, a conclusion is the same; two ids are two."""

_WITHOUT_CAUSE: Final = """SELECT event_type, topic || '/' || partition || '/' || "offset" AS place,
    cause_topic || '/' || cause_partition || '/' || cause_offset AS cause
  FROM events LEFT JOIN (SELECT unnest(?) AS t, unnest(?) AS p, unnest(?) AS o) AS ends ON cause_topic = t AND cause_partition = p
  WHERE cause_topic IS NOT NULL AND (o IS NULL OR cause_offset >= o OR cause_offset < 0)"""


def findings(cursor: Cursor, ends: Mapping[Partition, int]) -> list[Finding]:
    """Return the broken guarantees in what a projection read, the first 100 of each kind; `ends` is where the log ends now."""
    tail = f"ORDER BY ALL LIMIT {FINDINGS_LIMIT}"
    found = [
        Finding(
            kind="concluded_twice", subject=job, positions=places,
            message=f"Expected one conclusion of job {job}, but found {len(places)}: {', '.join(phases)}. The first counts.",
        )
        for job, phases, places in tuples(cursor, _CONCLUDED_TWICE, tail=tail)
    ]  # fmt: skip
    columns: list[list[Any]] = [
        [topic for topic, _ in ends], [number for _, number in ends], list(ends.values()),
    ]  # fmt: skip
    found += [
        Finding(
            kind="cause_missing", subject=place, positions=[place],
            message=f"Expected the cause of {kind} at {place} to be a record of the log, but {cause} is none.",
        )
        for kind, place, cause in tuples(cursor, _WITHOUT_CAUSE, columns, tail=tail)
    ]  # fmt: skip
    return found
