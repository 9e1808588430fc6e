"""Commands that look: what they ask for, and what a narrow terminal shows."""

import json
from typing import Any

import httpx
import pytest
from rich.console import Console

from controlplane.cli import top
from tests.unit.cli.answers import REFLECTS, Commands

NOW = "2026-11-26T08:00:00Z"


def record(number: int, event_type: str = "JobAccepted", topic: str = "controlplane.jobs") -> dict[str, Any]:
    return {
        "position": f"{topic}/0/{number}", "event_id": str(number), "event_type": event_type, "log_time": NOW, "occurred_at": NOW,
        "correlation_id": "chain" if number % 2 else "other", "causation": None, "producer": "jobforge", "key": f"job-{number % 3}",
        "event": {},
    }  # fmt: skip


def answered(request: httpx.Request, of_one_job: list[dict[str, Any]], everything: list[dict[str, Any]]) -> Any:
    some = of_one_job if request.url.path == "/v1/jobs/job-1/events" else everything
    limit, start = int(request.url.params.get("limit", 1000)), int(request.url.params.get("cursor", 0))
    following = str(start + limit) if start + limit < len(some) else None
    return {"events": some[start : start + limit], "next_cursor": following, "reflects": REFLECTS}


def told(commands: Commands, *argv: str, of_one_job: list[dict[str, Any]], everything: int = 0) -> list[int]:
    newest_first = [record(number) for number in range(everything)][::-1]
    answer = lambda request: answered(request, of_one_job, newest_first)  # noqa: E731
    done = commands.run("events", "list", "--json", *argv, answer=answer)
    assert done.exit_code == 0, done.output
    return [int(json.loads(line)["event_id"]) for line in done.stdout.splitlines()]


def test_records_of_a_job_take_one_request(commands: Commands) -> None:
    mine = [
        record(1, "JobSubmitted", "controlplane.submissions"), record(4), record(7, "JobCompleted"),
        record(9, "TruthAsserted", "controlplane.truth"),
    ]  # fmt: skip
    assert told(commands, "--job", "job-1", "--limit", "1", of_one_job=mine) == [9]
    assert len(commands.seen) == 1
    assert told(commands, "--job", "job-1", of_one_job=mine) == [9, 7, 4, 1]
    assert told(commands, "--job", "job-1", "--topic", "jobs", "--as-of", NOW, of_one_job=mine) == [7, 4]
    assert commands.seen[0].url.params["as_of"] == NOW
    types = ["--type", "JobCompleted", "--type", "JobSubmitted"]
    assert told(commands, "--job", "job-1", *types, "--correlation", "chain", of_one_job=mine) == [7, 1]


def test_the_newest_records_of_a_job_of_several_pages_are_listed(commands: Commands) -> None:
    mine = [record(number) for number in range(2_500)]
    assert told(commands, "--job", "job-1", "--limit", "3", of_one_job=mine, everything=3_000) == [2499, 2498, 2497]
    assert len(commands.seen) == 3


def test_several_types_are_chosen_from_whole_pages(commands: Commands) -> None:
    types = ["--type", "JobAccepted", "--type", "JobFailed"]
    assert told(commands, *types, "--limit", "1", of_one_job=[], everything=300) == [299]
    assert commands.seen[0].url.params["limit"] == "200"
    assert told(commands, "--limit", "250", of_one_job=[], everything=300) == list(range(299, 49, -1))


def activity() -> dict[str, Any]:
    bucket = {
        "at": NOW, "submitted": 3, "started": 3, "completed": 2, "failed": 1, "cancelled": 0, "retried": 0, "records": 9, "waiting": 2,
        "busy": 1, "slots": 4, "median_seconds": 0.1, "p95_seconds": 0.2,
    }  # fmt: skip
    kind = {
        "job_type": "image.thumbnail.with.a.long.name",
        "waiting": 1234,
        "running": 22,
        "completed": 31_415,
        "failed": 7,
    }
    return {
        "seconds": 60, "bucket_seconds": 6.0, "buckets": [bucket] * 10, "open": {"QUEUED": 12_345}, "types": [kind],
        "median_seconds": 0.1, "p95_seconds": 0.2, "p99_seconds": 0.3, "reflects": REFLECTS,
    }  # fmt: skip


@pytest.mark.parametrize("columns", [40, 60, 63, 64, 80, 120])
def test_figures_are_whole_in_a_narrow_terminal(columns: int) -> None:
    runner = {
        "runner_id": "media@host-1-abcdef", "name": "media", "state": "REGISTERED", "slots": 16, "in_flight": 13,
        "capabilities": ["image.thumbnail@1.0.0"],
    }  # fmt: skip
    controls = {"admission": {"open": True, "reason": ""}, "breakers": {}, "pauses": {}}
    found = {"activity": activity(), "runners": [runner], "controls": controls}
    console = Console(width=columns, record=True, file=None)
    with console.capture() as capture:
        console.print(top.frame(found, "http://gateway", columns))
    text = capture.get()
    assert max(map(len, text.splitlines())) <= columns
    for figure in ("waiting", "12,345", "0.5/s", "100 ms", "1,234", "22", "31,415", " 7 ", "13/16"):
        assert figure in text, text
    if columns >= 60:
        assert "p95 200 ms, p99 300 ms" in text
