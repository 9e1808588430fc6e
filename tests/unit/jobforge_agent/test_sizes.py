"""What is too large for the records that would follow from it is refused by name, and stops nothing else."""

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from pydantic import ValidationError

from controlplane.events import types
from controlplane.events.catalog import TOPICS, Service
from controlplane.events.controls import Controls
from controlplane.events.identity import Instant
from controlplane.events.sizes import LARGEST_INLINE_BYTES, LONGEST_LABEL_CHARACTERS, LONGEST_TEXT_CHARACTERS
from controlplane.jobforge_agent.batch import consume, dead_letter
from controlplane.jobforge_agent.commands import on_retry_requested
from controlplane.jobforge_agent.control_store import Place
from controlplane.jobforge_agent.decide import Decision, Related, cancelled, on_unroutable
from controlplane.jobforge_agent.leases import Clock
from controlplane.jobforge_agent.leasing import leased
from controlplane.jobforge_agent.policy import LONGEST_REFUSAL_CHARACTERS, Candidate, Situation, least_loaded
from controlplane.jobforge_agent.proofs import writable
from controlplane.jobforge_agent.transitions import Phase
from controlplane.jobforge_agent.upkeep import Upkeep
from controlplane.log.connection import LogConnection
from controlplane.log.producer import LogProducer, RecordTooLarge
from controlplane.log.topics import LARGEST_RECORD_BYTES
from controlplane.settings import Settings
from tests.unit.jobforge_agent.test_decide import NOW, PRODUCER, context, header, job, names, submission, submitted

LOG = LogProducer(
    LogConnection(bootstrap="none", cloudevents=True), service=Service.JOBFORGE, partitions=dict.fromkeys(TOPICS, 4)
)
LONGEST = "ü" * LONGEST_TEXT_CHARACTERS


def content(size: int, **more: Any) -> types.Content:
    return types.Content(data=b'{"width": 5, "x": "' + b"x" * (size - 21) + b'"}', **more)


def reference(uri: str = "content://sha256/0", sha256: str = "0") -> types.Content:
    return types.Content(reference=types.ContentReference(uri=uri, sha256=sha256, size_bytes=1 << 29))


@pytest.mark.parametrize(
    ("options", "code", "field", "found"),
    [
        ({"payload": content(LARGEST_INLINE_BYTES + 1)}, "payload_too_large", "payload", "921601"),
        ({"payload": content(999_820, encryption_key_id="t/k")}, "payload_too_large", "payload", "999820"),
        ({"payload": reference(uri=LONGEST + "u")}, "request_invalid", "payload", "1001"),
        ({"required_labels": {"l": "v" * 201}}, "request_invalid", "required_labels", "201"),
        ({"preferred_labels": {f"{n}": "" for n in range(51)}}, "request_invalid", "preferred_labels", "51"),
        ({"job_id": LONGEST + "j"}, "request_invalid", "job_id", "1001"),
        ({"concurrency_key": LONGEST + "k"}, "request_invalid", "concurrency_key", "1001"),
    ],
)
def test_what_is_too_large_is_rejected_by_name(options: dict[str, Any], code: str, field: str, found: str) -> None:
    decision = submitted(**options)
    rejected = decision.events[0]
    assert isinstance(rejected, types.JobRejected)
    assert (rejected.error.code, rejected.error.field, rejected.error.found) == (code, field, found)
    assert decision.job is not None
    assert decision.job.phase is Phase.REJECTED
    assert not decision.job.required_labels


def test_a_payload_that_is_kept_elsewhere_may_have_any_size() -> None:
    assert names(submitted(payload=reference())) == ["JobAccepted"]


def test_whatever_is_accepted_fits_into_what_follows() -> None:
    labels = {f"{number:02}": "v" * LONGEST_LABEL_CHARACTERS for number in range(50)}
    size = sum(len(name) + len(value) for name, value in labels.items())
    texts = dict.fromkeys(
        ("pool", "concurrency_key", "rate_key", "schedule_id", "idempotency_key", "retry_of"), LONGEST
    )
    event = submission(
        **texts, job_id=LONGEST, payload=content(LARGEST_INLINE_BYTES - size), required_labels=labels,
        header=msgspec.structs.replace(header("JobSubmitted"), correlation_id=LONGEST, tenant=LONGEST, actor=LONGEST),
        parent=types.ParentJob(job_id=LONGEST, attempt_id=LONGEST),
    )  # fmt: skip
    decision = submitted(**{name: getattr(event, name) for name in event.__struct_fields__})
    assert names(decision) == ["JobAccepted"]
    assert decision.job is not None

    offers = frozenset({("image.thumbnail", 1)})
    able = Candidate(runner_id="r", pool=LONGEST, slots=1, busy=0, labels=labels, offers=offers)
    strangers = [
        Candidate(runner_id=f"{n}" * 128, pool=LONGEST, slots=1, busy=0, labels={}, offers=offers) for n in range(9)
    ]
    (chosen,) = least_loaded(Situation(jobs=[decision.job], runners={one.runner_id: one for one in [*strangers, able]}))
    assert {len(one.reason) for one in chosen.refused} == {LONGEST_REFUSAL_CHARACTERS}
    assert all(one.reason.endswith("...") for one in chosen.refused)
    _, routed = leased(chosen, "a" * 36, NOW, producer=PRODUCER, lease_seconds=6.0)
    LOG.record(routed)

    failed = msgspec.structs.replace(decision.job, phase=Phase.FAILED)
    command = types.JobRetryRequested(header=event.header, job_id=LONGEST, reason="")
    again = on_retry_requested(failed, command, related(event))
    assert names(again) == ["JobRetried", "JobSubmitted"]
    for one in again.events:
        LOG.record(one)


