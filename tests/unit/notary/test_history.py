"""Whatever is done to a signed history is found: every bit, every removal, insertion and exchange (issue 7, deliverable 5)."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from controlplane.events.identity import Instant
from controlplane.events.types import CheckpointSigned, Producer
from controlplane.notary.heads import TreeHead, head_of, signed_event
from controlplane.notary.history import Finding, PartitionHistory
from controlplane.notary.prove import NotProvable, proof_of
from controlplane.notary.tree import PartitionTree
from controlplane.security.checkpoint import NoteInvalid
from controlplane.security.merkle import Frontier
from tools.verify_inclusion import ProofWrong
from tools.verify_inclusion import verify as verify_inclusion

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PRODUCER = Producer(service="notary", version="0")
EVERY = 4
PLACE = ("controlplane.jobs", 3)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A record as the log's reader gives it."""

    offset: int
    topic: str = PLACE[0]
    partition: int = PLACE[1]
    timestamp: int = 1_700_000_000_000
    key: bytes | None = b"job-1"
    value: bytes | None = b"value"
    headers: tuple[tuple[str, bytes | None], ...] = (("traceparent", b"00-1"), ("empty", None))


def log_of(size: int, first: int = 0) -> list[Record]:
    return [
        Record(
            offset=number,
            timestamp=1_700_000_000_000 + number // 3,
            key=b"job-%d" % (number % 3),
            value=b"v%d" % number,
        )
        for number in range(first, first + size)
    ]


def heads_of(records: list[Record]) -> list[TreeHead]:
    """Return the heads that the notary signs of these records, the last one over all of them."""
    tree = PartitionTree(PLACE, records[0].offset if records else 0)
    heads = tree.take(records, EVERY)
    return heads + [head for head in [tree.seal()] if head]


def found(records: list[Any], heads: list[TreeHead], end: int | None = None) -> list[Finding]:
    history = PartitionHistory("controlplane.jobs/3", heads)
    history.take(records)
    history.finish(end if end is not None else records[-1].offset + 1 if records else 0)
    return history.findings


def bit_changes(record: Record) -> Iterator[Record]:
    """Yield the record with each single bit of each of its parts the other way round."""

    def flipped(content: bytes) -> Iterator[bytes]:
        for bit in range(len(content) * 8):
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            yield bytes(changed)

    replace = msgspec.structs.replace
    for name in ("key", "value"):
        yield from (replace(record, **{name: content}) for content in flipped(getattr(record, name)))
    yield from (replace(record, topic=one.decode("latin-1")) for one in flipped(record.topic.encode()))
    yield from (replace(record, partition=record.partition ^ 1 << bit) for bit in range(31))
    yield from (replace(record, offset=record.offset ^ 1 << bit) for bit in range(62))
    yield from (replace(record, timestamp=record.timestamp ^ 1 << bit) for bit in range(62))
    for place, (name, content) in enumerate(record.headers):
        others = [(one.decode("latin-1"), content) for one in flipped(name.encode())]
        others += [(name, one) for one in flipped(content or b"")]
        others += [(name, b"" if content is None else None)]
        for other in others:
            yield replace(record, headers=(*record.headers[:place], other, *record.headers[place + 1 :]))
    yield replace(record, key=None)
    yield replace(record, value=None)
    yield replace(record, headers=record.headers[:1])
    yield replace(record, headers=record.headers[::-1])


def test_what_was_signed_is_found_intact() -> None:
    for size in range(1, 30):
        for first in (0, 7):
            records = log_of(size, first)
            assert found(records, heads_of(records)) == []


@pytest.mark.parametrize("place", [0, 5, 9])
def test_every_single_bit_change_of_every_part_of_a_record_is_found(place: int) -> None:
    records = log_of(10)
    heads = heads_of(records)
    changes = 0
    for changed in bit_changes(records[place]):
        findings = found([*records[:place], changed, *records[place + 1 :]], heads, end=10)
        assert findings, changed
        changes += 1
    assert changes > 400


@given(size=st.integers(2, 40), data=st.data())
def test_removal_insertion_and_exchange_are_found_where_they_are(size: int, data: st.DataObject) -> None:
    records = log_of(size)
    heads = heads_of(records)
    place = data.draw(st.integers(0, size - 1), label="place")
    kind = data.draw(
        st.sampled_from(["removed", "removed and closed up", "inserted", "exchanged", "doubled", "cut off"])
    )
    replace = msgspec.structs.replace

    def renumbered(some: list[Record]) -> list[Record]:
        return [replace(one, offset=number) for number, one in enumerate(some)]

    match kind:
        case "removed":
            changed = [*records[:place], *records[place + 1 :]]
        case "removed and closed up":
            changed = renumbered([*records[:place], *records[place + 1 :]])
        case "inserted":
            changed = renumbered([*records[:place], Record(offset=0, value=b"new"), *records[place:]])
        case "doubled":
            place = min(place, size - 2)  # The last one doubled would be a record that nobody signed yet.
            changed = renumbered([*records[: place + 1], *records[place:]])
        case "exchanged":
            other = data.draw(st.integers(0, size - 1).filter(lambda one: one != place))
            changed = [*records]
            changed[place], changed[other] = records[other], records[place]
            if data.draw(st.booleans(), label="with each other's offsets"):
                changed = renumbered(changed)
        case _:
            changed = records[:place]
    end = max((one.offset + 1 for one in changed), default=0)
    assert found(changed, heads, max(end, size) if kind == "removed" else end), kind


def test_one_bad_range_does_not_hide_that_the_next_is_good() -> None:
    records = log_of(20)
    heads = heads_of(records)
    records[6] = msgspec.structs.replace(records[6], value=b"changed")
    assert [(one.from_offset, one.to_offset) for one in found(records, heads)] == [(4, 8)]


