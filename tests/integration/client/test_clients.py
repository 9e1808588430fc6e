"""The clients against the whole system: one job, many jobs, truths, causes, refusals."""

import time
import uuid
from collections.abc import Iterator

import pytest

from controlplane.api.models import CausationNode, Phase
from controlplane.cli.stack import SystemStack
from controlplane.client import AsyncClient, Client, ControlPlaneError, JobHandle, LogClient
from controlplane.events.catalog import Service
from controlplane.settings import Settings
from tests.integration.client.handlers import Width

WAIT_SECONDS = 60.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemStack]:
    """The whole system, with a runner that JobForge knows."""
    with SystemStack(Settings(), tmp_path_factory.mktemp("stack"), free_ports=True) as running:
        running.add_runner("runner", "tests.integration.client.handlers:runner")
        with running.client() as client:
            give_up_at = time.monotonic() + WAIT_SECONDS
            while client.submit("measure", {"image": "probe", "width": 1}).wait(WAIT_SECONDS).phase is Phase.REJECTED:
                assert time.monotonic() < give_up_at, "Expected the runner to register, but jobs are still rejected."
        yield running


@pytest.fixture
def client(stack: SystemStack) -> Iterator[Client]:
    with stack.client() as client:
        yield client


def name() -> str:
    return f"n{uuid.uuid4().hex[:8]}"


def test_a_job_is_followed_from_its_submission_to_its_truth(client: Client) -> None:
    image = name()
    handle = client.submit("measure", Width(image=image, width=64), priority=7, correlation_id=f"chain-{image}")
    kinds = [event.event_type for event in handle.events()]
    assert kinds[0] == "JobSubmitted"
    assert {
        "JobAccepted", "JobRouted", "AttemptStarted", "AttemptProgressed", "AttemptSucceeded", "JobCompleted"
    } < set(kinds)  # fmt: skip
    assert handle.result(as_type=Width) == Width(image=image, width=64)
    job = handle.status()
    assert (job.phase, job.priority, job.correlation_id) == (Phase.COMPLETED, 7, f"chain-{image}")
    completed = [event for event in handle.events(follow=False) if event.event_type == "JobCompleted"]
    truths = client.truths(f"image:{image}", min_position=completed[0].position)
    give_up_at = time.monotonic() + WAIT_SECONDS
    while not truths and time.monotonic() < give_up_at:  # The truth follows its conclusion on another topic.
        truths = client.truths(f"image:{image}")
    assert [(one.predicate, one.value, one.unit, one.confidence) for one in truths] == [("width", 64, "px", 0.9)]
    assert truths.to_arrow().column("sources").to_pylist() == [["client-tests/measure@1"]]
    causes = client.why(assertion=truths[0].candidates[0].votes[0].assertion_id)
    assert causes.chain[0].event_type == "JobSubmitted"
    assert client.handle(handle.job_id).result() == {"image": image, "width": 64}


def test_the_same_id_is_the_same_job(client: Client) -> None:
    job_id = name()
    first = client.submit("measure", {"image": job_id, "width": 1}, job_id=job_id)
    again = client.submit("measure", {"image": job_id, "width": 1}, job_id=job_id)
    assert again.acknowledgement.event_id == first.acknowledgement.event_id
    assert first.wait(WAIT_SECONDS).phase is Phase.COMPLETED
    again.wait(WAIT_SECONDS)
    assert [event.event_type for event in again.events()].count("AttemptStarted") == 1


def test_what_fails_says_why(client: Client) -> None:
    with pytest.raises(ControlPlaneError, match="no cat") as caught:
        client.submit("fail", "no cat").result(WAIT_SECONDS)
    assert (caught.value.code, caught.value.retryable, caught.value.found) == ("handler_failed", False, "NonRetryable")
    with pytest.raises(ControlPlaneError) as caught:
        client.submit("measure", {"image": "cat", "width": 0})
    assert (caught.value.code, caught.value.status, caught.value.field) == ("payload_invalid", 422, "payload.width")
    with pytest.raises(ControlPlaneError) as caught:
        client.job("nobody-submitted-this")
    assert caught.value.code == "not_found"
    with pytest.raises(ControlPlaneError) as caught:
        client.submit("nobody.offers.this").result(WAIT_SECONDS)
    assert caught.value.code == "job_type_unknown"


def test_a_running_job_is_cancelled(client: Client) -> None:
    handle = client.submit("wait")
    for event in handle.events():
        if event.event_type == "AttemptStarted":
            handle.cancel("not needed any more")
    with pytest.raises(ControlPlaneError) as caught:
        handle.result(WAIT_SECONDS)
    assert caught.value.code == "job_cancelled"