def related(original: types.JobSubmitted) -> Any:
    return msgspec.structs.replace(context(), related=Related(originals={original.job_id: original}))


def test_a_job_that_was_too_large_is_not_submitted_again() -> None:
    event = submission(payload=content(999_820))
    command = types.JobRetryRequested(header=header("JobRetryRequested"), job_id="j", reason="")
    decision = on_retry_requested(submitted(payload=event.payload).job, command, related(event))
    assert names(decision) == ["CommandRefused"]
    refused = decision.events[0]
    assert isinstance(refused, types.CommandRefused)
    assert "it cannot be submitted again: Expected payload and labels of at most 921600 bytes" in refused.error.message


def test_a_job_that_cannot_be_routed_fails_with_the_same_bytes_whenever_that_is_decided() -> None:
    waiting = job(Phase.QUEUED, payload=content(999_820), queued_at=NOW)
    first, later = (on_unroutable(waiting, context(now=NOW + after)) for after in (1, 2))
    assert names(first) == ["JobFailed", "TruthAsserted"]
    assert first.events[0].error.code == "payload_too_large"  # type: ignore[attr-defined]
    assert [LOG.record(one).value for one in first.events] == [LOG.record(one).value for one in later.events]
    running = job(Phase.RUNNING)
    assert on_unroutable(running, context()) == Decision(job=running)


def test_a_reason_is_not_carried_on_without_bounds() -> None:
    event = cancelled(job(Phase.QUEUED), "r" * LARGEST_RECORD_BYTES, context()).events[0]
    assert isinstance(event, types.JobCancelled)
    assert len(event.reason) == LONGEST_TEXT_CHARACTERS


@pytest.mark.parametrize("value", [b"garbage" * 100_000, b""])
def test_the_letter_of_a_record_with_a_large_key_fits(value: bytes) -> None:
    record = SimpleNamespace(
        topic="controlplane.submissions", partition=0, offset=5, timestamp=1, value=value, key=b"k" * 1_500_000
    )
    consumed = consume(record, 4)
    assert consumed.error is not None
    LOG.record(dead_letter(consumed, consumed.error, PRODUCER))


def test_what_time_decides_and_cannot_be_written_is_left_out_alone() -> None:
    large, small = job(Phase.QUEUED, job_id="large"), job(Phase.QUEUED, job_id="small")

    def prove(decision: Decision) -> None:
        if decision.job is large:
            raise RecordTooLarge("too large")

    decisions = [(one, Decision(job=one)) for one in (large, small)]
    assert writable(decisions, prove) == decisions[1:]


async def test_the_owner_concludes_what_no_router_can_route() -> None:
    decided: list[tuple[int, list[str], Any]] = []

    async def decide_jobs(partition: int, ids: list[str], decider: Any) -> None:
        decided.append((partition, list(ids), decider))

    async def due(*_: Any) -> list[str]:
        return []

    unroutable = {"ours": 1, "theirs": 2}
    clock = Clock(
        cast(Any, SimpleNamespace(partitions=[0, 1], decide_jobs=decide_jobs)), cast(Any, SimpleNamespace(due=due)),
        cast(Any, None), cast(Any, None), group="g", lease_seconds=6.0, counts={}, reached=lambda _: {}, unroutable=unroutable,
    )  # fmt: skip
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.15):
            await clock.run_due()
    assert decided == [(1, ["ours"], on_unroutable)]
    assert not unroutable


async def test_a_schedule_whose_job_is_too_large_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    fired: list[str] = []
    schedules = {
        name: types.ScheduleDeclared(
            header=header("ScheduleDeclared"), subject=f"schedule:{name}", schedule_id=name, cron="* * * * *", time_zone="UTC",
            job=types.JobTemplate(job_type="light", payload=types.Content()),
        )
        for name in ("large", "small")
    }  # fmt: skip

    async def fire(_: Upkeep, schedule: types.ScheduleDeclared, *__: Any) -> None:
        if schedule.schedule_id == "large":
            raise RecordTooLarge("too large")
        fired.append(schedule.schedule_id)

    async def waiting(_: Upkeep) -> Any:
        place = Place(position=context().cause.position, at=1)
        return Controls(), [(one, "1", place) for one in schedules.values()]

    monkeypatch.setattr(Upkeep, "_fire", fire)
    monkeypatch.setattr(Upkeep, "_waiting", waiting)
    nobody = cast(Any, None)
    upkeep = Upkeep(nobody, nobody, LOG, partitions=4, most_in_flight=1, now=lambda: Instant(200_000_000))
    await upkeep.fire_schedules()
    assert fired == ["small"]


def test_the_limit_of_payloads_leaves_room_for_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTROLPLANE_PAYLOAD_LIMIT_BYTES", str(LARGEST_INLINE_BYTES + 1))
    with pytest.raises(ValidationError, match="less than or equal to 921600"):
        Settings()
    monkeypatch.setenv("CONTROLPLANE_PAYLOAD_LIMIT_BYTES", str(LARGEST_INLINE_BYTES))
    assert Settings().payload_limit_bytes == LARGEST_INLINE_BYTES
