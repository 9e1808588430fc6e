"""Scheduling under pressure as a user meets it: what goes first, what is held back, what is given up, and what is said about it."""

import os
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from controlplane.cli.stack import SystemStack
from controlplane.client import Client, JobHandle
from tests.acceptance.scheduling.looks import (
    MOST_IN_FLIGHT,
    WAIT_SECONDS,
    Busy,
    Paused,
    happened,
    routed_at,
    runs,
    waits,
)
from tests.acceptance.test_stack import command, until

pytestmark = pytest.mark.xdist_group("scheduling")


def in_order(client: Client, handles: list[JobHandle]) -> list[JobHandle]:
    """Return jobs in the order in which they were handed out, once all are concluded."""
    for handle in handles:
        assert handle.wait(WAIT_SECONDS).phase == "COMPLETED"
    moments = routed_at(client, handles)
    return [handle for _, handle in sorted(zip(moments, handles, strict=True), key=lambda pair: pair[0])]


# What goes first


def test_critical_jobs_go_first_then_by_priority_and_age_whatever_partition_they_are_in(client: Client) -> None:
    with Busy(client):
        priorities = [5, 0, 9, 5, 7, 9, 0, 7]
        handles = [client.submit("s.nap", {}, pool="narrow", priority=one) for one in priorities]
        for handle in handles:
            waits(handle, "it is full")
    expected = [handle for _, handle in sorted(zip(priorities, handles, strict=True), key=lambda pair: -pair[0])]
    assert in_order(client, handles) == expected


def test_tenants_take_turns_by_their_weights(client: Client) -> None:
    client.request("PUT", "/v1/shares/large", body={"weight": 3})
    with Busy(client):
        large = [client.submit("s.nap", {}, pool="narrow", tenant="large") for _ in range(9)]
        small = [client.submit("s.nap", {}, pool="narrow", tenant="small") for _ in range(9)]
        for handle in (large[-1], small[-1]):
            waits(handle, "it is full")
    first = in_order(client, large + small)[:8]
    assert len(set(first) & set(large)) == pytest.approx(6, abs=1)


def test_a_waiting_job_that_is_reprioritised_goes_first(client: Client) -> None:
    with Busy(client):
        one, other = (client.submit("s.nap", {}, pool="narrow") for _ in range(2))
        waits(other, "1 job of its kind before it")
        client.reprioritise(other.job_id, 9, "urgent")
        until(lambda: other.status().priority == 9)
    assert in_order(client, [one, other]) == [other, one]
    client.reprioritise(one.job_id, 9)
    assert until(lambda: happened(client, "CommandRefused", job_id=one.job_id))


def test_a_pool_that_is_paused_waits_and_goes_on(client: Client) -> None:
    with Paused(client, "pool:narrow"):
        handle = client.submit("s.nap", {}, pool="narrow")
        assert waits(handle, "paused") == "paused: pool:narrow (maintenance)"
    assert handle.wait(WAIT_SECONDS).phase == "COMPLETED"


# What is held back


def test_a_concurrency_limit_is_freed_when_the_worker_dies(stack: SystemStack, client: Client) -> None:
    options: dict[str, Any] = {"pool": "regions", "retry": {"max_lost_attempts": 100}}
    first = client.submit("s.hang_once", {}, required_labels={"region": "eu"}, concurrency_key="database", **options)
    assert runs(first)
    second = client.submit("s.nap", {}, concurrency_key="database", **options)
    assert waits(second, "held by") == "held by the limit key:default/database (1 of 1 running)"
    (limit,) = client.limits("key:default/database").limits
    assert (limit.max_running, limit.running, limit.queued, limit.declared) == (1, 1, 1, None)
    pid = stack.services["eu"].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert first.result(WAIT_SECONDS)["attempt"] >= 2
    assert second.wait(WAIT_SECONDS).phase == "COMPLETED"
    attempts = [one.phase for one in first.status().attempts]
    assert (attempts[0], attempts[-1]) == ("LOST", "SUCCEEDED")
    assert until(lambda: happened(client, "AlertRaised", kind="runner_lost"))


