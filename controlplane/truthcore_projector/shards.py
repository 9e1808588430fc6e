"""Which part of the log a TruthCore keeps: decided so that a job's rows, and a subject's, are in one shard.

A shard reads partitions `p` with `p % shards == shard` of every topic: submissions, progress and jobs are co-partitioned by job id, truth is partitioned by subject.
Routing is partitioned by runner, so every shard reads it whole and keeps the records of its jobs, which are keyed by job id.
"""

import re
from typing import Final

import msgspec

from controlplane.events.catalog import ROUTING
from controlplane.events.identity import partition_of
from controlplane.log.positions import Partition

_TEXT: Final = re.compile(r"(\d{1,4})/(\d{1,4})")


class ShardInvalid(ValueError):
    """Expected a shard like 0/2, the first of two, but found something else."""


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the log; by default the whole."""

    number: int = 0
    of: int = 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def reads(self, place: Partition) -> bool:
        """Say whether records of a partition may belong here."""
        topic, partition = place
        return topic == ROUTING.name or partition % self.of == self.number

    def keeps(self, topic: str, key: bytes | None, job_partitions: int) -> bool:
        """Say whether a record of a partition that is read here belongs here."""
        return (
            self.of == 1 or topic != ROUTING.name or partition_of(key or b"", job_partitions) % self.of == self.number
        )


WHOLE_LOG: Final = Shard()


def shard_of(text: str) -> Shard:
    """Return the shard that a setting names.

    Raises:
        ShardInvalid: it names none.
    """
    found = _TEXT.fullmatch(text)
    number, of = (int(found[1]), int(found[2])) if found else (0, 0)
    if number >= of:
        raise ShardInvalid(f"Expected a shard like 0/2, the first of two, but found {text[:100]!r}.")
    return Shard(number=number, of=of)
