"""The history of one partition against the heads that were signed of it: one changed, removed, inserted or moved record is found, and roughly where."""

from collections.abc import Iterable
from typing import Any

import msgspec

from controlplane.notary.heads import TreeHead
from controlplane.security.checkpoint import record_hash
from controlplane.security.merkle import Frontier


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Records that are not what was signed: those from one offset up to before another, and what is wrong in words."""

    origin: str
    from_offset: int
    to_offset: int
    reason: str


class PartitionHistory:
    """Takes a partition's records in order and compares at each signed head.

    After a difference it goes on from the signed head itself, so that one bad range does not hide whether the next one is good.
    """

    def __init__(self, origin: str, heads: Iterable[TreeHead]) -> None:
        """Prepare the comparison with these heads, in whatever order they are."""
        self.origin = origin
        self.findings: list[Finding] = []
        self.records = 0
        self.heads_compared = 0
        self.unsigned = 0
        """Records behind the last signed head."""
        self.unsigned_since_milliseconds: int | None = None
        self._heads = sorted(set(heads), key=lambda head: (head.end_offset, head.tree_size))
        self._next = 0
        self._frontier: Frontier | None = None
        self._good_until = self._heads[0].start_offset if self._heads else 0

    def take(self, records: Iterable[Any]) -> None:
        """Take the next records."""
        heads = self._heads
        for record in records:
            if self._frontier is None:
                self._frontier = self._begin(record.offset)
            while self._next < len(heads) and record.offset >= heads[self._next].end_offset:
                self._frontier = self._compare(self._frontier)
            self._frontier.append(record_hash(record))
            self.records += 1
            if self._next == len(heads):
                self.unsigned += 1
                if self.unsigned_since_milliseconds is None:
                    self.unsigned_since_milliseconds = record.timestamp

    def finish(self, end_offset: int) -> None:
        """Compare what is left; `end_offset` is where the next record of the partition would go."""
        if self._frontier is None:
            self._frontier = self._begin(end_offset)
        while self._next < len(self._heads) and self._heads[self._next].end_offset <= end_offset:
            self._frontier = self._compare(self._frontier)
        if self._next < len(self._heads):
            end = self._heads[-1].end_offset
            reason = f"Expected records up to {end}, as signed, but the partition ends at {end_offset}."
            self._find(max(end_offset, self._good_until), end, reason)
            self._next = len(self._heads)

    def _begin(self, offset: int) -> Frontier:
        """Return the tree in front of the first record: empty, or that of the last head in front of it, whose records are gone."""
        gone = [head for head in self._heads if head.end_offset <= offset]
        if not gone:
            return Frontier()
        last = gone[-1]
        reason = f"Expected the records up to {last.end_offset}, as signed, but the first that is left is {offset}."
        self._find(self._good_until, last.end_offset, reason)
        self._good_until = last.end_offset
        self._next = len(gone)
        return Frontier(last.tree_size, last.frontier) if last.frontier else Frontier()

    def _compare(self, found: Frontier) -> Frontier:
        """Compare at the next head and return the tree to go on from."""
        head = self._heads[self._next]
        self._next += 1
        self.heads_compared += 1
        if found.size != head.tree_size:
            reason = f"Expected {head.tree_size} records before {head.end_offset}, as signed, but found {found.size}."
            self._find(self._good_until, head.end_offset, reason)
        elif found.root() != head.root_hash:
            reason = "Expected the records that were signed, but at least one is another, or they are in another order."
            self._find(self._good_until, head.end_offset, reason)
        self._good_until = max(self._good_until, head.end_offset)
        return Frontier(head.tree_size, head.frontier) if head.frontier else found

    def _find(self, from_offset: int, to_offset: int, reason: str) -> None:
        self.findings.append(Finding(origin=self.origin, from_offset=from_offset, to_offset=to_offset, reason=reason))