def test_a_rate_limit_holds_in_every_period_and_can_be_changed(client: Client) -> None:
    path = "/v1/limits/key:default/mail"
    client.request("PUT", path, body={"starts": 1, "period_seconds": 600})
    client.submit("s.nap", {}, rate_key="mail").wait(WAIT_SECONDS)
    handles = [client.submit("s.nap", {}, rate_key="mail") for _ in range(5)]
    said = waits(handles[-1], "held by the rate limit")
    assert said.startswith("held by the rate limit key:default/mail (1 of 1 starts in 600 s), next at ")
    client.request("PUT", path, body={"starts": 2, "period_seconds": 3})
    moments = routed_at(client, in_order(client, handles))
    # The store counts by its own clock, when a decision reaches it: events are a little earlier.
    assert all(later - early >= timedelta(seconds=1.5) for early, later in zip(moments, moments[2:], strict=False))
    (limit,) = client.limits("key:default/mail").limits
    assert (limit.starts, limit.period_seconds, limit.declared) == (2, 3, "key:default/mail")


def test_labels_choose_the_runner_and_slots_count(client: Client) -> None:
    options: dict[str, Any] = {"pool": "regions", "required_labels": {"region": "us"}}
    wide = client.submit("s.hang", {}, slots=2, **options)
    assert runs(wide)
    behind = client.submit("s.nap", {}, **options)
    assert waits(behind, "it is full").startswith("waiting for a runner with s.nap v1: 1 healthy, it is full")
    preferred = client.submit("s.nap", {}, pool="regions", preferred_labels={"region": "us"})
    assert preferred.wait(WAIT_SECONDS).attempts[0].runner_id.startswith("eu")
    too_wide = client.submit("s.nap", {}, slots=5, **options)
    assert "5 slots: the largest of 1 healthy has 2" in waits(too_wide, "slots")
    nowhere = client.submit("s.nap", {}, pool="regions", required_labels={"region": "mars"})
    assert "region=mars: 2 healthy, none with these labels" in waits(nowhere, "labels")
    wide.cancel()
    assert behind.wait(WAIT_SECONDS).attempts[0].runner_id.startswith("us")
    liked = client.submit("s.nap", {}, pool="regions", preferred_labels={"region": "us"})
    assert liked.wait(WAIT_SECONDS).attempts[0].runner_id.startswith("us")
    decision = happened(client, "JobRouted", job_id=behind.job_id)[0]["event"]
    assert "least loaded" in decision["reason"]
    assert any(one["reason"] == "has no label region=us" for one in decision["refused"])
    for one in (too_wide, nowhere):
        one.cancel()
        assert one.wait(WAIT_SECONDS).phase == "CANCELLED"


def test_a_pool_that_nobody_serves_is_named(client: Client) -> None:
    handle = client.submit("s.nap", {}, pool="deserted", timeouts={"queue_seconds": 2})
    said = waits(handle, "none is there")
    assert (
        said
        == "waiting for a runner with s.nap v1 in pool deserted: none is there; it is offered in pool default, narrow, regions"
    )
    failed = handle.wait(WAIT_SECONDS)
    assert failed.error is not None
    assert (failed.phase, failed.error["code"]) == ("FAILED", "queue_timed_out")


def test_a_job_behind_older_ones_says_how_many(client: Client) -> None:
    with Busy(client):
        behind = [client.submit("s.nap", {}, pool="narrow") for _ in range(4)]
        said = waits(behind[-1], "3 jobs")
    assert said == "waiting for a runner with s.nap v1: 1 healthy, it is full; 3 jobs of its kind before it"
    in_order(client, behind)


# Time


def test_a_delayed_job_says_until_when_and_runs_then(client: Client) -> None:
    when = datetime.now(UTC) + timedelta(seconds=3)
    handle = client.submit("s.nap", {}, not_before=when)
    assert waits(handle, "delayed") == f"delayed until {when:%Y-%m-%d %H:%M:%S} UTC"
    handle.wait(WAIT_SECONDS)
    assert routed_at(client, [handle])[0] >= when


def test_attempts_jobs_and_queues_end_when_their_time_is_over(client: Client) -> None:
    once = {"max_attempts": 1}
    attempt = client.submit("s.nap", {"seconds": 60}, timeouts={"attempt_seconds": 0.5}, retry=once)
    total = client.submit("s.nap", {"seconds": 60}, timeouts={"total_seconds": 1})
    late = client.submit("s.nap", {"seconds": 60}, deadline=datetime.now(UTC) + timedelta(seconds=1))
    codes = [(one.wait(WAIT_SECONDS).error or {})["code"] for one in (attempt, total, late)]
    assert codes == ["attempt_timed_out", "job_timed_out", "job_timed_out"]


