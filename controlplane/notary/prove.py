"""Inclusion proofs: that a record is on the log as it was signed, checkable by anybody who has the notary's public key."""

import base64
from collections.abc import Sequence
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from controlplane.events.catalog import CHECKPOINTS
from controlplane.events.types import LogPosition
from controlplane.log.connection import LogConnection
from controlplane.log.positions import position_text
from controlplane.log.reader import LogReader
from controlplane.log.topics import partition_counts
from controlplane.notary.heads import TreeHead, head_of
from controlplane.notary.ledger import entries_around, read_range, signed_partitions
from controlplane.security.checkpoint import record_hash
from controlplane.security.merkle import Frontier, inclusion_path, root_of_path

FORMAT: Final = "controlplane/inclusion-proof/1"


class NotProvable(ValueError):
    """Expected a record that a checkpoint covers and that is as it was signed, but it is not."""


async def prove(connection: LogConnection, place: LogPosition, keys: Sequence[Ed25519PublicKey]) -> dict[str, Any]:
    """Return the proof of one record as a JSON document: the record, its path, and the signed checkpoint.

    Reads the records between two checkpoints, however long the partition is.

    Raises:
        NotProvable: there is no such record, no checkpoint covers it yet, or what is there is not what was signed.
        NoteInvalid, LedgerInvalid: a checkpoint beside it is none that a trusted key signed.
        LogUnavailable: the brokers did not answer, or refuse.
    """
    counts = await partition_counts(connection)
    partition = (place.topic, place.partition)
    if partition not in signed_partitions(counts):
        raise NotProvable(f"Expected a partition that is signed as a tree, but found {place.topic}/{place.partition}.")
    async with LogReader(connection, client_id="controlplane-prove") as reader:
        begin = (await reader.beginning_offsets([partition]))[partition]
        end = (await reader.end_offsets([partition]))[partition]
        if not begin <= place.offset < end:
            raise NotProvable(
                f"Expected an offset from {begin} to {end - 1} in {place.topic}/{place.partition}, but found {place.offset}."
            )
        records = await read_range(reader, partition, place.offset, place.offset + 1)
        if not records:
            raise NotProvable(f"Expected a record at {position_text(place)}, but there is none.")
        [record] = records
        before, covering = await entries_around(
            reader, partition, place.offset, record.timestamp, counts[CHECKPOINTS.name]
        )
        if covering is None:
            raise NotProvable(f"Expected a checkpoint that covers {position_text(place)}, but none does yet.")
        start = head_of(before.event, keys) if before else None
        head = head_of(covering.event, keys)
        if start is None or not start.frontier:
            start = _nothing(head)
        records = await read_range(reader, partition, start.end_offset, head.end_offset)
    return proof_of(record, records, start, head, covering.event.note)


def _nothing(head: TreeHead) -> TreeHead:
    """Return the head of the empty tree that another one grew from."""
    return TreeHead(
        topic=head.topic, partition=head.partition, start_offset=head.start_offset, end_offset=head.start_offset, tree_size=0,
        root_hash=Frontier().root(),
    )  # fmt: skip


def proof_of(record: Any, records: Sequence[Any], start: TreeHead, head: TreeHead, note: str) -> dict[str, Any]:
    """Return the proof of a record among those between two heads.

    Raises:
        NotProvable: these records do not lead from the one head to the other.
    """
    where = f"{record.topic}/{record.partition}/{record.offset}"
    leaves = [record_hash(one) for one in records]
    places = [number for number, one in enumerate(records) if one.offset == record.offset]
    if start.tree_size + len(leaves) != head.tree_size or not places:
        raise NotProvable(
            f"Expected {head.tree_size - start.tree_size} records from {start.end_offset} to {head.end_offset}, as signed, but found {len(leaves)}."
        )
    index = start.tree_size + places[0]
    path = inclusion_path(index, Frontier(start.tree_size, start.frontier), leaves)
    if root_of_path(leaves[places[0]], index, head.tree_size, path) != head.root_hash:
        raise NotProvable(
            f"Expected the records from {start.end_offset} to {head.end_offset} around {where} as they were signed, but they are not: "
            "`controlplane audit checkpoints verify` says more."
        )
    return {
        "format": FORMAT,
        "record": {
            "topic": record.topic, "partition": record.partition, "offset": record.offset, "timestamp_milliseconds": record.timestamp,
            "key": _text(record.key), "value": _text(record.value), "headers": [[name, _text(content)] for name, content in record.headers],
        },
        "leaf_index": index,
        "path": [_text(one) for one in path],
        "checkpoint": note,
    }  # fmt: skip


def _text(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()
