"""Bytes that do not end where their record ends: found by themselves, whatever stands beside them."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.events import types
from controlplane.events.codec import PREFIX_BYTES, UndecodableRecord, decode, encode, schema_of
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant
from controlplane.events.types import LogPosition, Producer
from controlplane.truthcore_projector.boundaries import whole
from controlplane.truthcore_projector.decode import Decoded, Decoder

HEADER = outside_header(
    "AttemptSucceeded", "a", Producer(service="test", version="0"), Instant(-(2**40)),
    causation=LogPosition(topic="controlplane.routing", partition=3, offset=2**40),
)  # fmt: skip
CLAIM = types.Claim(
    subject="s", predicate="p", object=types.TypedValue(kind=types.ValueKind.NUMBER, text="1", number=1.0), inputs=("x", "y")
)  # fmt: skip


def succeeded(result: bytes = b"{}", claims: int = 0) -> bytes:
    return encode(
        types.AttemptSucceeded(
            header=HEADER, job_id="j", attempt_id="a", attempt_number=1, runner_id="r", result=types.Content(data=result),
            claims=(CLAIM,) * claims, capability="c@1.0.0", runner_name="n",
        )
    )  # fmt: skip


def registered(labels: dict[str, str]) -> bytes:
    return encode(
        types.RunnerRegistered(
            header=HEADER, runner_id="r", name="n", slots=1, labels=labels, inbox_partition=0, heartbeat_seconds=2.0,
            capabilities=(types.Capability(job_type="t", version="1.0.0", retry=types.RetryPolicy()),),
        )
    )  # fmt: skip


def fits(*values: bytes) -> list[bool]:
    found: list[bool] = whole(schema_of(values[0]).schema, [value[PREFIX_BYTES:] for value in values]).tolist()
    return found


def test_whole_records_fit() -> None:
    assert fits(succeeded(), succeeded(b"x" * 300, claims=3), succeeded(claims=1)) == [True] * 3
    assert fits(registered({}), registered({"region": "eu", "gpu": "no"})) == [True] * 2


def test_a_type_that_is_named_in_a_branch_that_no_record_takes_is_known_behind_it() -> None:
    outside = outside_header("JobRetryRequested", "a", Producer(service="test", version="0"), Instant(1))
    asked = types.JobRetryRequested(
        header=outside, job_id="j", submission=LogPosition(topic="controlplane.submissions", partition=0, offset=7)
    )  # fmt: skip
    assert fits(encode(asked)) == [True]


@pytest.mark.parametrize("tail", [b"\0", b"xx", b"\xff" * 40])
def test_a_tail_is_found_and_only_that(tail: bytes) -> None:
    good = succeeded(claims=2)
    assert fits(good, good + tail, good) == [True, False, True]


@pytest.mark.parametrize("length", range(PREFIX_BYTES, len(succeeded(claims=2))))
def test_a_record_cut_anywhere_does_not_fit(length: int) -> None:
    good = succeeded(claims=2)
    assert fits(good, good[:length], good) == [True, False, True]


@given(
    place=st.integers(PREFIX_BYTES, len(succeeded(claims=2)) - 1), byte=st.integers(0, 255), tail=st.binary(max_size=3)
)
def test_what_the_record_reader_takes_fits_and_nothing_hangs(place: int, byte: int, tail: bytes) -> None:
    good = succeeded(claims=2)
    value = good[:place] + bytes([byte]) + good[place + 1 :] + tail
    try:
        decode(value)
    except UndecodableRecord:
        pass
    else:
        assert fits(good, value, good) == [True, True, True]
    decoder = Decoder()
    decoded = decoder.decode([record(good, 0), record(value, 1), record(good, 2)])
    decoder.close()
    assert rows(decoded) + len(decoded.refused) == 3
    assert {one.record.offset for one in decoded.refused} <= {1}


def record(value: bytes, offset: int, topic: str = "controlplane.progress") -> Any:
    return SimpleNamespace(topic=topic, partition=0, offset=offset, timestamp=1, key=b"j", value=value)


def rows(decoded: Decoded) -> int:
    return sum(table.num_rows for table in decoded.tables.values())


@pytest.mark.parametrize(
    ("value", "topic", "code"),
    [
        (succeeded() + b"\0", "controlplane.progress", "record_undecodable"),
        (succeeded()[:-1], "controlplane.progress", "record_undecodable"),
        (b"", "controlplane.progress", "record_undecodable"),
        (None, "controlplane.progress", "record_undecodable"),
        (b"\0\0\0\0\7garbage", "controlplane.progress", "record_undecodable"),
        (succeeded(), "controlplane.truth", "event_unexpected"),
    ],
)
def test_a_poison_record_is_refused_alone(value: bytes | None, topic: str, code: str) -> None:
    decoder = Decoder()
    poison = record(value, 1, topic)  # type: ignore[arg-type] # a tombstone has no value
    decoded = decoder.decode([record(succeeded(), 0), poison, record(succeeded(), 2)])
    decoder.close()
    assert [(one.record.offset, one.code) for one in decoded.refused] == [(1, code)]
    assert decoded.refused[0].reason.startswith("Expected ")
    assert rows(decoded) == 2
