"""A job's stream tells everything once, in whatever pages its history comes, and ends where the job does, also when it is resumed."""

import asyncio
import json
from collections import deque
from types import SimpleNamespace
from typing import Any, Final

import pytest
from fastapi.responses import Response

from controlplane.api.problems import Refused, refused
from controlplane.events import types
from controlplane.events.codec import encode
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant
from controlplane.gateway import streams
from controlplane.gateway.histories import History, is_concluded
from controlplane.gateway.live import AT_ONCE, LiveRecord, Tail
from controlplane.gateway.streaming import _told
from controlplane.gateway.streams import Chosen, Stream, is_end, vector_from, vector_text
from controlplane.log.positions import Partition

JOBS: Final = ("controlplane.jobs", 0)
PROGRESS: Final = ("controlplane.progress", 0)
SYSTEM = types.Producer(service="test", version="0")


def completed() -> Any:
    header = outside_header("JobCompleted", "job", SYSTEM, Instant(0))
    return types.JobCompleted(
        header=header, job_id="job", attempt_id="a", attempt_number=1, runner_id="r", result=types.Content()
    )


def accepted() -> Any:
    header = outside_header("JobAccepted", "job", SYSTEM, Instant(0))
    return types.JobAccepted(header=header, job_id="job", job_type="t", pool="p", priority=5)


def record(place: Partition, offset: int, event: Any) -> LiveRecord:
    return LiveRecord(
        topic=place[0], partition=place[1], offset=offset, timestamp=offset, key=b"job", value=encode(event)
    )


def tail_of(*records: LiveRecord) -> Tail:
    """Return a tail that keeps these records, and reads none."""
    tail = Tail(SimpleNamespace(), {JOBS[0]: 1, PROGRESS[0]: 1})  # type: ignore[arg-type] # nothing is read
    tail.next, tail._first = dict.fromkeys((JOBS, PROGRESS), 0), dict.fromkeys((JOBS, PROGRESS), 0)
    for one in records:
        place = (one.topic, one.partition)
        tail._kept.setdefault(place, deque()).append(one)
        tail.next[place] = one.offset + 1
    return tail


def said(parts: list[bytes]) -> tuple[list[str], dict[str, Any], list[str]]:
    """Return the positions of the events, the words of the end, and the ids of a stream."""
    events, end, ids, name = list[str](), dict[str, Any](), list[str](), ""
    for line in b"".join(parts).decode().splitlines():
        kind, _, text = line.partition(": ")
        if kind == "id":
            ids.append(text)
        elif kind == "event":
            name = text
        elif kind == "data" and name == "end":
            end = json.loads(text)
        elif kind == "data":
            events.append(json.loads(text)["position"])
    return events, end, ids


