"""The whole log against its signed checkpoints, and checkpoints kept elsewhere against it."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from controlplane.events.catalog import CHECKPOINTS
from controlplane.log.connection import LogConnection
from controlplane.log.positions import Partition
from controlplane.log.reader import LogReader
from controlplane.log.topics import partition_counts
from controlplane.notary.heads import TreeHead, head_of
from controlplane.notary.history import Finding, PartitionHistory
from controlplane.notary.ledger import LedgerInvalid, entry_of, last_entries, read_range, signed_partitions
from controlplane.security.checkpoint import NoteInvalid, open_note, origin_of

BATCH_RECORDS = 5_000

Progress = Callable[[int, int], None]
"""Called with (records done, records in all)."""


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint that somebody keeps away from the log: with it, nobody who holds the log and the notary's key can rewrite what is before it."""

    note: str
    topic: str
    partition: int
    start_offset: int
    end_offset: int


class LogVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification found: whether every signed record is as it was signed, and what no checkpoint covers yet."""

    intact: bool
    partitions: int
    records: int
    checkpoints: int
    anchors: int
    unsigned_records: int
    unsigned_since_milliseconds: int | None
    findings: list[Finding]


async def verify_log(
    connection: LogConnection, keys: Sequence[Ed25519PublicKey], anchors: Iterable[Anchor] = (), progress: Progress | None = None
) -> LogVerdict:  # fmt: skip
    """Read every record and hold it to the checkpoints on the log, and to those that were kept elsewhere.

    Raises:
        LogUnavailable: the brokers did not answer, or refuse.
    """
    counts = await partition_counts(connection)
    places = signed_partitions(counts)
    async with LogReader(connection, client_id="controlplane-verify") as reader:
        # All offsets in front of the first fetch, behind which they would wait; the checkpoints' first, so that what they sign is there.
        signed_until = await reader.end_offsets(_ledgers(counts))
        begins, ends = await reader.beginning_offsets(places), await reader.end_offsets(places)
        heads, findings, checkpoints = await _signed_heads(reader, keys, signed_until)
        kept = list(anchors)
        for anchor in kept:
            try:
                head = anchored_head(anchor, keys)
            except NoteInvalid as error:
                findings.append(
                    _finding(origin_of(anchor.topic, anchor.partition), anchor.start_offset, anchor.end_offset, error)
                )
            else:
                heads.setdefault(head.origin, []).append(head)
        histories = {place: PartitionHistory(origin_of(*place), heads.pop(origin_of(*place), ())) for place in places}
        findings += [
            _finding(origin, 0, max(head.end_offset for head in some), f"Expected the partition {origin}, as signed, but there is none.")
            for origin, some in heads.items()
        ]  # fmt: skip
        await _read_histories(reader, histories, begins, ends, progress)
    for history in histories.values():
        findings += history.findings
    since = [
        one.unsigned_since_milliseconds for one in histories.values() if one.unsigned_since_milliseconds is not None
    ]
    return LogVerdict(
        intact=not findings, partitions=len(places), records=sum(one.records for one in histories.values()), checkpoints=checkpoints,
        anchors=len(kept), unsigned_records=sum(one.unsigned for one in histories.values()),
        unsigned_since_milliseconds=min(since, default=None), findings=findings,
    )  # fmt: skip


async def latest_anchors(connection: LogConnection, keys: Sequence[Ed25519PublicKey]) -> list[Anchor]:
    """Return the last checkpoint of every tree, to be kept elsewhere.

    Raises:
        LogUnavailable: the brokers did not answer, or refuse.
        LedgerInvalid, NoteInvalid: the last checkpoint of a tree is none that a trusted key signed.
    """
    counts = await partition_counts(connection)
    origins = [origin_of(*place) for place in signed_partitions(counts)]
    async with LogReader(connection, client_id="controlplane-anchors") as reader:
        entries = await last_entries(reader, origins, counts[CHECKPOINTS.name])
    heads = [(entries[origin].event.note, head_of(entries[origin].event, keys)) for origin in sorted(entries)]
    return [
        Anchor(
            note=note,
            topic=head.topic,
            partition=head.partition,
            start_offset=head.start_offset,
            end_offset=head.end_offset,
        )
        for note, head in heads
    ]


def anchored_head(anchor: Anchor, keys: Sequence[Ed25519PublicKey]) -> TreeHead:
    """Return the head that a kept checkpoint signs.

    Raises:
        NoteInvalid: no trusted key signed it, or it is of another partition.
    """
    signed = open_note(anchor.note, keys)
    if signed.origin != origin_of(anchor.topic, anchor.partition):
        raise NoteInvalid(f"Expected a checkpoint of {anchor.topic}/{anchor.partition}, but it is of {signed.origin}.")
    return TreeHead(
        topic=anchor.topic, partition=anchor.partition, start_offset=anchor.start_offset, end_offset=anchor.end_offset,
        tree_size=signed.tree_size, root_hash=signed.root_hash,
    )  # fmt: skip


def _ledgers(counts: Mapping[str, int]) -> list[Partition]:
    return [(CHECKPOINTS.name, number) for number in range(counts[CHECKPOINTS.name])]


async def _signed_heads(
    reader: LogReader, keys: Sequence[Ed25519PublicKey], ends: Mapping[Partition, int]
) -> tuple[dict[str, list[TreeHead]], list[Finding], int]:
    """Return the heads of all checkpoints on the log by tree, what is wrong with the others, and how many there are."""
    heads: dict[str, list[TreeHead]] = {}
    findings: list[Finding] = []
    checkpoints = 0
    for place, end in ends.items():
        for first in range(0, end, BATCH_RECORDS):
            for record in await read_range(reader, place, first, min(first + BATCH_RECORDS, end)):
                checkpoints += 1
                try:
                    head = head_of(entry_of(record).event, keys)
                except (LedgerInvalid, NoteInvalid) as error:
                    findings.append(_finding(origin_of(*place), record.offset, record.offset + 1, error))
                else:
                    heads.setdefault(head.origin, []).append(head)
    return heads, findings, checkpoints


async def _read_histories(
    reader: LogReader, histories: Mapping[Partition, PartitionHistory], begins: Mapping[Partition, int], ends: Mapping[Partition, int],
    progress: Progress | None,
) -> None:  # fmt: skip
    left = {place for place in histories if ends[place] > begins[place]}
    total = sum(ends[place] - begins[place] for place in histories)
    done = 0
    await reader.assign(dict.fromkeys(left, "earliest"))
    while left:
        batches = await reader.batch(timeout_seconds=0.5, max_records=BATCH_RECORDS)
        wanted = {place: [one for one in records if one.offset < ends[place]] for place, records in batches.items()}
        await asyncio.to_thread(_take, histories, wanted)
        done += sum(map(len, wanted.values()))
        left -= {place for place, records in batches.items() if records[-1].offset + 1 >= ends[place]}
        if progress:
            progress(done, total)
    for place, history in histories.items():
        history.finish(ends[place])


def _take(histories: Mapping[Partition, PartitionHistory], batches: Mapping[Partition, list[Any]]) -> None:
    for place, records in batches.items():
        histories[place].take(records)


def _finding(origin: str, first: int, end: int, reason: object) -> Finding:
    return Finding(origin=origin, from_offset=first, to_offset=end, reason=str(reason))
