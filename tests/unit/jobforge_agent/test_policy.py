"""Who gets what: priority first, then age; the least loaded runner that can."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from controlplane.events.types import RetryPolicy
from controlplane.jobforge_agent.paces import Paces
from controlplane.jobforge_agent.policy import Candidate, Shares, Situation, least_loaded
from controlplane.jobforge_agent.retry import backoff_micros, jitter
from controlplane.jobforge_agent.state import Job
from controlplane.jobforge_agent.transitions import Phase
from tests.unit.jobforge_agent.test_decide import job

OFFERS = frozenset({("image.thumbnail", 1)})


def waiting(name: str, priority: int = 5, submitted_at: int = 0, slots: int = 1, **labels: str) -> Job:
    return msgspec.structs.replace(
        job(Phase.QUEUED),
        job_id=name,
        priority=priority,
        submitted_at=submitted_at,
        slots=slots,
        required_labels=labels,
    )


def runner(name: str, slots: int = 4, busy: int = 0, **labels: str) -> Candidate:
    return Candidate(runner_id=name, pool="default", slots=slots, busy=busy, labels=labels, offers=OFFERS)


def situation(jobs: list[Job], *runners: Candidate) -> Situation:
    return Situation(jobs=jobs, runners={one.runner_id: one for one in runners})


def routed(jobs: list[Job], *runners: Candidate) -> list[tuple[str, str]]:
    return [(one.job.job_id, one.runner_id) for one in least_loaded(situation(jobs, *runners))]


def test_critical_jobs_go_first_whatever_their_age() -> None:
    jobs = [waiting("old", 8, 0), waiting("critical", 9, 10**12)]
    assert routed(jobs, runner("r", slots=1)) == [("critical", "r")]


def test_age_outweighs_priority_in_the_end() -> None:
    jobs = [waiting("low", 4, 0), waiting("high", 5, 31_000_000)]
    assert routed(jobs, runner("r", slots=1)) == [("low", "r")]


def test_the_least_loaded_runner_is_chosen_and_gets_busier() -> None:
    jobs = [waiting(str(number), submitted_at=number) for number in range(4)]
    chosen = routed(jobs, runner("a", slots=4, busy=2), runner("b", slots=4))
    assert [name for _, name in chosen].count("b") == 3


def test_labels_and_slots_are_respected_and_refusals_said() -> None:
    found = least_loaded(situation([waiting("j", region="eu")], runner("us", region="us"), runner("eu", region="eu")))
    assert [one.runner_id for one in found] == ["eu"]
    assert found[0].refused[0].reason == "has no label region=eu"
    assert routed([waiting("j", slots=3)], runner("r", slots=4, busy=2)) == []


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 10**9)), max_size=30), st.integers(0, 12))
def test_capacity_is_never_exceeded_and_order_never_broken(shapes: list[tuple[int, int]], slots: int) -> None:
    jobs = [waiting(f"{number}", priority, age) for number, (priority, age) in enumerate(shapes)]
    chosen = least_loaded(situation(jobs, runner("r", slots=slots)))
    assert len(chosen) == min(slots, len(jobs))
    assert [one.job.score for one in chosen] == sorted(one.score for one in jobs)[: len(chosen)]


def of(tenant: str, name: str, submitted_at: int = 0, priority: int = 5) -> Job:
    return msgspec.structs.replace(waiting(name, priority, submitted_at), tenant=tenant)


def test_tenants_take_turns_by_weight_however_much_one_of_them_submitted_first() -> None:
    jobs = [of("big", f"b{number}", number) for number in range(30)]
    jobs += [of("small", f"s{number}", 100 + number) for number in range(30)]
    found = situation(jobs, runner("r", slots=12))
    found.weights = {"big": 2.0}
    chosen = [one.job.tenant for one in least_loaded(found)]
    assert (chosen.count("big"), chosen.count("small")) == (8, 4)


def test_a_tenant_that_rested_begins_at_the_present_turn() -> None:
    found = situation([of("a", "a1"), of("b", "b1", 1), of("b", "b2", 2)], runner("r", slots=2))
    found.shares = {"default": Shares(floor=10.0, used={"a": 11.0, "b": 3.0})}
    assert [one.job.job_id for one in least_loaded(found)] == ["b1", "a1"]


def test_critical_jobs_pass_the_turns_of_tenants() -> None:
    found = situation([of("a", "a1"), of("b", "urgent", 5, priority=9)], runner("r", slots=1))
    found.shares = {"default": Shares(floor=0.0, used={"b": 100.0})}
    assert [one.job.job_id for one in least_loaded(found)] == ["urgent"]


def test_a_limit_that_is_reached_lets_jobs_behind_it_pass() -> None:
    found = situation(
        [waiting("limited"), waiting("limited too", submitted_at=1), waiting("free", submitted_at=2)], runner("r")
    )
    found.limited_by = {"limited": ("key:a",), "limited too": ("key:a",)}
    found.allowances = {"key:a": 1}
    assert [one.job.job_id for one in least_loaded(found)] == ["limited", "free"]


def test_a_job_that_needs_much_room_is_not_starved_by_small_ones_behind_it() -> None:
    jobs = [waiting("large", submitted_at=0, slots=4), waiting("small", submitted_at=1)]
    assert routed(jobs, runner("r", slots=4, busy=2)) == []
    assert routed(jobs, runner("r", slots=4, busy=2), runner("other", slots=2)) == [("small", "other")]


def test_a_runner_behind_an_open_breaker_gets_nothing_and_the_reason_is_said() -> None:
    closed = runner("broken")
    closed.closed_to = "its circuit breaker is open"
    found = least_loaded(situation([waiting("j")], closed, runner("sound", busy=3)))
    assert [(one.runner_id, one.refused[0].reason) for one in found] == [("sound", "its circuit breaker is open")]


def test_slow_runners_get_less() -> None:
    slow, fast = runner("a-slow", slots=8), runner("b-fast", slots=8)
    slow.pace = 4.0
    chosen = routed([waiting(str(number), submitted_at=number) for number in range(10)], slow, fast)
    assert [name for _, name in chosen].count("b-fast") >= 7


@given(st.integers(1, 30), st.text(max_size=10))
def test_backoff_is_bounded_and_repeatable(failures: int, attempt_id: str) -> None:
    policy = RetryPolicy(initial_backoff_seconds=1.0, multiplier=2.0, max_backoff_seconds=60.0)
    delay = backoff_micros(policy, failures, attempt_id)
    assert delay == backoff_micros(policy, failures, attempt_id)
    assert 0 <= delay <= min(60, 2 ** (failures - 1)) * 1_000_000
    assert 0 <= jitter(attempt_id) < 1


def test_an_idle_runner_whose_attempt_took_too_long_is_not_given_the_next_one_again() -> None:
    paces = Paces()
    for name, micros in (("a", 1_000), ("b", 1_000), ("a", 20_000_000)):
        paces.take(name, "image.thumbnail", micros)
    runners = [msgspec.structs.replace(runner(name), pace=paces.of(name)) for name in "ab"]
    assert routed([waiting("next")], *runners) == [("next", "b")]
