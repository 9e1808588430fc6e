"""What JobForge decides, as a table: a job's phase, what happens, what is published, and where the job then stands."""

from typing import Any

import msgspec
import pytest

from controlplane.events import types
from controlplane.events.header import Cause, outside_header
from controlplane.events.identity import Instant
from controlplane.events.job_contracts import Registry
from controlplane.events.types import LogPosition, Producer
from controlplane.jobforge_agent.batch import Consumed, decide_batch
from controlplane.jobforge_agent.commands import DECIDERS
from controlplane.jobforge_agent.decide import Context, Decision, is_repeat, on_due, on_lost, on_submitted
from controlplane.jobforge_agent.state import SECOND, Job
from controlplane.jobforge_agent.transitions import CONCLUDED, Phase

PRODUCER = Producer(service="jobforge", version="0")
SCHEMA = '{"type": "object", "properties": {"width": {"type": "integer"}}, "required": ["width"]}'
RUNNER = types.RunnerRegistered(
    header=outside_header("RunnerRegistered", "r1", PRODUCER, Instant(1)), runner_id="r1", name="media", slots=4, labels={},
    capabilities=(types.Capability(job_type="image.thumbnail", version="1.2.0", payload_schema=SCHEMA, timeout_seconds=30.0),),
    inbox_partition=0, heartbeat_seconds=2.0,
)  # fmt: skip
REGISTRY = Registry({"r1": RUNNER})
NOW = Instant(1_000 * SECOND)
ATTEMPT: dict[str, Any] = {"job_id": "j", "attempt_id": "a1", "attempt_number": 1, "runner_id": "r1"}


def context(offset: int = 5, topic: str = "controlplane.progress", now: int = NOW) -> Context:
    position = LogPosition(topic=topic, partition=0, offset=offset)
    cause = Cause(position=position, correlation_id="c")
    return Context(cause=cause, now=Instant(now), registry=REGISTRY, producer=PRODUCER, partition=0)


def header(name: str) -> types.EventHeader:
    return outside_header(name, "x", PRODUCER, NOW)


def submission(**changes: Any) -> types.JobSubmitted:
    fields: dict[str, Any] = {
        "header": header("JobSubmitted"), "job_id": "j", "job_type": "image.thumbnail",
        "payload": types.Content(data=b'{"width": 5}'),
    }  # fmt: skip
    return types.JobSubmitted(**(fields | changes))


def submitted(**changes: Any) -> Decision:
    return on_submitted(None, submission(**changes), context(0, "controlplane.submissions"))


def job(phase: Phase, **changes: Any) -> Job:
    fresh = submitted().job
    assert fresh is not None
    if phase in (Phase.ROUTED, Phase.RUNNING):
        changes = {"attempt_id": "a1", "attempt_number": 1, "runner_id": "r1", "routed_at": NOW, "due_at": NOW + 30 * SECOND} | changes  # fmt: skip
    return msgspec.structs.replace(fresh, phase=phase, **changes)


def names(decision: Decision) -> list[str]:
    return [type(event).__name__ for event in decision.events]


def failed(retryable: bool = True, category: str = "EXECUTION") -> types.AttemptFailed:
    error = types.ErrorEnvelope(
        error_id="e", category=types.Category(category), severity=types.Severity.ERROR, code="handler_failed", message="no",
        retryable=retryable, contract_version=types.ContractVersion(major=1, minor=0, patch=0),
    )  # fmt: skip
    return types.AttemptFailed(header=header("AttemptFailed"), **ATTEMPT, error=error)


def succeeded(attempt_id: str = "a1") -> types.AttemptSucceeded:
    claim = types.Claim(
        subject="image:1", predicate="width", object=types.TypedValue(kind=types.ValueKind.NUMBER, text="5")
    )
    return types.AttemptSucceeded(
        header=header("AttemptSucceeded"), **(ATTEMPT | {"attempt_id": attempt_id}), result=types.Content(data=b"{}"),
        claims=(claim,), capability="image.thumbnail@1.2.0", runner_name="media",
    )  # fmt: skip


CANCEL = types.JobCancelRequested(header=header("JobCancelRequested"), job_id="j", reason="enough")
KILL = msgspec.structs.replace(CANCEL, kill=True)
STARTED = types.AttemptStarted(header=header("AttemptStarted"), **ATTEMPT)
GAVE_UP = types.AttemptCancelled(header=header("AttemptCancelled"), **ATTEMPT, reason="stopped")


