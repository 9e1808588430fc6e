"""The tree of one partition as the notary grows it: which heads become due, from its records alone."""

from collections.abc import Sequence
from typing import Any

from controlplane.log.positions import Partition
from controlplane.notary.heads import TreeHead
from controlplane.security.checkpoint import record_hash
from controlplane.security.merkle import Frontier


class PartitionTree:
    """Grows record by record from the last signed head, or from the first record that the log has."""

    __slots__ = (
        "_frontier",
        "_partition",
        "_signed_size",
        "_start_offset",
        "next_offset",
        "read_until_milliseconds",
        "unsigned_since_milliseconds",
    )

    def __init__(self, partition: Partition, start: int | TreeHead) -> None:
        """Begin an empty tree at an offset, or take it up at a signed head.

        Raises:
            PathImpossible: the head has no frontier to go on from.
        """
        self._partition = partition
        if isinstance(start, TreeHead):
            self._frontier = Frontier(start.tree_size, start.frontier)
            self._start_offset = start.start_offset
            self.next_offset = start.end_offset
        else:
            self._frontier = Frontier()
            self._start_offset = self.next_offset = start
        self._signed_size = self._frontier.size
        self.unsigned_since_milliseconds: int | None = None
        """Append time of the first record that no head covers yet."""
        self.read_until_milliseconds: int | None = None
        """Whatever was appended before this moment has been read; None: nobody knows yet."""

    @property
    def unsigned(self) -> int:
        """Return how many records no head covers yet."""
        return self._frontier.size - self._signed_size

    def take(self, records: Sequence[Any], every_records: int) -> list[TreeHead]:
        """Append records; return the heads at which the size reached a multiple of `every_records`.

        Multiples, not counts since the last head: two notaries of one log come to the same heads.
        """
        frontier = self._frontier
        due = []
        for record in records:
            if self.unsigned_since_milliseconds is None:
                self.unsigned_since_milliseconds = record.timestamp
            frontier.append(record_hash(record))
            self.next_offset = record.offset + 1
            if not frontier.size % every_records:
                due.append(self._sealed())
        if records:
            self.read_until_milliseconds = records[-1].timestamp
        return due

    def seal(self) -> TreeHead | None:
        """Return the head over all records so far; None when one already covers them."""
        return self._sealed() if self.unsigned else None

    def _sealed(self) -> TreeHead:
        frontier = self._frontier
        self._signed_size = frontier.size
        self.unsigned_since_milliseconds = None
        topic, number = self._partition
        return TreeHead(
            topic=topic, partition=number, start_offset=self._start_offset, end_offset=self.next_offset, tree_size=frontier.size,
            root_hash=frontier.root(), frontier=tuple(frontier.roots),
        )  # fmt: skip
