"""What clients ask and how they read the answers, without a wire: ids minted, repeats bounded, envelopes kept whole."""

import inspect
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

import controlplane.client
from controlplane.api.models import EventView, JobView, Phase
from controlplane.api.problems import problem_fields
from controlplane.api.submissions import OptionInvalid
from controlplane.client import AsyncClient, Client, ControlPlaneError, LogClient, calls
from controlplane.contents import ContentTooLarge
from controlplane.events.errors import ERROR_CODES, envelope
from controlplane.events.sizes import LARGEST_INLINE_BYTES

Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nothing waits; what would have been waited is noted."""
    noted: list[float] = []

    async def note(seconds: float) -> None:
        noted.append(seconds)

    monkeypatch.setattr("controlplane.client.http.time.sleep", noted.append)
    monkeypatch.setattr("controlplane.client.asynchronous.asyncio.sleep", note)
    return noted


def client_of(*answers: httpx.Response | Exception, seen: list[httpx.Request] | None = None) -> Client:
    """Return a client that gets these answers, one after the other."""
    return Client("http://gateway", transport=httpx.MockTransport(_teller(iter(answers), seen)))


def _teller(answers: Iterator[httpx.Response | Exception], seen: list[httpx.Request] | None) -> Answer:
    def tell(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return tell


def problem(code: str, **fields: Any) -> httpx.Response:
    """Return the refusal that the gateway answers with."""
    error = envelope(code, f"{code} it is", **fields)
    return httpx.Response(ERROR_CODES[code].http_status, json=problem_fields(error, ERROR_CODES[code].http_status))


def accepted(job_id: str = "job-1") -> httpx.Response:
    return httpx.Response(202, json={"job_id": job_id, "event_id": "e", "position": "t/0/1", "correlation_id": job_id})


def test_a_submission_is_repeated_under_the_same_id(pauses: list[float]) -> None:
    seen: list[httpx.Request] = []
    with client_of(
        httpx.ReadTimeout("slow"), problem("log_unavailable"), httpx.Response(502), accepted(), seen=seen
    ) as client:
        handle = client.submit("image.thumbnail", {"image": "cat"}, priority=9)
    bodies = [json.loads(request.content) for request in seen]
    assert len(bodies) == 4
    assert {body["job_id"] for body in bodies} == {bodies[0]["job_id"]}
    assert bodies[0] | {"job_id": ""} == {
        "job_type": "image.thumbnail", "payload": {"image": "cat"}, "priority": 9, "job_id": "",
    }  # fmt: skip
    assert (handle.job_id, handle.position) == ("job-1", "t/0/1")
    assert len(pauses) == 3
    assert pauses[1] >= 2.0  # What the answer asks for goes before.


def test_an_id_of_one_s_own_is_kept() -> None:
    seen: list[httpx.Request] = []
    with client_of(accepted(), seen=seen) as client:
        client.submit("t", job_id="mine")
    assert json.loads(seen[0].content)["job_id"] == "mine"


@pytest.mark.parametrize("code", sorted(ERROR_CODES))
def test_what_cannot_help_is_not_repeated_and_every_field_arrives(code: str, pauses: list[float]) -> None:
    entry = ERROR_CODES[code]
    refusal = problem(code, field="payload.width", expected="a number", found="cat")
    seen: list[httpx.Request] = []
    with (
        client_of(*[refusal] * 10, seen=seen) as client,
        pytest.raises(ControlPlaneError, match=f"{code} it is") as caught,
    ):
        client.submit("t")
    error = caught.value
    assert (error.code, error.category, error.severity) == (code, entry.category, entry.severity)
    assert (error.status, error.retryable, error.retry_after_seconds) == (
        entry.http_status, entry.retryable, entry.retry_after_seconds,
    )  # fmt: skip
    assert (error.field, error.expected, error.found) == ("payload.width", "a number", "cat")
    assert error.contract_version == {"major": 1, "minor": 0, "patch": 0}
    assert error.error_id
    assert len(seen) == (calls.ATTEMPTS if entry.retryable else 1)


def test_what_a_proxy_says_is_an_error_too(pauses: list[float]) -> None:
    answers = [
        httpx.Response(503, text="<html>busy</html>", headers={"retry-after": "7"}),
        httpx.Response(404, json=["?"]),
    ]
    with client_of(*answers) as client, pytest.raises(ControlPlaneError, match=r'\["\?"\]') as caught:
        client.runners()
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (404, "unknown", False)
    assert pauses == [7.0]


def test_nobody_there_is_an_error_too(pauses: list[float]) -> None:
    with client_of(*[httpx.ConnectError("refused")] * 10) as client, pytest.raises(ControlPlaneError) as caught:
        client.sql("SELECT 1")
    assert (caught.value.code, caught.value.status) == ("no_answer", 0)
    assert "Expected the gateway at http://gateway to answer" in str(caught.value)
    assert len(pauses) == calls.ATTEMPTS - 1


def test_an_answer_of_another_version_is_an_error_too() -> None:
    with (
        client_of(httpx.Response(200, json={"job": {"phase": "DREAMING"}})) as client,
        pytest.raises(ControlPlaneError) as caught,
    ):
        client.job("job-1")
    assert (caught.value.code, caught.value.category) == ("answer_unknown", "CONTRACT")


@given(st.integers(1, calls.ATTEMPTS - 1), st.floats(0, 100) | st.none())
def test_pauses_grow_and_are_bounded(attempt: int, asked: float | None) -> None:
    refused = ControlPlaneError({"retryable": True, "retry_after_seconds": asked})
    pause = calls.pause_before(attempt, refused)
    assert pause is not None
    assert (asked or 0) <= pause <= max(asked or 0, calls.FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), 0)
    assert pause > 0
    assert calls.pause_before(calls.ATTEMPTS, refused) is None


def test_a_query_leaves_out_what_is_not_said_and_repeats_what_is_several() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    asked = calls.truths(
        "a:*", "p", {"as_of": moment, "min_position": ["t/0/1", "t/1/2"], "valid_at": None}, None, None
    )
    assert asked.parameters() == [
        ("subject", "a:*"), ("predicate", "p"), ("as_of", "2026-01-01T00:00:00+00:00"),
        ("min_position", "t/0/1"), ("min_position", "t/1/2"),
    ]  # fmt: skip


def test_many_jobs_are_lines_in_portions_and_each_has_its_outcome() -> None:
    seen: list[httpx.Request] = []

    def tell(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        lines = [json.loads(line) for line in request.content.splitlines()]
        answers = [
            problem("payload_invalid").json() if line["payload"] == 3 else accepted(line["job_id"]).json()
            for line in lines
        ]
        return httpx.Response(200, content="\n".join(json.dumps(answer) for answer in answers))

    count = calls.BULK_LINES + 5
    with Client("http://gateway", transport=httpx.MockTransport(tell)) as client:
        outcomes = client.submit_many(
            {"job_type": "t", "payload": number, "job_id": f"job-{number}"} for number in range(count)
        )
    assert len(seen) == 2
    assert {request.headers["content-type"] for request in seen} == {"application/x-ndjson"}
    refused = outcomes.pop(3)
    assert isinstance(refused, ControlPlaneError)
    assert refused.code == "payload_invalid"
    handles = [one for one in outcomes if not isinstance(one, ControlPlaneError)]
    assert [one.job_id for one in handles] == [f"job-{number}" for number in range(count) if number != 3]


def overloaded_at_first(times: int, seen: list[list[str]]) -> Answer:
    """Return a server that has no room for a job so many times, and answers only half of what it is asked once."""
    refusals: dict[str, int] = {}

    def tell(request: httpx.Request) -> httpx.Response:
        ids = [json.loads(line)["job_id"] for line in request.content.split(b"\n")]
        seen.append(ids)
        answers = []
        for job_id in ids:
            refusals[job_id] = refusals.get(job_id, 0) + 1
            busy = job_id.startswith("busy") and refusals[job_id] <= times
            answers.append(problem("overloaded", retry_after_seconds=3.0) if busy else accepted(job_id))
            if job_id == "wrong":
                answers[-1] = problem("payload_invalid")
        del answers[6 if len(seen) == 1 else len(ids) :]
        return httpx.Response(200, content="\n".join(json.dumps(one.json()) for one in answers))

    return tell


@pytest.mark.parametrize(("times", "requests"), [(2, 3), (100, calls.ATTEMPTS)])
async def test_lines_that_are_refused_for_now_are_sent_again(times: int, requests: int, pauses: list[float]) -> None:
    ids = ["a", "busy-1", "wrong", "busy-2", "b", "c", "unanswered"]
    jobs = [{"job_type": "t", "job_id": job_id} for job_id in ids]
    seen: list[list[str]] = []
    awaited: list[list[str]] = []
    with Client("http://gateway", transport=httpx.MockTransport(overloaded_at_first(times, seen))) as client:
        outcomes: list[Any] = list(client.submit_many(jobs))
    transport = httpx.MockTransport(overloaded_at_first(times, awaited))
    async with AsyncClient("http://gateway", transport=transport) as other:
        outcomes += await other.submit_many(jobs)
    assert seen == awaited
    assert seen[:2] == [ids, ["busy-1", "busy-2", "unanswered"]]
    assert seen[2:] == [["busy-1", "busy-2"]] * (requests - 2)
    assert pauses == [3.0] * (2 * (requests - 1))
    for found in (outcomes[:7], outcomes[7:]):
        codes = [one.code if isinstance(one, ControlPlaneError) else one.job_id for one in found]
        busy = ["busy-1", "busy-2"] if times == 2 else ["overloaded"] * 2
        assert codes == ["a", busy[0], "payload_invalid", busy[1], "b", "c", "unanswered"]


class Thumb(BaseModel):
    path: str


def view(phase: Phase, **fields: Any) -> JobView:
    return JobView(
        job_id="job-1", job_type="t", phase=phase, pool="default", priority=5, tenant="default", correlation_id="c",
        submitted_at=None, concluded_at=None, **fields,
    )  # fmt: skip


def test_a_result_comes_as_json_or_as_a_type() -> None:
    completed = view(Phase.COMPLETED, result={"path": "a.png"})
    assert calls.result_of(completed) == {"path": "a.png"}
    assert calls.result_of(completed, Thumb) == Thumb(path="a.png")
    assert calls.result_of(completed, dict[str, str]) == {"path": "a.png"}


def event(kind: str, **fields: Any) -> EventView:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return EventView(
        position="t/0/1", event_id="e", event_type=kind, log_time=moment, occurred_at=moment, correlation_id="c", causation=None,
        producer="jobforge", key="job-1", event=fields,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("phase", "error", "conclusion", "code", "message"),
    [
        (Phase.FAILED, {"code": "handler_failed", "message": "no"}, "JobFailed", "handler_failed", "no"),
        (
            Phase.REJECTED,
            {"code": "job_type_unknown", "message": "no such"},
            "JobRejected",
            "job_type_unknown",
            "no such",
        ),
        (Phase.CANCELLED, None, "JobCancelled", "job_cancelled", "Job job-1 is CANCELLED."),
    ],
)
def test_a_job_that_did_not_complete_says_why_with_the_whole_envelope(
    phase: Phase, error: dict[str, Any] | None, conclusion: str, code: str, message: str
) -> None:
    whole = error and {**error, "found": "a dog"}
    history = [
        event("JobRetryScheduled", error={"code": "attempt_lost"}),
        event(conclusion, error=whole),
        event("JobFailed"),
    ]
    caught = calls.failure_of(view(phase, error=error), history)
    assert (caught.code, str(caught), caught.found) == (code, message, "a dog" if whole else None)
    assert calls.failure_of(view(phase, error=error), []).code == code


async def test_waiting_has_an_end_and_says_why(pauses: list[float]) -> None:
    job = view(Phase.QUEUED, waiting_for="a runner with t v1").model_dump(mode="json")
    waits = {"job": job, "reflects": {"positions": {}, "lag_records": 0, "lag_seconds": 0}}
    expected = "Expected job job-1 to conclude within 0 s, but it is QUEUED: a runner with t v1"
    with client_of(accepted(), httpx.Response(200, json=waits)) as client, pytest.raises(TimeoutError, match=expected):
        client.submit("t").result(timeout=0)
    teller = _teller(iter([accepted(), httpx.Response(200, json=waits)]), None)
    async with AsyncClient("http://gateway", transport=httpx.MockTransport(teller)) as awaited:
        handle = await awaited.submit("t")
        with pytest.raises(TimeoutError, match=expected):
            await handle.result(timeout=0)


def test_both_clients_offer_the_same() -> None:
    for one, other in ((Client, AsyncClient), (controlplane.client.JobHandle, controlplane.client.AsyncJobHandle)):
        names = {name for name in vars(one) if not name.startswith("_")}
        assert names == {name for name in vars(other) if not name.startswith("_")}
        for name in names:
            ours, theirs = (
                list(map(str, inspect.signature(getattr(kind, name)).parameters.values())) for kind in (one, other)
            )
            assert ours == theirs, name


def test_the_public_names_are_pinned() -> None:
    assert controlplane.client.__all__ == [
        "AsyncClient", "AsyncJobHandle", "Client", "Conclusion", "ControlPlaneError", "JobHandle", "LibraryMissing", "LogClient",
        "Rows", "Truths",
    ]  # fmt: skip
    assert {name for name in vars(Client) if not name.startswith("_")} == {
        "ask", "assert_truth", "cancel", "close", "content", "dead_letters", "declare_predicate", "declare_source", "digest", "events",
        "handle", "job", "job_events", "jobs", "limits", "logs", "post_lines", "reprioritise", "request", "retract", "runners", "sql", "sql_table", "submit",
        "submit_many", "truth_changes", "truths", "why",
    }  # fmt: skip
    assert {name for name in vars(controlplane.client.JobHandle) if not name.startswith("_")} == {
        "cancel", "events", "result", "status", "wait",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("job_type", "options", "message"),
    [
        ("has space", {}, "Expected identifiers"),
        ("t", {"job_id": "é"}, "Expected identifiers"),
        ("t", {"not_before": datetime(2026, 1, 1)}, "Expected not_before with a time zone"),  # noqa: DTZ001
    ],
)
def test_the_log_takes_only_what_is_a_job(job_type: str, options: Any, message: str) -> None:
    client = LogClient("nowhere:1")
    with pytest.raises(OptionInvalid, match=message):
        client.submission(job_type, None, **options)


def test_the_log_takes_nothing_that_jobforge_would_reject_as_too_large() -> None:
    client = LogClient("nowhere:1")
    with pytest.raises(
        ContentTooLarge, match=r"Expected payload and labels of at most 921600 bytes .* but found 921601"
    ):
        client.submission("t", "x" * (LARGEST_INLINE_BYTES - 1))
    assert client.submission("t", "x" * (LARGEST_INLINE_BYTES - 2)).payload.data
    with pytest.raises(OptionInvalid, match="Expected correlation_id to have at most 1000 characters, but found 1001"):
        client.submission("t", None, correlation_id="c" * 1001)


def test_a_submission_to_the_log_is_the_event_that_the_gateway_would_write() -> None:
    client = LogClient("nowhere:1")
    plain = client.submission("t", {"a": 1}, job_id="job-1", correlation_id="chain", tenant="acme")
    assert (plain.job_id, plain.job_type, plain.payload.data) == ("job-1", "t", b'{"a":1}')
    assert (plain.header.correlation_id, plain.header.tenant, plain.header.causation) == ("chain", "acme", None)
    rich = client.submission("t", {"a": 1}, job_id="job-1", priority=9, retry={"max_attempts": 1})
    assert (rich.priority, rich.retry and rich.retry.max_attempts) == (9, 1)
    assert rich.header.event_id == plain.header.event_id  # The same job is the same event, however it is said.