async def whole(stream: Stream, positions: dict[Partition, int], history: History | None = None) -> list[bytes]:
    return [part async for part in _told(stream, positions, history)]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream ends right after its conclusion."""
    monkeypatch.setattr(streams, "AFTER_CONCLUSION_SECONDS", 0.0)


def test_a_stream_that_goes_on_behind_the_conclusion_tells_the_rest_and_ends() -> None:
    rest = [record(PROGRESS, offset, accepted()) for offset in range(2 * AT_ONCE + 1)]
    positions = {JOBS: 1, PROGRESS: 0}
    stream = Stream(tail_of(record(JOBS, 0, completed()), *rest), Chosen(job_id="job"), positions, seconds=30.0)
    stream.conclude()
    events, end, ids = said(asyncio.run(whole(stream, positions)))
    assert events == [one.position for one in rest]
    assert end["reason"] == "concluded"
    assert vector_from(end["resume"]) == {JOBS: 1, PROGRESS: len(rest)}
    assert is_end(end["resume"])
    assert ids[-1] == end["resume"]


def test_only_the_end_of_a_concluded_job_is_marked() -> None:
    positions = {JOBS: 0, PROGRESS: 0}
    _, end, ids = said(asyncio.run(whole(Stream(tail_of(), Chosen(job_id="job"), positions, seconds=0.01), positions)))
    assert end["reason"] == "time"
    assert not any(map(is_end, ids))


class Cores:
    """A TruthCore that has a history in pages, as far as it is at each question."""

    def __init__(self, *pages: dict[str, Any] | Exception) -> None:
        self.pages = list(pages)
        self.asked: list[str] = []

    async def ask(self, method: str, path: str, query: bytes, body: bytes) -> Response:
        self.asked.append(f"{path}?{query.decode()}")
        page = self.pages.pop(0)
        if isinstance(page, Exception):
            raise page
        return Response(json.dumps(page), 200)


def page(offsets: list[int], known: int, cursor: str | None = None, name: str = "JobAccepted") -> dict[str, Any]:
    return {
        "events": [{"position": f"controlplane.jobs/0/{one}", "event_type": name} for one in offsets],
        "next_cursor": cursor, "reflects": {"positions": {"controlplane.jobs": {"0": known}, "controlplane.progress": {"0": 0}}},
    }  # fmt: skip


def streamed(tail: Tail, cores: Any) -> tuple[list[str], dict[str, Any], list[str]]:
    async def tell() -> list[bytes]:
        history = await History.begun(cores, "job", [], 1.0)
        positions = {JOBS: 0, PROGRESS: 0} | history.positions
        return await whole(Stream(tail, Chosen(job_id="job"), positions, seconds=0.5), positions, history)

    return said(asyncio.run(tell()))


def test_a_history_of_many_pages_is_told_to_its_end_and_what_came_meanwhile_once() -> None:
    # When the second page is asked for, there is one record more, which the log tells as well; another replica does not know the first ones.
    cores = Cores(page([0, 1], 4, "c1"), page([2], 3), page([2, 3, 4], 5))
    tail = tail_of(*(record(JOBS, offset, accepted()) for offset in range(4)), record(JOBS, 4, completed()))
    events, end, ids = streamed(tail, cores)
    assert events == [f"controlplane.jobs/0/{offset}" for offset in range(5)]
    assert end["reason"] == "concluded"
    assert ids[0] == vector_text({JOBS: 4, PROGRESS: 0})  # Not before the history was told.
    assert [one.partition("?")[2] for one in cores.asked] == ["wait_seconds=1.0", "cursor=c1", "cursor=c1"]


def test_a_conclusion_on_a_later_page_ends_the_stream() -> None:
    cores = Cores(page([0, 1], 3, "c1"), page([2], 3, name="JobFailed"))
    events, end, _ = streamed(tail_of(record(JOBS, 2, accepted())), cores)
    assert len(events) == 3
    assert end["reason"] == "concluded"


def test_a_history_that_breaks_off_says_where_to_go_on() -> None:
    cores = Cores(page([0, 1], 4, "c1"), refused("projection_unavailable", "It went away."))
    events, end, _ = streamed(tail_of(), cores)
    assert len(events) == 2
    assert end == {"reason": "unavailable", "resume": "controlplane.jobs/0/1"}


@pytest.mark.parametrize(
    ("answer", "positions", "concluded"),
    [
        (page([6], 9), {JOBS: 7}, True),
        (page([6], 9), {JOBS: 6}, False),
        (page([], 9), {JOBS: 7}, False),
        (refused("projection_unavailable", "It went away."), {JOBS: 7}, False),
        (page([6], 9), {JOBS: 0}, False),
        (page([6], 9), {PROGRESS: 7}, False),
    ],
)
def test_whether_a_job_was_concluded_before(
    answer: dict[str, Any] | Refused, positions: dict[Partition, int], concluded: bool
) -> None:
    cores: Any = Cores(answer)
    assert asyncio.run(is_concluded(cores, "job", positions)) is concluded
    for asked in cores.asked:  # Who answers knows what was told.
        assert f"min_position=controlplane.jobs%2F0%2F{positions[JOBS] - 1}" in asked
