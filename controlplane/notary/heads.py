"""Tree heads: how far a partition's tree reaches, what its root is, and how both become and come from an event of the log."""

from collections.abc import Iterable

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from controlplane.events.header import Cause, caused_header
from controlplane.events.identity import Instant
from controlplane.events.types import CheckpointSigned, LogPosition, Producer
from controlplane.security.checkpoint import Checkpoint, NoteInvalid, open_note, origin_of, sign
from controlplane.security.merkle import Frontier, PathImpossible


class TreeHead(msgspec.Struct, frozen=True, kw_only=True):
    """A partition's tree over the records from one offset up to before another."""

    topic: str
    partition: int
    start_offset: int
    end_offset: int
    tree_size: int
    root_hash: bytes
    frontier: tuple[bytes, ...] = ()
    """With it the tree grows on from here; none in checkpoints of the first schema."""

    @property
    def origin(self) -> str:
        """Return the name of the tree."""
        return origin_of(self.topic, self.partition)


def signed_event(head: TreeHead, key: Ed25519PrivateKey, producer: Producer, now: Instant) -> CheckpointSigned:
    """Return the checkpoint of a head as an event; the same head and key give the same id and the same note, whoever signs and however often."""
    last = LogPosition(topic=head.topic, partition=head.partition, offset=head.end_offset - 1)
    checkpoint = Checkpoint(origin=head.origin, tree_size=head.tree_size, root_hash=head.root_hash)
    return CheckpointSigned(
        header=caused_header(Cause(position=last, correlation_id=head.origin), "CheckpointSigned", 0, producer, now),
        origin=head.origin, topic=head.topic, partition=head.partition, tree_size=head.tree_size, start_offset=head.start_offset,
        end_offset=head.end_offset, root_hash=head.root_hash, frontier=head.frontier, note=sign(checkpoint, key),
    )  # fmt: skip


def head_of(event: CheckpointSigned, keys: Iterable[Ed25519PublicKey]) -> TreeHead:
    """Return the head that a checkpoint on the log signs.

    Raises:
        NoteInvalid: no trusted key signed it, or the event says something else than its note.
    """
    signed = open_note(event.note, keys)
    said = Checkpoint(origin=event.origin, tree_size=event.tree_size, root_hash=event.root_hash)
    if signed != said or event.origin != origin_of(event.topic, event.partition):
        raise NoteInvalid(
            f"Expected the checkpoint of {event.origin} to say what its note says, but it says something else."
        )
    if event.frontier:
        try:
            root = Frontier(event.tree_size, event.frontier).root()
        except PathImpossible as error:
            raise NoteInvalid(
                f"Expected the subtrees of {event.origin} to be those of its tree, but: {error}"
            ) from error
        if root != event.root_hash:
            raise NoteInvalid(f"Expected the subtrees of {event.origin} to lead to its signed root, but they do not.")
    return TreeHead(
        topic=event.topic, partition=event.partition, start_offset=event.start_offset, end_offset=event.end_offset,
        tree_size=event.tree_size, root_hash=event.root_hash, frontier=event.frontier,
    )  # fmt: skip
