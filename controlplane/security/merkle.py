"""Merkle trees: the root over any number of leaves, kept in a handful of hashes, and the path that proves one leaf.

Source: RFC 6962, section 2.1 (hashes, paths), and RFC 9162, section 2.1.3.2 (following a path). Leaves and inner nodes are hashed with
different first bytes, so that neither can be passed off as the other.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()


class PathImpossible(ValueError):
    """Expected a leaf within the tree and the hashes that its path needs, but found something else."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return sha256(b"\1" + left + right).digest()


class Frontier:
    """The first leaves of a growing tree as the roots of its perfect subtrees, the largest first: all that later roots need of them.

    The subtrees' sizes are the powers of two of `size`, so a million leaves are at most twenty hashes.
    """

    __slots__ = ("roots", "size")

    def __init__(self, size: int = 0, roots: Sequence[bytes] = ()) -> None:
        """Take up a tree where it was.

        Raises:
            PathImpossible: there is not one hash of 32 bytes for each perfect subtree.
        """
        if size < 0 or len(roots) != size.bit_count() or any(len(root) != HASH_BYTES for root in roots):
            raise PathImpossible(
                f"Expected {max(size, 0).bit_count()} hashes for {size} leaves, but found {len(roots)}."
            )
        self.size = size
        self.roots = list(roots)

    def append(self, leaf: bytes) -> None:
        """Add the hash of the next leaf."""
        roots = self.roots
        size = self.size
        self.size = size + 1
        while size & 1:
            leaf = sha256(b"\1" + roots.pop() + leaf).digest()
            size >>= 1
        roots.append(leaf)

    def root(self) -> bytes:
        """Return the root of the tree."""
        if not self.roots:
            return EMPTY_ROOT
        root = self.roots[-1]
        for left in reversed(self.roots[:-1]):
            root = node_hash(left, root)
        return root

    def subtrees(self) -> dict[tuple[int, int], bytes]:
        """Return each perfect subtree as (first leaf, leaf after the last) with its root."""
        found = {}
        start = 0
        for bit, root in zip(_descending_powers(self.size), self.roots, strict=True):
            found[start, start + bit] = root
            start += bit
        return found


def _descending_powers(size: int) -> list[int]:
    return [1 << bit for bit in reversed(range(size.bit_length())) if size >> bit & 1]


def _left_size(size: int) -> int:
    """Return the size of the left subtree: the largest power of two below the size."""
    return 1 << (size - 1).bit_length() - 1


def inclusion_path(index: int, before: Frontier, leaves: Sequence[bytes]) -> list[bytes]:
    """Return the hashes beside the way from a leaf to the root, the lowest first.

    Of the tree are given the frontier of some first leaves, and the hashes of all leaves behind it, of which the asked one must be: a
    subtree to its left that lies wholly in front is one of the frontier's.

    Raises:
        PathImpossible: the leaf is not behind the frontier.
    """
    size = before.size + len(leaves)
    if not before.size <= index < size:
        raise PathImpossible(f"Expected a leaf from {before.size} to {size - 1}, but found {index}.")
    known = before.subtrees()

    def root(first: int, end: int) -> bytes:
        if (first, end) in known:
            return known[first, end]
        if end - first == 1:
            return leaves[first - before.size]
        middle = first + _left_size(end - first)
        return node_hash(root(first, middle), root(middle, end))

    path: list[bytes] = []
    first, end = 0, size
    while end - first > 1:
        middle = first + _left_size(end - first)
        if index < middle:
            path.append(root(middle, end))
            end = middle
        else:
            path.append(root(first, middle))
            first = middle
    path.reverse()
    return path


def root_of_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Return the root that a leaf's hash and its path lead to.

    Raises:
        PathImpossible: no tree of this size has such a path for this leaf.
    """
    if not 0 <= index < size:
        raise PathImpossible(f"Expected a leaf below {size}, but found {index}.")
    place, last, root = index, size - 1, leaf
    for beside in path:
        if last == 0:
            raise PathImpossible(f"Expected a shorter path in a tree of {size} leaves, but found {len(path)} hashes.")
        if place & 1 or place == last:
            root = node_hash(beside, root)
            while not place & 1 and place:
                place >>= 1
                last >>= 1
        else:
            root = node_hash(root, beside)
        place >>= 1
        last >>= 1
    if last:
        raise PathImpossible(f"Expected a longer path in a tree of {size} leaves, but found {len(path)} hashes.")
    return root