def test_what_is_over_makes_room_for_the_next_job(client: Client) -> None:
    over = client.submit("s.nap", {"seconds": 60}, pool="narrow", timeouts={"total_seconds": 1})
    following = client.submit("s.nap", {}, pool="narrow", timeouts={"attempt_seconds": 20}, retry={"max_attempts": 1})
    assert following.result(WAIT_SECONDS) == {"attempt": 1}
    assert over.wait(WAIT_SECONDS).phase == "FAILED"


# Failures


def test_failures_are_repeated_when_that_can_help(client: Client) -> None:
    patient = client.submit("s.later", {"seconds": 1})
    final = client.submit("s.fail", {"final": True})
    twice = client.submit("s.fail", {}, retry={"max_attempts": 2, "initial_backoff_seconds": 0.1})
    assert patient.result(WAIT_SECONDS) == {"attempt": 2}
    one, other = sorted(
        datetime.fromisoformat(e["occurred_at"]) for e in happened(client, "JobRouted", job_id=patient.job_id)
    )
    assert other - one >= timedelta(seconds=1)
    assert [len(handle.wait(WAIT_SECONDS).attempts) for handle in (final, twice)] == [1, 2]


def test_a_retry_by_id_runs_a_waiting_job_now_and_a_failed_one_again(client: Client) -> None:
    patient = client.submit("s.later", {"seconds": 600})
    assert "after 1 attempt" in waits(patient, "retry at")
    client.request("POST", f"/v1/jobs/{patient.job_id}/retry", body={"reason": "it is up again"})
    assert patient.result(WAIT_SECONDS) == {"attempt": 2}
    failed = client.submit("s.fail", {"final": True})
    failed.wait(WAIT_SECONDS)
    client.request("POST", f"/v1/jobs/{failed.job_id}/retry")
    again = until(lambda: failed.status().retried_as)
    assert until(lambda: happened(client, "JobSubmitted", job_id=again))[0]["event"]["retry_of"] == failed.job_id
    assert client.handle(again).wait(WAIT_SECONDS).phase == "FAILED"


def why_it_waits(stack: SystemStack, handle: JobHandle) -> str:
    """Return what `controlplane job ID` says that a job waits for."""
    return str(command(stack, "job", handle.job_id)[1]["waiting_for"])


def test_a_breaker_opens_tries_again_and_closes(stack: SystemStack, client: Client) -> None:
    broken = [client.submit("s.downstream", {"down": True}, retry={"max_attempts": 1}) for _ in range(6)]
    for handle in broken:
        handle.wait(WAIT_SECONDS)
    until(lambda: happened(client, "BreakerChanged", subject="breaker:type:s.downstream", state="OPEN"))
    assert until(lambda: happened(client, "AlertRaised", kind="breaker_open"))
    trial = client.submit("s.downstream", {"down": True}, retry={"max_attempts": 100, "initial_backoff_seconds": 0})
    # Each time that it is tried it fails, and the breaker rests for twice as long: one rest is long enough to ask in.
    said = until(
        lambda: (why := why_it_waits(stack, trial)).startswith("the circuit breaker") and "open until" in why and why
    )
    assert said.startswith("the circuit breaker of s.downstream is open until ")
    assert said.endswith((" UTC: The trial failed.", " attempts failed because of it."))
    trial.cancel()
    sound = [client.submit("s.downstream", {"down": False}) for _ in range(3)]
    assert [handle.result(WAIT_SECONDS) for handle in sound] == [{"printed": True}] * 3

    def closes() -> Any:
        """Go on trying: a rest that began in between makes the trials begin anew."""
        client.submit("s.downstream", {"down": False}).result(WAIT_SECONDS)
        return happened(client, "BreakerChanged", subject="breaker:type:s.downstream", state="CLOSED")

    until(closes)
    events = happened(client, "BreakerChanged", subject="breaker:type:s.downstream")
    states = [one["event"]["state"] for one in events[::-1]]
    assert (states[:2], states[-1]) == (["OPEN", "HALF_OPEN"], "CLOSED")
    assert until(lambda: happened(client, "AlertCleared", kind="breaker_open"))


def test_a_job_that_takes_its_worker_down_fails_alone(client: Client) -> None:
    poison = client.submit("s.die", {}, retry={"max_attempts": 2, "initial_backoff_seconds": 0})
    others = [client.submit("s.nap", {}) for _ in range(5)]
    failed = poison.wait(WAIT_SECONDS)
    assert (failed.phase, len(failed.attempts), (failed.error or {})["code"]) == ("FAILED", 2, "runner_broken")
    assert [one.wait(WAIT_SECONDS).phase for one in others] == ["COMPLETED"] * 5


# Commands