def test_records_gone_from_the_front_are_said_once_and_the_rest_is_compared() -> None:
    records = log_of(20)
    heads = heads_of(records)
    [finding] = found(records[12:], heads)
    assert (finding.from_offset, finding.to_offset) == (0, 12)
    records[17] = msgspec.structs.replace(records[17], key=None)
    assert [one.to_offset for one in found(records[12:], heads)] == [12, 20]


def test_a_record_behind_a_range_that_is_gone_is_proven_by_the_subtree_roots_alone() -> None:
    records = log_of(23)
    heads = heads_of(records)
    start, head = heads[-2], heads[-1]
    left = records[start.end_offset :]  # All that the partition still holds.
    note = signed_event(head, KEY, PRODUCER, Instant(1)).note
    for record in left:
        assert verify_inclusion(proof_of(record, left, start, head, note), [KEY.public_key()])
    without = msgspec.structs.replace(start, frontier=start.frontier[:-1])
    with pytest.raises((NotProvable, ValueError)):
        proof_of(left[0], left, without, head, note)


def test_an_end_that_was_cut_off_is_found_although_everything_left_is_as_signed() -> None:
    records = log_of(16)
    [finding] = found(records[:12], heads_of(records))
    assert finding.reason == "Expected records up to 16, as signed, but the partition ends at 12."
    assert found([], heads_of(records), end=0)


def test_records_behind_the_last_head_are_counted_as_unsigned() -> None:
    records = log_of(11)
    history = PartitionHistory("controlplane.jobs/3", heads_of(records[:8]))
    history.take(records)
    history.finish(11)
    assert (history.findings, history.unsigned, history.unsigned_since_milliseconds) == ([], 3, records[8].timestamp)


def test_a_tree_taken_up_at_any_head_comes_to_the_same_heads() -> None:
    records = log_of(23)
    whole = heads_of(records)
    for head in whole[:-1]:
        tree = PartitionTree(PLACE, head)
        again = tree.take(records[head.end_offset :], EVERY)
        assert [*again, tree.seal()] == [one for one in whole if one.end_offset > head.end_offset]


def test_two_notaries_write_the_same_checkpoint_under_the_same_id() -> None:
    head = heads_of(log_of(8))[-1]
    one, other = (signed_event(head, KEY, PRODUCER, Instant(now)) for now in (1, 2))
    assert (one.header.event_id, one.note) == (other.header.event_id, other.note)
    assert head_of(one, [KEY.public_key()]) == head


def changed_event(event: CheckpointSigned, name: str) -> CheckpointSigned:
    value = getattr(event, name)
    if isinstance(value, bytes):
        changed: Any = value[:-1] + bytes([value[-1] ^ 1])
    elif isinstance(value, tuple):
        changed = (*value[:-1], value[-1][:-1] + bytes([value[-1][-1] ^ 1]))
    else:
        changed = value + 1 if isinstance(value, int) else value + "x"
    return msgspec.structs.replace(event, **{name: changed})


@pytest.mark.parametrize("name", ["origin", "topic", "partition", "tree_size", "root_hash", "frontier", "note"])
def test_a_checkpoint_that_says_something_else_than_its_note_is_refused(name: str) -> None:
    event = signed_event(heads_of(log_of(7))[-1], KEY, PRODUCER, Instant(1))
    with pytest.raises(NoteInvalid, match="Expected"):
        head_of(changed_event(event, name), [KEY.public_key()])


@pytest.mark.parametrize("name", ["start_offset", "end_offset"])
def test_offsets_that_no_note_signs_cannot_hide_a_change(name: str) -> None:
    records = log_of(16)
    heads = [
        msgspec.structs.replace(one, **{name: getattr(one, name) + shift})
        for one, shift in zip(heads_of(records), (0, 3, -2, 9), strict=True)
    ]
    records[9] = msgspec.structs.replace(records[9], value=b"changed")
    assert found(records, heads)


@given(size=st.integers(1, 40), data=st.data())
def test_every_record_is_proven_to_the_verifier_and_no_other_record_with_its_proof(
    size: int, data: st.DataObject
) -> None:
    records = log_of(size)
    heads = heads_of(records)
    index = data.draw(st.integers(0, size - 1))
    head = next(one for one in heads if one.end_offset > index)
    earlier = [one for one in heads if one.end_offset <= index]
    start = earlier[-1] if earlier else TreeHead(
        topic=head.topic, partition=head.partition, start_offset=0, end_offset=0, tree_size=0, root_hash=Frontier().root()
    )  # fmt: skip
    note = signed_event(head, KEY, PRODUCER, Instant(1)).note
    between = records[start.end_offset : head.end_offset]
    proof = proof_of(records[index], between, start, head, note)
    keys = [KEY.public_key()]
    assert verify_inclusion(proof, keys).startswith(
        f"controlplane.jobs/3/{index} is record {index + 1} of the {head.tree_size} "
    )
    with pytest.raises(ProofWrong):
        verify_inclusion(proof, [Ed25519PrivateKey.from_private_bytes(b"o" * 32).public_key()])
    changed = data.draw(st.sampled_from(list(bit_changes(records[index]))))
    if changed.offset in range(start.end_offset, head.end_offset) and changed.offset != index:
        return
    forged = proof_of(records[index], between, start, head, note)
    forged["record"] = msgspec.json.decode(msgspec.json.encode(changed)) | {"timestamp_milliseconds": changed.timestamp}
    with pytest.raises(ProofWrong):
        verify_inclusion(forged, keys)
    tampered = [changed if one.offset == index else one for one in between]
    with pytest.raises(NotProvable):
        proof_of(changed, tampered, start, head, note)