@pytest.mark.parametrize(
    ("before", "event", "published", "after"),
    [
        (job(Phase.ROUTED), STARTED, [], Phase.RUNNING),
        (job(Phase.RUNNING), succeeded(), ["JobCompleted", "TruthAsserted", "TruthAsserted"], Phase.COMPLETED),
        (job(Phase.ROUTED), succeeded(), ["JobCompleted", "TruthAsserted", "TruthAsserted"], Phase.COMPLETED),
        (job(Phase.RUNNING), succeeded("a0"), ["ObservationRefused"], Phase.RUNNING),
        (job(Phase.COMPLETED), succeeded("a2"), ["ObservationRefused"], Phase.COMPLETED),
        (job(Phase.RUNNING), failed(), ["JobRetryScheduled"], Phase.RETRYING),
        (job(Phase.RUNNING, failures=2), failed(), ["JobFailed", "TruthAsserted"], Phase.FAILED),
        (job(Phase.RUNNING), failed(retryable=False), ["JobFailed", "TruthAsserted"], Phase.FAILED),
        (job(Phase.QUEUED), CANCEL, ["JobCancelled", "TruthAsserted"], Phase.CANCELLED),
        (job(Phase.RUNNING), CANCEL, ["AttemptRevoked"], Phase.RUNNING),
        (job(Phase.RUNNING), KILL, ["AttemptRevoked", "JobCancelled", "TruthAsserted"], Phase.CANCELLED),
        (job(Phase.RUNNING, cancel_reason="enough"), GAVE_UP, ["JobCancelled", "TruthAsserted"], Phase.CANCELLED),
        (job(Phase.RUNNING), GAVE_UP, ["AttemptLost", "JobRetryScheduled"], Phase.RETRYING),
        (job(Phase.COMPLETED), CANCEL, ["CommandRefused"], Phase.COMPLETED),
    ],
)  # fmt: skip
def test_what_follows_from_a_record(before: Job, event: Any, published: list[str], after: Phase) -> None:
    decision = DECIDERS[type(event)](before, event, context())
    assert names(decision) == published
    assert decision.job is not None
    assert decision.job.phase is after


def test_a_submission_is_accepted_into_its_queue() -> None:
    decision = submitted()
    assert names(decision) == ["JobAccepted"]
    assert decision.job is not None
    assert (decision.job.phase, decision.job.queue) == (
        Phase.QUEUED,
        '["default","image.thumbnail",1,"default",[],1]\n',
    )


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"job_type": "nothing.known"}, "job_type_unknown", "job_type"),
        ({"contract_major": 7}, "contract_version_unknown", "contract_major"),
        ({"payload": types.Content(data=b'{"width": "wide"}')}, "payload_invalid", "payload.width"),
        ({"payload": types.Content(data=b"{}")}, "payload_invalid", "payload"),
        ({"payload": types.Content(data=b"not json")}, "payload_invalid", "payload"),
    ],
)
def test_a_submission_that_nobody_can_run_is_rejected_by_name(changes: dict[str, Any], code: str, field: str) -> None:
    decision = submitted(**changes)
    rejected = decision.events[0]
    assert isinstance(rejected, types.JobRejected)
    assert (rejected.error.code, rejected.error.field) == (code, field)
    assert rejected.error.message.startswith("Expected ")
    assert decision.job is not None
    assert decision.job.phase is Phase.REJECTED


def test_the_same_submission_again_changes_nothing() -> None:
    first = submitted().job
    assert on_submitted(first, submission(), context(9, "controlplane.submissions")) == Decision(job=first)


def test_deciding_again_from_the_same_record_gives_the_same_bytes() -> None:
    for _ in range(2):
        decisions = [DECIDERS[types.AttemptFailed](job(Phase.RUNNING), failed(), context()) for _ in range(2)]
        assert decisions[0] == decisions[1]


def test_a_cancellation_that_is_decided_again_about_another_attempt_is_another_event() -> None:
    ids = set()
    for attempt_id in ("a1", "a2", "a1"):
        running = job(Phase.RUNNING, attempt_id=attempt_id)
        (revoked,) = DECIDERS[types.JobCancelRequested](running, CANCEL, context()).events
        assert isinstance(revoked, types.AttemptRevoked)
        ids.add(revoked.header.event_id)
    assert len(ids) == 2


def test_a_redelivered_conclusion_publishes_the_same_events_again() -> None:
    first = DECIDERS[types.AttemptSucceeded](job(Phase.RUNNING), succeeded(), context())
    assert first.job is not None
    again = DECIDERS[types.AttemptSucceeded](first.job, succeeded(), context())
    assert again.events == first.events


def test_leases_are_lost_apart_from_failures_and_not_for_ever() -> None:
    current, losses = job(Phase.RUNNING), 0
    while current.phase is not Phase.FAILED:
        decision = on_lost(current, "silent", context(losses + 10))
        assert decision.job is not None
        current = msgspec.structs.replace(
            decision.job, **({} if decision.job.concluded else {"phase": Phase.RUNNING, "attempt_id": f"a{losses}"})
        )
        losses += 1
    assert losses == current.retry.max_lost_attempts + 1
    assert current.failures == 0


