"""Where there are more lanes than are looked into at once, those are chosen that the policy would have come to first."""

from typing import Any
from unittest.mock import patch

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from controlplane.events.controls import Controls
from controlplane.jobforge_agent import lanes, rules
from controlplane.jobforge_agent.policy import Assignment, Candidate, Shares, Situation, least_loaded
from controlplane.jobforge_agent.state import Job, Lane
from controlplane.jobforge_agent.transitions import Phase
from tests.unit.jobforge_agent.test_decide import NOW, RUNNER, job

KINDS = ("light", "heavy", "both")
HEAVY, LIGHT, BOTH = (frozenset({(one, 1), ("both", 1)}) for one in ("heavy", "light", "both"))


def waiting(name: str, kind: str = "light", at: int = NOW, **changes: Any) -> Job:
    fields = {"job_id": name, "job_type": kind, "submitted_at": at, "tenant": name} | changes
    return msgspec.structs.replace(job(Phase.QUEUED), **fields)


def runner(name: str, slots: int, busy: int = 0, offers: frozenset[tuple[str, int]] = LIGHT, **more: Any) -> Candidate:
    fields = {"pool": "default", "labels": {}} | more
    return Candidate(runner_id=name, slots=slots, busy=busy, offers=offers, **fields)


def heads_of(jobs: list[Job]) -> dict[str, float]:
    heads: dict[str, float] = {}
    for one in jobs:
        heads[one.lane_name] = min(one.score, heads.get(one.lane_name, one.score))
    return heads


def looked_at(jobs: list[Job], runners: list[Candidate], shares: dict[str, Shares] | None = None) -> lanes.Look:
    turns = lanes.in_turn(heads_of(jobs), shares or {}, NOW)
    return lanes.look(turns, {one.runner_id: msgspec.structs.replace(one) for one in runners})


def test_a_lane_that_no_runner_is_large_enough_for_may_not_route() -> None:
    offers = {"r1": rules.offers(RUNNER)}
    lane = Lane(pool="default", job_type="image.thumbnail", contract_major=1, tenant="t", slots=RUNNER.slots)
    too_large = msgspec.structs.replace(lane, slots=RUNNER.slots + 1)
    assert rules.may_route(lane, Controls(), {"r1": RUNNER}, offers)
    assert not rules.may_route(too_large, Controls(), {"r1": RUNNER}, offers)


def test_lanes_that_wait_for_a_full_runner_hide_nobody() -> None:
    heavy = [waiting(f"heavy{number:02}", "heavy") for number in range(70)]
    light = waiting("light")
    found = looked_at([*heavy, light], [runner("full", 1, 1, HEAVY), runner("idle", 4)], {"default": had("light", 5.0)})
    assert found.open == [light.lane_name]
    assert not found.holding  # A full runner is nothing to hold.
    assert light.lane_name in next(found.portions())


def test_lanes_that_compete_for_the_last_slot_hide_nobody() -> None:
    heavy = [waiting(f"heavy{number:02}", "heavy") for number in range(70)]
    light = waiting("light")
    found = looked_at([*heavy, light], [runner("one", 2, 1, HEAVY), runner("idle", 4)], {"default": had("light", 5.0)})
    assert found.open == [heavy[0].lane_name, light.lane_name]
    assert found.crowded == [one.lane_name for one in heavy[1:]]


def test_whoever_needs_much_room_is_looked_at_with_those_that_find_some() -> None:
    large = waiting("large", at=NOW - 1, slots=4)
    small = [waiting(f"small{number:02}") for number in range(70)]
    runners = [runner("half", 4, 2)]
    found = looked_at([*small, large], runners)
    assert found.holding == [large.lane_name]
    assert not found.open  # Its runner is held for it.
    assert next(found.portions())[0] == large.lane_name


def test_pools_take_turns() -> None:
    shares = {"other": Shares(floor=1e6), "default": Shares()}
    ours = [waiting(f"ours{number}") for number in range(3)]
    theirs = [waiting(f"theirs{number}", pool="other") for number in range(3)]
    turns = [rules.lane_named(name).pool for name in lanes.in_turn(heads_of([*ours, *theirs]), shares, NOW)]
    assert sorted(turns[:2]) == sorted(turns[2:4]) == ["default", "other"]


def test_critical_lanes_are_first_and_go_by_age() -> None:
    jobs = [waiting("had", priority=9, at=NOW - 2), waiting("late", priority=9, at=NOW - 1), waiting("old", at=0)]
    turns = lanes.in_turn(heads_of(jobs), {"default": had("had", 50.0)}, NOW)
    assert turns == [one.lane_name for one in jobs]


def test_nothing_passes_older_work_that_was_not_looked_at() -> None:
    passed = waiting("passed", "both", at=1, tenant="t")
    first, late = waiting("first", at=0, tenant="t"), waiting("late", at=2, tenant="t")
    stranger = waiting("stranger", at=3, tenant="other")
    chosen = [Assignment(job=one, runner_id="r", reason="", refused=()) for one in (first, late, stranger)]
    found = lanes.in_order(chosen, heads_of([passed]), {"r": runner("r", 4)}, NOW)
    assert [one.job.job_id for one in found] == ["first", "stranger"]


def had(tenant: str, used: float) -> Shares:
    return Shares(used={tenant: used})


SITUATIONS = st.fixed_dictionaries(
    {
        "jobs": st.lists(
            st.tuples(st.sampled_from(KINDS), st.integers(0, 5), st.sampled_from((1, 1, 2, 4)), st.sampled_from((1, 5, 9))),
            min_size=1, max_size=24,
        ),
        "runners": st.lists(
            st.tuples(st.integers(1, 4), st.integers(0, 4), st.sampled_from((HEAVY, LIGHT, BOTH))), min_size=1, max_size=4
        ),
        "used": st.lists(st.sampled_from((0.0, 1.5, 3.25)), min_size=6, max_size=6),
    }
)  # fmt: skip


@given(SITUATIONS)
def test_what_the_policy_would_do_first_of_all_lanes_it_does_of_those(drawn: dict[str, Any]) -> None:
    jobs = [
        waiting(f"job{number}", kind, at=NOW + number, tenant=f"tenant{tenant}", slots=slots, priority=priority)
        for number, (kind, tenant, slots, priority) in enumerate(drawn["jobs"])
    ]
    runners = [
        runner(f"runner{number}", slots, min(busy, slots), offers)
        for number, (slots, busy, offers) in enumerate(drawn["runners"])
    ]
    shares = {"default": Shares(used={f"tenant{number}": used for number, used in enumerate(drawn["used"])})}

    def assigned(some: list[Job]) -> list[tuple[str, str]]:
        copies = {one.runner_id: msgspec.structs.replace(one) for one in runners}
        return [
            (one.job.job_id, one.runner_id) for one in least_loaded(Situation(jobs=some, runners=copies, shares=shares))
        ]

    whole = assigned(jobs)
    found = looked_at(jobs, runners, shares)
    with patch.object(lanes, "LANES_AT_ONCE", 1):
        names = next(found.portions(), [])
    portion = assigned([one for one in jobs if one.lane_name in names])
    assert portion[:1] == whole[:1]
