"""A replay keeps the rules, is the same again, and differs in nothing under the same policy; a better policy is seen to be better."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.cli.whatif import moment_of, plot
from controlplane.events import types
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant
from controlplane.events.types import LogPosition, Producer
from controlplane.jobforge_agent.policy import Assignment, Situation, least_loaded
from controlplane.jobforge_agent.state import SECOND
from controlplane.jobforge_agent.whatif.compare import compare, waits_of
from controlplane.jobforge_agent.whatif.reading import Recording
from controlplane.jobforge_agent.whatif.replay import Run, replay
from controlplane.jobforge_agent.whatif.scenario import Presence, RecordedAttempt, RecordedJob, Scenario

PRODUCER = Producer(service="test", version="0")
BEGIN = 1_000_000 * SECOND


def header(name: str, tenant: str = "default") -> types.EventHeader:
    return outside_header(name, name, PRODUCER, Instant(BEGIN), tenant=tenant)


def runner(name: str, slots: int = 2, **labels: str) -> types.RunnerRegistered:
    return types.RunnerRegistered(
        header=header("RunnerRegistered"), runner_id=f"{name}@1", name=name, slots=slots, labels=labels, inbox_partition=0,
        capabilities=(types.Capability(job_type="t", version="1.0.0"),), heartbeat_seconds=2.0,
    )  # fmt: skip


def there(one: types.RunnerRegistered, begin: float = 0, end: float | None = None) -> Presence:
    return Presence(
        runner=one, begin=BEGIN + int(begin * SECOND), end=None if end is None else BEGIN + int(end * SECOND)
    )


def job(number: int, at: float, *, seconds: float = 1.0, on: str = "a", **options: Any) -> RecordedJob:
    tenant = options.pop("tenant", "default")
    event = types.JobSubmitted(
        header=header("JobSubmitted", tenant), job_id=f"j{number:03}", job_type="t", payload=types.Content(data=b"{}"), **options
    )  # fmt: skip
    attempt = RecordedAttempt(runner_name=on, micros=int(seconds * SECOND), succeeded=True)
    place = LogPosition(topic="controlplane.submissions", partition=0, offset=number)
    return RecordedJob(submitted=event, position=place, at=BEGIN + int(at * SECOND), attempts=(attempt,))


def scenario(jobs: list[RecordedJob], *presences: Presence, controls: tuple[Any, ...] = ()) -> Scenario:
    timed = tuple((BEGIN, one) for one in controls)
    return Scenario(begin=BEGIN, end=BEGIN + 3600 * SECOND, jobs=tuple(jobs), presences=presences, controls=timed)


def newest_first(situation: Situation) -> list[Assignment]:
    """Give the newest job to the first runner, or to the second if it has no room: unfair, and no respect for limits."""
    found = []
    for one in sorted(situation.jobs, key=lambda job: -job.score):
        for name, candidate in list(situation.runners.items())[:2]:
            if candidate.busy + one.slots <= candidate.slots:
                candidate.busy += one.slots
                found.append(Assignment(job=one, runner_id=name, reason="newest first", refused=()))
                break
    return found


shapes = st.lists(
    st.tuples(
        st.floats(0, 20), st.floats(0.01, 5), st.integers(0, 9), st.sampled_from(["acme", "umbrella"]), st.integers(1, 2),
        st.sampled_from([None, "key"]), st.sampled_from(["a", "b"]),
    ), max_size=25,
)  # fmt: skip


def drawn(found: list[tuple[float, float, int, str, int, str | None, str]]) -> Scenario:
    jobs = [
        job(number, at, seconds=seconds, priority=priority, tenant=tenant, slots=slots, concurrency_key=key, on=on)
        for number, (at, seconds, priority, tenant, slots, key, on) in enumerate(found)
    ]
    return scenario(jobs, there(runner("a")), there(runner("b", slots=3), 2, 12), there(runner("a2"), 9))


@settings(max_examples=40)
@given(shapes)
def test_the_same_policy_differs_in_nothing_and_again_is_the_same(found: Any) -> None:
    played = drawn(found)
    one, other = replay(played, least_loaded), replay(played, least_loaded)
    assert one == other
    verdict = compare(played, one, other)
    assert (verdict.differing, verdict.differences) == (0, ())
    assert all(both.recorded == both.other for both in verdict.waits)
    assert all(used.recorded == used.other for used in verdict.utilisation)


@settings(max_examples=40)
@given(shapes)
def test_whatever_the_policy_every_job_ends_once_and_no_rule_is_broken(found: Any) -> None:
    played = drawn(found)
    for policy in (least_loaded, newest_first):
        run = replay(played, policy)
        assert set(run.concluded) == {one.submitted.job_id for one in played.jobs}
        assert_rules(played, run)


def assert_rules(played: Scenario, run: Run) -> None:
    """Check from the decisions alone that slots and the concurrency key are never exceeded."""
    spans = []
    presence = {one.runner.runner_id: one for one in played.presences}
    recorded = {one.submitted.job_id: one for one in played.jobs}
    for one in run.decided:
        took = max(1, played.micros_on(recorded[one.job_id], 0, one.runner_name))
        left = presence[one.runner_id].end
        spans.append((one.at, min(one.at + took, left or one.at + took), one))
    for at, _, _ in spans:
        now = [one for begin, end, one in spans if begin <= at < end]
        for runner_id, there_now in presence.items():
            taken = sum(run.jobs[one.job_id].slots for one in now if one.runner_id == runner_id)
            assert taken <= there_now.runner.slots
        keyed = [one for one in now if run.jobs[one.job_id].concurrency_key]
        assert len({(run.jobs[one.job_id].tenant, one.job_id) for one in keyed}) <= 2  # One of each tenant.


def test_a_worse_policy_is_seen_to_be_worse() -> None:
    jobs = [job(number, 0.1 * number, seconds=1) for number in range(12)] + [job(50, 0, seconds=1, priority=9)]
    played = scenario(jobs, *(there(runner(name, slots=1)) for name in "abc"))
    verdict = compare(played, replay(played, least_loaded), replay(played, newest_first))
    everyone = next(one for one in verdict.waits if one.tenant == "(all)")
    critical = next(one for one in verdict.waits if one.priority_class == "critical")
    assert everyone.other.longest > everyone.recorded.longest
    assert critical.recorded.mean == 0
    assert verdict.differing > 0
    assert [one.other for one in verdict.utilisation if one.runner == "c"] == [0.0]
    assert "other policy" in plot(verdict)


def test_a_runner_that_leaves_loses_its_attempts_and_others_take_them() -> None:
    played = scenario([job(1, 0, seconds=10)], there(runner("a", slots=1), 0, 5), there(runner("b", slots=1), 3))
    run = replay(played, least_loaded)
    assert [(one.attempt_number, one.runner_name) for one in run.decided] == [(1, "a"), (2, "b")]
    assert run.concluded["j001"] == BEGIN + 15 * SECOND


def test_limits_pauses_and_failures_are_replayed_as_declared() -> None:
    limit = types.LimitDeclared(header=header("LimitDeclared"), subject="type:t", starts=1, period_seconds=10.0)
    failing = job(1, 0, seconds=1)
    retried = RecordedAttempt(runner_name="a", micros=SECOND, succeeded=False, retry_micros=3 * SECOND)
    failing = msgspec.structs.replace(failing, attempts=(retried, *failing.attempts))
    played = scenario([failing, job(2, 0.5)], there(runner("a", slots=4)), controls=(limit,))
    moments = {
        (one.job_id, one.attempt_number): (one.at - BEGIN) / SECOND for one in replay(played, least_loaded).decided
    }
    assert moments == {("j001", 1): 0.0, ("j001", 2): 10.0, ("j002", 1): 20.0}
    paused = types.PauseDeclared(header=header("PauseDeclared"), subject="type:t", paused=True)
    assert replay(scenario([job(1, 0)], there(runner("a")), controls=(paused,)), least_loaded).decided == []


def test_attempts_take_as_long_as_the_runner_is_slow() -> None:
    jobs = [job(number, number, seconds=1, on="fast") for number in range(3)]
    jobs += [job(number, number, seconds=4, on="slow") for number in range(3, 6)]
    played = scenario(jobs)
    assert played.micros_on(jobs[0], 0, "slow") == 4 * SECOND
    assert played.micros_on(jobs[3], 0, "fast") == SECOND
    assert played.micros_on(jobs[0], 0, "unknown") == SECOND


def test_records_become_a_scenario() -> None:
    recording = Recording(BEGIN, BEGIN + 100 * SECOND, lease_seconds=6.0)
    attempt: dict[str, Any] = {"job_id": "j001", "attempt_id": "x", "attempt_number": 1, "runner_id": "a@1"}
    routed = types.JobRouted(
        header=header("JobRouted"), job_type="t", contract_major=1, payload=types.Content(), pool="default", priority=5,
        job_partition=0, lease_seconds=6.0, queued_at=0, **attempt,
    )  # fmt: skip
    done = types.AttemptSucceeded(
        header=header("AttemptSucceeded"), result=types.Content(), capability="t@1.0.0", runner_name="a", **attempt
    )
    accepted = types.JobAccepted(header=header("JobAccepted"), job_id="j001", job_type="t", pool="default", priority=5)
    beat = types.RunnerHeartbeat(header=header("RunnerHeartbeat"), runner_id="a@1", sequence=1, attempt_ids=())
    for at, event in ((-5, runner("a")), (6, beat), (1, job(1, 1).submitted), (2, routed), (7, done), (1, accepted)):
        recording.take(event, LogPosition(topic="t", partition=0, offset=0), BEGIN + at * SECOND)
    found = recording.scenario()
    assert [(one.at - BEGIN, one.attempts[0].micros) for one in found.jobs] == [(SECOND, 5 * SECOND)]
    assert [one.runner.name for one in found.presences] == ["a"]
    run = replay(found, least_loaded)
    verdict = compare(found, run, run)
    assert (verdict.fidelity.first_attempts, verdict.fidelity.same_runner) == (1, 1.0)


def test_moments_and_percentiles() -> None:
    from datetime import UTC, datetime, timedelta

    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert moment_of("-15m", now) == now - timedelta(minutes=15)
    assert moment_of("2026-01-01T00:00:00Z", now) == now - timedelta(days=1)
    found = waits_of([one * SECOND for one in range(1, 101)])
    assert (found.p50, found.p95, found.longest, found.mean) == (50.0, 95.0, 100.0, 50.5)
