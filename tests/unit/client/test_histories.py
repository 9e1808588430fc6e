"""The events of a job of many pages: all of them, each once, to the end, also such as come late."""

import asyncio
from typing import Any

import httpx
import pytest

from controlplane.api.models import EventView
from controlplane.client import AsyncClient, Client
from controlplane.client.asynchronous import AsyncJobHandle
from controlplane.client.calls import acknowledgement_of
from controlplane.client.http import JobHandle

PAGE = 3


def event(second: int, name: str = "AttemptProgressed") -> dict[str, Any]:
    moment = f"2026-01-31T12:00:{second:02}Z"
    return {
        "position": f"controlplane.progress/0/{second}", "event_id": f"e-{second}", "event_type": name, "log_time": moment, "occurred_at": moment,
        "correlation_id": "job", "causation": None, "producer": "test", "key": "job", "event": {},
    }  # fmt: skip


class Gateway:
    """Answers with pages of a job's events in order; what is `coming` comes with one request after the other."""

    def __init__(self, there: list[dict[str, Any]], coming: list[dict[str, Any] | None]) -> None:
        self.there, self.coming = there, coming
        self.requests = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        assert request.url.path == "/v1/jobs/job/events"
        if self.coming and (new := self.coming.pop(0)) is not None:
            self.there.append(new)
        ordered = sorted(self.there, key=lambda one: str(one["log_time"]))
        after, limit = request.url.params.get("cursor", ""), int(request.url.params.get("limit", PAGE))
        rest = [one for one in ordered if one["log_time"] > after]
        page = rest[:limit]
        following = page[-1]["log_time"] if len(rest) > limit else None
        reflects = {"positions": {}, "lag_records": 0, "lag_seconds": 0}
        return httpx.Response(200, json={"events": page, "next_cursor": following, "reflects": reflects})


def client_of(gateway: Gateway) -> Client:
    return Client("http://gateway", transport=httpx.MockTransport(gateway))


def awaited(gateway: Gateway, work: Any) -> Any:
    async def ask() -> Any:
        async with AsyncClient("http://gateway", transport=httpx.MockTransport(gateway)) as client:
            return await work(client)

    return asyncio.run(ask())


def whole(*, to: int) -> list[dict[str, Any]]:
    return [event(0, "JobSubmitted"), *(event(second) for second in range(1, to)), event(to, "JobCompleted")]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9, 40])
def test_all_events_are_told_and_asked_for_once(size: int) -> None:
    expected = [one["position"] for one in whole(to=size)]
    looks = len(expected) // PAGE + bool(len(expected) % PAGE)
    gateway = Gateway(whole(to=size), [])
    with client_of(gateway) as client:
        assert [one.position for one in client.job_events("job")] == expected
    assert gateway.requests == looks
    for follow in (False, True):
        gateway = Gateway(whole(to=size), [])
        with client_of(gateway) as client:
            assert [one.position for one in client.handle("job").events(follow=follow)] == expected
        assert gateway.requests == 1 + looks

    async def told(client: AsyncClient) -> list[str]:
        handle = await client.handle("job")
        found = [one.position async for one in handle.events()]
        assert [one.position for one in await client.job_events("job")] == found
        return found

    assert awaited(Gateway(whole(to=size), []), told) == expected


@pytest.mark.parametrize("late", [2, 7, 11, 12, 13])
def test_what_comes_while_it_is_followed_is_told_and_what_comes_late_is_not_left_out(late: int) -> None:
    there = [one for one in whole(to=12)[:-1] if one["log_time"] != event(late)["log_time"]]
    coming = [None, None, event(13), None, event(14), None, None, event(late), event(15), None, event(16, "JobFailed")]
    expected = {one["position"] for one in [*there, *filter(None, coming)]}
    submission = acknowledgement_of("job", EventView.model_validate(event(0, "JobSubmitted")))

    gateway = Gateway(list(there), list(coming))
    with client_of(gateway) as client:
        told = [one.position for one in JobHandle(client, submission).events()]
    assert (set(told), len(told)) == (expected, len(expected))

    async def followed(client: AsyncClient) -> list[str]:
        return [one.position async for one in AsyncJobHandle(client, submission).events()]

    told = awaited(Gateway(list(there), list(coming)), followed)
    assert (set(told), len(told)) == (expected, len(expected))