@pytest.mark.parametrize(
    ("before", "now", "published", "after"),
    [
        (job(Phase.DELAYED, due_at=NOW), NOW, [], Phase.QUEUED),
        (job(Phase.RETRYING, due_at=NOW), NOW, [], Phase.QUEUED),
        (job(Phase.RETRYING, due_at=NOW + 1), NOW, [], Phase.RETRYING),
        (job(Phase.QUEUED, due_at=NOW), NOW, ["JobFailed", "TruthAsserted"], Phase.FAILED),
        (job(Phase.RUNNING), NOW + 31 * SECOND, ["AttemptRevoked", "JobRetryScheduled"], Phase.RETRYING),
        (
            job(Phase.RUNNING, cancel_reason="enough"),
            NOW + 31 * SECOND,
            ["AttemptRevoked", "JobCancelled", "TruthAsserted"],
            Phase.CANCELLED,
        ),
        (
            job(Phase.RUNNING, due_at=NOW, deadline=NOW),
            NOW,
            ["AttemptRevoked", "JobFailed", "TruthAsserted"],
            Phase.FAILED,
        ),
        (job(Phase.QUEUED, due_at=NOW, deadline=NOW), NOW, ["JobFailed", "TruthAsserted"], Phase.FAILED),
    ],
)
def test_what_follows_from_time(before: Job, now: int, published: list[str], after: Phase) -> None:
    decision = on_due(before, context(now=now))
    assert names(decision) == published
    assert decision.job is not None
    assert decision.job.phase is after


@pytest.mark.parametrize(("asked", "least"), [(5.0, 5), (float("nan"), 0), (-1.0, 0), (float("inf"), 86_400)])
def test_a_runner_may_ask_for_patience_but_not_for_nonsense(asked: float, least: int) -> None:
    error = msgspec.structs.replace(failed().error, retry_after_seconds=asked)
    decision = DECIDERS[types.AttemptFailed](
        job(Phase.RUNNING), msgspec.structs.replace(failed(), error=error), context()
    )
    assert decision.job is not None
    assert decision.job.phase is Phase.RETRYING
    assert NOW + least * SECOND <= (decision.job.due_at or 0) < 2**63


def test_a_silent_runner_that_returns_is_told_to_stop_what_was_taken_from_it() -> None:
    decision = on_lost(job(Phase.RUNNING), "silent", context())
    assert names(decision) == ["AttemptRevoked", "AttemptLost", "JobRetryScheduled"]


def test_the_limit_on_waiting_is_for_the_first_runner() -> None:
    first = job(Phase.DELAYED, due_at=NOW, queue_timeout_micros=2 * SECOND)
    later = msgspec.structs.replace(first, phase=Phase.RETRYING, attempt_number=1, failures=1)
    for waiting, due in ((first, NOW + 2 * SECOND), (later, None)):
        decision = on_due(waiting, context())
        assert decision.job is not None
        assert (decision.job.phase, decision.job.due_at) == (Phase.QUEUED, due)


def test_nobody_allows_what_the_author_of_a_job_type_forbids_to_repeat() -> None:
    retry = types.RetryPolicy(max_attempts=7, never_retry=(types.Category.EXECUTION,))
    capability = msgspec.structs.replace(RUNNER.capabilities[0], retry=retry)
    registry = Registry({"r1": msgspec.structs.replace(RUNNER, capabilities=(capability,))})
    asked = types.RetryPolicy(max_attempts=2, never_retry=(types.Category.TIMEOUT,))
    for given, attempts, never in (
        (None, 7, {types.Category.EXECUTION}), (asked, 2, {types.Category.EXECUTION, types.Category.TIMEOUT}),
    ):  # fmt: skip
        decision = on_submitted(None, submission(retry=given), msgspec.structs.replace(context(0), registry=registry))
        assert decision.job is not None
        assert (decision.job.retry.max_attempts, set(decision.job.retry.never_retry)) == (attempts, never)


def test_concluded_jobs_stay_concluded() -> None:
    events = (STARTED, succeeded("a9"), failed(), GAVE_UP, CANCEL, KILL)
    for phase in CONCLUDED:
        for event in events:
            decision = DECIDERS[type(event)](job(phase), event, context())
            assert decision.job is not None
            assert decision.job.phase is phase


def test_a_record_at_or_before_the_last_one_is_a_repeat() -> None:
    current = msgspec.structs.replace(job(Phase.RUNNING), last=context(7).cause.position)
    assert is_repeat(current, context(7))
    assert is_repeat(current, context(3))
    assert not is_repeat(current, context(8))


def test_an_observation_of_an_unknown_job_becomes_a_dead_letter() -> None:
    position = LogPosition(topic="controlplane.progress", partition=0, offset=3)
    consumed = Consumed(position=position, at=NOW, key=b"j", value=b"", event=STARTED)
    decided = decide_batch([consumed], {}, partition=0, registry=REGISTRY, producer=PRODUCER)
    assert [type(event) for event in decided.events] == [types.RecordRefused]


def test_what_time_brings_is_the_same_whenever_it_is_looked_at() -> None:
    delayed = job(Phase.DELAYED, due_at=NOW + SECOND, queue_timeout_micros=5 * SECOND)
    soon, late = (on_due(delayed, context(now=NOW + seconds * SECOND)) for seconds in (1, 60))
    assert soon == late
    assert soon.job is not None
    assert (soon.job.phase, soon.job.queued_at, soon.job.due_at) == (Phase.QUEUED, NOW + SECOND, NOW + 6 * SECOND)
