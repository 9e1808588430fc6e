"""Whom to ask: a pure choice among replicas by what is known of them."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from controlplane.api.replicas import Standing
from controlplane.log.positions import Partition

BEHIND_SECONDS: Final = 2.0
"""A replica that lags so much more than the best is asked only when no other is there."""


class Replica(msgspec.Struct, kw_only=True):
    """One TruthCore process as its asker knows it; without a standing it did not answer when it was last asked."""

    url: str
    standing: Standing | None = None
    questions: int = 0
    """On their way to it."""
    answered: int = 0


def missing(replica: Replica, wanted: Mapping[Partition, int]) -> int:
    """Return how many records a replica lacks, as far as is known, until it reflects these; partitions that it does not read count for nothing."""
    if replica.standing is None:
        return sum(wanted.values())
    positions = replica.standing.reflects.positions
    return sum(
        max(0, offset + 1 - positions[topic][partition])
        for (topic, partition), offset in wanted.items()
        if partition in positions.get(topic, {})
    )


def ranked(replicas: Iterable[Replica], wanted: Mapping[Partition, int]) -> list[Replica]:
    """Return replicas, the best to ask first: up, reflecting what is wanted, not far behind, with the fewest questions on their way.

    One that is down comes last and is not left out: nobody knows that it has not come back.
    """
    some = list(replicas)
    best = min((one.standing.reflects.lag_seconds for one in some if one.standing), default=0.0)

    def order(one: Replica) -> tuple[bool, int, bool, int, int]:
        standing = one.standing
        if standing is None:
            return True, 0, True, one.questions, one.answered
        behind = not standing.reading or standing.reflects.lag_seconds > best + BEHIND_SECONDS
        return False, missing(one, wanted), behind, one.questions, one.answered

    return sorted(some, key=order)


def behind_seconds(replicas: Iterable[Replica]) -> float:
    """Return how far reads are behind the log: as far as the nearest replica of the shard that is furthest behind; 0 where nobody answers."""
    nearest: dict[int, float] = {}
    for standing in (one.standing for one in replicas if one.standing is not None):
        lag = standing.reflects.lag_seconds
        nearest[standing.shard] = min(lag, nearest.get(standing.shard, lag))
    return max(nearest.values(), default=0.0)
