"""Lists page by page: whatever the day, whole and without repetition, and a cursor that no page gave is refused in words."""

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import pytest
from fastapi import FastAPI

from controlplane.events.catalog import TRUTH
from controlplane.events.codec import decode
from controlplane.events.types import TruthAsserted
from tests.unit.truthcore_projector.worlds import START_SECONDS, World, answering

LISTS: Final = ("/v1/jobs", "/v1/events", "/v1/deadletters")


def on_day(world: World, year: int, month: int, day: int) -> World:
    """Move all records of a world to a day."""
    moved_seconds = int(datetime(year, month, day, 12, tzinfo=UTC).timestamp()) - START_SECONDS
    for record in world.records:
        record.timestamp += moved_seconds * 1000
    return world


async def _get(app: FastAPI, asked: list[tuple[str, dict[str, Any]]]) -> list[httpx.Response]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://core") as http:
        return [await http.get(path, params=query) for path, query in asked]


def get(app: FastAPI, path: str, **query: Any) -> httpx.Response:
    """Return the answer to one question."""
    return asyncio.run(_get(app, [(path, query)]))[0]


def in_pages(app: FastAPI, path: str, what: str, limit: int, **query: Any) -> list[Any]:
    """Return everything in a list, by its pages."""
    found: list[Any] = []
    following: dict[str, str] = {}
    while True:
        answer = get(app, path, limit=limit, **query, **following)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()[what]) <= limit
        found += answer.json()[what]
        if answer.json()["next_cursor"] is None:
            return found
        following = {"cursor": answer.json()["next_cursor"]}


@pytest.mark.parametrize("day", [(2026, 1, 1), (2026, 1, 29), (2026, 6, 30), (2026, 12, 31), (2028, 2, 29)])
@pytest.mark.parametrize("path", LISTS)
def test_a_list_has_a_second_page_on_every_day(path: str, day: tuple[int, int, int]) -> None:
    what = "jobs" if path == "/v1/jobs" else "events"
    with answering(on_day(World(3, 60), *day)) as app:
        whole = get(app, path, limit=1000).json()[what]
        assert len(whole) > 2, "Expected enough for two pages."
        assert in_pages(app, path, what, 2) == whole


@pytest.mark.parametrize("moment", ["2026-02-30T12:00:00", "2026-02-29T12:00:00", "2026-04-31T12:00:00"])
@pytest.mark.parametrize("path", LISTS)
def test_a_cursor_on_a_day_that_no_month_has_is_refused(path: str, moment: str) -> None:
    last = "job-1" if path == "/v1/jobs" else "controlplane.jobs/0/1"
    with answering(World(3, 1)) as app:
        answer = get(app, path, cursor=f"{moment}~{last}")
    assert answer.status_code == 422
    assert answer.json()["field"] == "cursor"


def about(world: World, job: str) -> list[str]:
    """Return where the records about a job are: those under its key, and the truths that name it."""
    found = []
    for one in sorted(world.records, key=lambda each: (each.timestamp, each.topic, each.partition, each.offset)):
        given = decode(one.value) if one.topic == TRUTH.name and one.value != b"garbage" else None
        if one.key == job.encode() or (isinstance(given, TruthAsserted) and given.evidence and given.evidence.job_id == job):  # fmt: skip
            found.append(f"{one.topic}/{one.partition}/{one.offset}")
    return found


@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
def test_a_jobs_records_come_in_pages_each_once_and_the_last_page_has_its_end(limit: int) -> None:
    world = on_day(World(3, 60), 2026, 5, 31)
    with answering(world) as app:
        for job in [name for name, _ in world.jobs][:6]:
            path = f"/v1/jobs/{job}/events"
            whole = get(app, path).json()
            assert whole["next_cursor"] is None
            found = in_pages(app, path, "events", limit)
            assert found == whole["events"]
            assert [one["position"] for one in found] == about(world, job)


def test_of_a_jobs_records_some_types_can_be_asked_for() -> None:
    world = World(3, 60)
    with answering(world) as app:
        for job, _ in world.jobs[:6]:
            path = f"/v1/jobs/{job}/events"
            whole = get(app, path).json()["events"]
            for types in (
                ["JobSubmitted"],
                ["JobCompleted", "JobFailed"],
                ["TruthAsserted", "JobRouted"],
                ["JobRejected"],
            ):
                expected = [one for one in whole if one["event_type"] in types]
                assert in_pages(app, path, "events", 1, event_type=types) == expected
        path = f"/v1/jobs/{world.jobs[0][0]}/events"
        last = get(app, path).json()["events"][-1]
        behind = f"{last['log_time'].removesuffix('Z')}~{last['position']}"
        assert get(app, path, cursor=behind).json()["events"] == []
        for query in ({}, {"event_type": "JobSubmitted"}, {"cursor": behind}):
            assert get(app, "/v1/jobs/never-seen/events", **query).status_code == 404
