"""What handlers say: held to what can stand on the log, the same in every attempt."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api.models import JobRequest
from controlplane.events.types import Claim, LogPosition, TypedValue, ValueKind
from controlplane.runner import ClaimInvalid, JobContext, NonRetryable, Reference
from controlplane.runner.reports import JobFacts, Progressed, Report, Submitted

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def context(said: list[Report] | None = None, *, job_id: str = "job-1", attempt: int = 1) -> JobContext:
    facts = JobFacts(
        job_id=job_id, job_type="t", attempt_id=f"lease-{attempt}", attempt_number=attempt, correlation_id="chain", tenant="acme",
        pool="gpu", priority=7,
    )  # fmt: skip
    kept = [] if said is None else said

    def receive(report: Report) -> None:
        kept.append(report)

    return JobContext(facts, receive)


def test_a_handler_knows_its_job() -> None:
    job = context(attempt=2)
    assert (job.job_id, job.job_type, job.attempt_id, job.attempt_number) == ("job-1", "t", "lease-2", 2)
    assert (job.correlation_id, job.tenant, job.log.name) == ("chain", "acme", "job.t")


@pytest.mark.parametrize(
    ("value", "options", "expected"),
    [
        ("640", {}, TypedValue(kind=ValueKind.STRING, text="640")),
        (640, {"unit": "px"}, TypedValue(kind=ValueKind.NUMBER, text="640", number=640.0, unit="px")),
        (True, {}, TypedValue(kind=ValueKind.BOOLEAN, text="true")),
        (NOON, {}, TypedValue(kind=ValueKind.INSTANT, text="2026-01-01T12:00:00Z")),
        (Reference("module:json"), {}, TypedValue(kind=ValueKind.REFERENCE, text="module:json")),
        ("module:json", {"kind": ValueKind.REFERENCE}, TypedValue(kind=ValueKind.REFERENCE, text="module:json")),
        ({"a": [1]}, {}, TypedValue(kind=ValueKind.JSON, text='{"a":[1]}')),
    ],
)
def test_a_claim_takes_values_of_every_kind(value: object, options: dict[str, Any], expected: TypedValue) -> None:
    job = context()
    job.claim("s", "p", value, 0.5, **options)
    assert job.claims == (Claim(subject="s", predicate="p", object=expected, confidence=0.5),)


def test_a_claim_says_when_it_holds_and_what_it_rests_on() -> None:
    job = context()
    inputs: list[str | LogPosition] = ["an assertion", LogPosition(topic="t", partition=1, offset=2)]
    job.claim("s", "p", 1, valid_from=NOON, valid_to=NOON.replace(hour=13), inputs=inputs)
    [claim] = job.claims
    assert (claim.valid_from, claim.valid_to) == (1_767_268_800_000_000, 1_767_272_400_000_000)
    assert claim.inputs == ("an assertion", "t/1/2")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("", "p", 1), {}, "Expected a subject of 1 to 512 characters, but found ''"),
        (("s" * 513, "p", 1), {}, "Expected a subject"),
        (("s", "", 1), {}, "Expected a predicate"),
        ((5, "p", 1), {}, "Expected a subject of 1 to 512 characters, but found 5"),
        (("s", "p", 1, 1.1), {}, r"Expected a confidence in \[0, 1\] for p, but found 1.1"),
        (("s", "p", 1, float("nan")), {}, "but found nan"),
        (("s", "p", 1, "high"), {}, "but found 'high'"),
        (("s", "p", object()), {}, "p of s: Expected text, a number"),
        (("s", "p", "x"), {"unit": "m"}, "Expected a unit only with a number"),
        (("s", "p", 1), {"valid_from": datetime(2026, 1, 1)}, "Expected valid_from with a time zone"),  # noqa: DTZ001
        (("s", "p", 1), {"valid_from": NOON, "valid_to": NOON}, "Expected p to hold for some time"),
    ],
)
def test_what_cannot_be_an_assertion_is_refused_in_words(
    arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    job = context()
    with pytest.raises(ClaimInvalid, match=message):
        job.claim(*arguments, **options)
    assert job.claims == ()


def test_the_number_of_claims_is_bounded() -> None:
    job = context()
    for number in range(10_000):
        job.claim("s", "p", number)
    with pytest.raises(ClaimInvalid, match="Expected at most 10000 claims"):
        job.claim("s", "p", 0)


async def test_progress_may_be_awaited_or_not() -> None:
    said: list[Report] = []
    job = context(said)
    job.progress(0.25, "x" * 2_000)
    await job.progress(1)
    assert said == [Progressed(fraction=0.25, message="x" * 1_000), Progressed(fraction=1.0, message="")]
    for wrong in (-0.1, 1.1, float("nan"), "half"):
        with pytest.raises(NonRetryable, match=r"Expected progress in \[0, 1\]"):
            job.progress(wrong)  # type: ignore[arg-type]


@given(st.lists(st.none() | st.text(max_size=5), max_size=8), st.integers(0, 8))
def test_an_attempt_that_runs_again_submits_the_same_children(keys: list[str | None], reached: int) -> None:
    """However far the first attempt came, its children are the first of the second's."""

    def children(job: JobContext, wanted: list[str | None]) -> list[str]:
        return [job.submit("part", key=key).job_id for key in wanted]

    whole = children(context(attempt=2), keys)
    assert children(context(attempt=1), keys[:reached]) == whole[:reached]
    named = [key for key in keys if key is not None]
    assert len(set(whole)) == keys.count(None) + len(set(named))
    assert set(children(context(job_id="job-2"), keys)).isdisjoint(whole)


def test_a_child_inherits_what_is_not_said() -> None:
    said: list[Report] = []
    job = context(said)
    child = job.submit("part", {"n": 1})
    job.submit("part", None, pool="cpu", priority=1, timeouts={"total_seconds": 5})
    first, second = said
    assert isinstance(first, Submitted)
    assert isinstance(second, Submitted)
    assert (first.job_id, first.payload) == (child.job_id, b'{"n":1}')
    request, other = JobRequest.model_validate_json(first.request), JobRequest.model_validate_json(second.request)
    assert (request.job_type, request.pool, request.priority, request.retry) == ("part", "gpu", 7, None)
    assert (other.pool, other.priority, other.timeouts and other.timeouts.total_seconds) == ("cpu", 1, 5)


def test_a_child_that_cannot_be_is_refused_in_words() -> None:
    job = context()
    with pytest.raises(NonRetryable, match="priority"):
        job.submit("part", priority=11)
    with pytest.raises(NonRetryable, match="Expected no secret for a child job"):
        job.submit("part", {"iban": "DE"}, secret="customer-17")  # type: ignore[call-arg]
    with pytest.raises(NonRetryable, match="Expected a child job"):
        job.submit("part", object())


def test_a_handler_that_was_asked_to_stop_can_see_it() -> None:
    job = context()
    job.raise_if_cancelled()
    before = job.cancelled
    job.stop("not needed")
    assert (before, job.cancelled) == (False, True)
    with pytest.raises(asyncio.CancelledError, match="not needed"):
        job.raise_if_cancelled()
    with pytest.raises(asyncio.CancelledError, match="not needed"):
        job.submit("part")
