"""What may be routed whatever the policy: what nobody saw is not passed."""

from typing import Any

import msgspec

from controlplane.events.controls import Limit
from controlplane.jobforge_agent.policy import Assignment
from controlplane.jobforge_agent.rules import Limits, in_sight
from controlplane.jobforge_agent.state import Job
from tests.unit.jobforge_agent.test_policy import waiting

KEYED: Limits = (("key:t/k", Limit(max_running=1)),)


def given(*jobs: Job) -> list[Assignment]:
    return [Assignment(job=one, runner_id="r", reason="", refused=()) for one in jobs]


def of(number: int, **changes: Any) -> Job:
    """Return a job that was submitted as the so-manieth."""
    return msgspec.structs.replace(waiting(f"job{number}", submitted_at=number * 1_000_000), **changes)


def test_what_is_fresher_than_what_a_stopped_key_may_hide_waits_for_the_next_look() -> None:
    stopped, other, fresher = of(1), of(2, job_type="another"), of(9, job_type="another")
    foreign = of(8, job_type="another", tenant="other")
    seen = [stopped, other, fresher, foreign]
    limits = {stopped.job_id: KEYED}
    # One job of each lane was seen: behind the first, older ones than the last may wait.
    assert in_sight(given(fresher, foreign), seen, limits, {"key:t/k": 0}, 1) == given(foreign)
    # All of its lane was seen, or the limit does not stop it: nothing is hidden.
    assert in_sight(given(fresher, foreign), seen, limits, {"key:t/k": 0}, 2) == given(fresher, foreign)
    assert in_sight(given(fresher, foreign), seen, limits, {"key:t/k": 1}, 1) == given(fresher, foreign)


def test_the_first_that_takes_the_last_place_of_a_key_goes_and_what_it_hides_is_not_passed() -> None:
    first, second, fresher = of(1), of(2), of(9, job_type="another")
    limits = {first.job_id: KEYED, second.job_id: KEYED}
    assert in_sight(given(first, fresher), [first, second, fresher], limits, {"key:t/k": 1}, 2) == given(first)


def test_hidden_critical_jobs_are_passed_by_nobody() -> None:
    stopped = of(1, priority=9)
    foreign = of(2, job_type="another", tenant="other")
    assert in_sight(given(foreign), [stopped, foreign], {stopped.job_id: KEYED}, {"key:t/k": 0}, 1) == []