def test_many_jobs_at_once(client: Client) -> None:
    prefix = name()
    outcomes = client.submit_many(
        {
            "job_type": "measure",
            "payload": {"image": f"{prefix}-{number}", "width": number},
            "job_id": f"{prefix}-{number}",
        }
        for number in range(20)
    )
    assert isinstance(outcomes[0], ControlPlaneError)
    handles = [one for one in outcomes if isinstance(one, JobHandle)]
    assert [one.result(WAIT_SECONDS)["width"] for one in handles] == list(range(1, 20))
    rows = client.sql(
        f"SELECT count(*) AS jobs FROM jobs WHERE job_id LIKE '{prefix}-%'", min_position=handles[-1].position
    )  # noqa: S608
    assert rows.to_arrow().to_pydict() == {"jobs": [19]}


def test_what_a_client_knows_is_truth_until_it_takes_it_back(client: Client) -> None:
    subject = f"image:{name()}"
    said = client.assert_truth(subject, "artist", "Ada", 0.7, source="catalogue")
    [truth] = client.truths(subject, min_position=said.position)
    assert (truth.value, truth.candidates[0].votes[0].source) == ("Ada", "catalogue")
    taken_back = client.retract(said.event_id, subject, "a mistake", source="catalogue")
    assert client.truths(subject, min_position=taken_back.position) == []


async def test_the_asynchronous_client_does_the_same(stack: SystemStack) -> None:
    image = name()
    async with AsyncClient(stack.gateway_url, tls=stack.tls(Service.CLIENT)) as client:
        handle = await client.submit("measure", {"image": image, "width": 3})
        kinds = [event.event_type async for event in handle.events()]
        assert kinds[0] == "JobSubmitted"
        assert "JobCompleted" in kinds
        assert await handle.result(as_type=Width) == Width(image=image, width=3)
        assert handle.job_id in [job.job_id async for job in client.jobs(job_type="measure", limit=5)]
        assert [one.name for one in (await client.runners()).runners] == ["client-tests"]
        causes = await client.why(job=handle.job_id)
        assert depth(causes.tree) >= 4
        with pytest.raises(ControlPlaneError, match="no dog"):
            await (await client.submit("fail", "no dog")).result(WAIT_SECONDS)
        outcomes = await client.submit_many([{"job_type": "fail", "payload": "x"}])
        assert not isinstance(outcomes[0], ControlPlaneError)
        assert (await outcomes[0].wait(WAIT_SECONDS)).phase is Phase.FAILED


def depth(node: CausationNode) -> int:
    return 1 + max(map(depth, node.effects), default=0)


async def test_straight_to_the_log_and_back(stack: SystemStack) -> None:
    prefix = name()
    async with LogClient(stack.connection("client")) as client:
        events = [
            client.submission(
                "measure", {"image": prefix, "width": number}, job_id=f"{prefix}-{number}", priority=number % 10
            )
            for number in range(100)
        ]
        concluded = {one.job_id: one async for one in client.conclude(events)}
    assert concluded.keys() == {event.job_id for event in events}
    assert concluded[f"{prefix}-7"].result(Width) == Width(image=prefix, width=7)
    rejected = concluded[f"{prefix}-0"]  # Nobody stood at the door: JobForge checked it.
    assert rejected.outcome == "rejected"
    with pytest.raises(ControlPlaneError, match=r"payload\.width") as caught:
        rejected.result()
    assert caught.value.code == "payload_invalid"


async def test_what_concluded_before_is_concluded_again_without_a_wait_for_ever(stack: SystemStack) -> None:
    first, second, waits = name(), name(), name()
    async with LogClient(stack.connection("client")) as client:
        events = [client.submission("measure", {"image": one, "width": 5}, job_id=one) for one in (first, second)]
        once = [one async for one in client.conclude(events[:1])]
        assert [one async for one in client.conclude([])] == []
        again = [one async for one in client.conclude([*events, *events], timeout=WAIT_SECONDS)]
        assert {one.job_id for one in again} == {first, second}
        assert [one for one in again if one.job_id == first] == once
        since = [0] * Settings().partitions_jobs
        assert [one async for one in client.conclude(events[:1], since=since)] == once
        open_one = client.submission("wait", None, job_id=waits)
        with pytest.raises(TimeoutError, match=f"Expected a conclusion within 4 s, but none came of {waits}."):
            assert [one async for one in client.conclude([open_one, events[0]], timeout=4)] == once
    with stack.client() as gateway:
        gateway.cancel(waits, kill=True)