def test_a_running_job_is_asked_to_stop_and_an_unreachable_one_is_killed(stack: SystemStack, client: Client) -> None:
    polite = client.submit("s.hang", {})
    assert runs(polite)
    polite.cancel("not needed")
    assert polite.wait(WAIT_SECONDS).phase == "CANCELLED"
    assert until(lambda: happened(client, "AttemptCancelled", job_id=polite.job_id))
    gone = client.submit(
        "s.hang_once", {}, pool="regions", required_labels={"region": "us"}, retry={"max_lost_attempts": 100}
    )
    assert runs(gone)
    pid = stack.services["us"].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        gone.cancel("now", kill=True)
        assert gone.wait(WAIT_SECONDS).phase == "CANCELLED"
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_tree_of_jobs_is_cancelled_as_a_whole(client: Client) -> None:
    parent = client.submit("s.parent", {})
    children = until(lambda: two(list(client.jobs(parent_job_id=parent.job_id))))
    assert {one.correlation_id for one in children} == {parent.acknowledgement.correlation_id}
    parent.cancel(tree=True)
    for job_id in (parent.job_id, *(one.job_id for one in children)):
        assert until(lambda one=job_id: client.job(one).phase == "CANCELLED")


def two(found: list[Any]) -> list[Any] | None:
    return found if len(found) == 2 else None


def test_many_jobs_are_commanded_by_a_query_that_the_server_runs(stack: SystemStack, client: Client) -> None:
    with Paused(client, "type:s.echo"):
        handles = [client.submit("s.echo", {}, tenant="bulk") for _ in range(20)]
        spared = client.submit("s.echo", {"spared": True})
        waits(handles[-1], "paused: type:s.echo")
        code, answer = command(stack, "bulk", "cancel", "--tenant", "bulk", "--job-type", "s.echo")
        assert (code, answer["matched"], answer["refused"]) == (0, 20, 0)
        assert {one.wait(WAIT_SECONDS).phase for one in handles} == {"CANCELLED"}
    assert spared.result(WAIT_SECONDS) == {"spared": True}


# Backpressure


def test_too_much_work_is_refused_by_name_while_what_runs_goes_on(stack: SystemStack, client: Client) -> None:
    running = client.submit("s.nap", {"seconds": 2})
    assert runs(running)
    with Paused(client, "type:s.echo"):
        jobs = [{"job_type": "s.echo", "payload": {}, "tenant": "crowd"} for _ in range(MOST_IN_FLIGHT)]
        client.submit_many(jobs)
        refusal = until(lambda: refused(stack))
        assert int(refusal.headers["retry-after"]) >= 1
        problem = refusal.json()
        assert (problem["code"], problem["field"]) == ("overloaded", "in_flight")
        assert f"at most {MOST_IN_FLIGHT} jobs in flight" in problem["message"]
        assert running.wait(WAIT_SECONDS).phase == "COMPLETED"
        assert until(lambda: happened(client, "AlertRaised", kind="admission_closed"))
        client.request("POST", "/v1/bulk", body={"action": "cancel", "tenant": "crowd"})
    until(lambda: refused(stack) is None)
    assert until(lambda: happened(client, "AlertCleared", kind="admission_closed"))


def refused(stack: SystemStack) -> httpx.Response | None:
    """Submit once; returns the refusal, if it is one."""
    job = {"job_type": "s.nap", "payload": {}}
    answer = httpx.post(f"{stack.gateway_url}/v1/jobs", json=job, verify=stack.verification())
    return answer if answer.status_code == 503 else None


# Schedules


def test_a_schedule_submits_at_its_times_in_its_zone(client: Client) -> None:
    fired = until(lambda: (found := happened(client, "ScheduleFired"))[2:] and found)
    (schedule,) = client.request("GET", "/v1/schedules")["schedules"]
    assert (schedule["schedule_id"], schedule["time_zone"]) == ("every-two-seconds", "Asia/Tokyo")
    assert all(one.endswith("+09:00") for one in schedule["next_at"])
    due = list({one["event"]["header"]["event_id"]: one["event"]["due_at"] for one in fired}.values())
    assert all(moment % 2_000_000 == 0 for moment in due)
    assert len(set(due)) == len(due)
    jobs = [one["event"]["job_id"] for one in fired if one["event"]["job_id"]]
    assert client.handle(jobs[-1]).wait(WAIT_SECONDS).phase == "COMPLETED"
    client.request("DELETE", "/v1/schedules/every-two-seconds")
    assert client.request("GET", "/v1/schedules")["schedules"] == []
