"""What TruthCore knows of a job, for the streams that begin with it or go on behind it."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

import msgspec

from controlplane.api.problems import Refused, refused
from controlplane.events.catalog import JOBS
from controlplane.gateway.cores import TruthCores
from controlplane.gateway.streams import CONCLUSIONS
from controlplane.log.positions import Partition, parse_position

AGAIN_SECONDS: Final = 0.1
WAIT_SECONDS: Final = 5.0
Query = Sequence[tuple[str, str]]


class History:
    """What TruthCore knew of a job at one moment, page by page."""

    def __init__(self, cores: TruthCores, job_id: str, first: dict[str, Any]) -> None:
        """Take the first page."""
        self._cores = cores
        self._job_id = job_id
        self._first = first
        self.positions: Final = _reflected(first)
        """Up to where it is told; what is behind is the stream's to tell."""

    @classmethod
    async def begun(cls, cores: TruthCores, job_id: str, min_position: Sequence[str], wait_seconds: float) -> Self:
        """Return the history of a job, its first page at hand.

        Raises:
            Refused: the log does not know the job, or TruthCore is not so far, or does not answer.
        """
        query = [*(("min_position", one) for one in min_position), ("wait_seconds", str(wait_seconds))]
        return cls(cores, job_id, await _page(cores, job_id, query))

    async def pages(self) -> AsyncIterator[tuple[list[dict[str, Any]], bool]]:
        """Yield what is known up to `positions`, in order, each part with whether it is the last.

        Raises:
            Refused: TruthCore does not answer any more.
        """
        page = self._first
        while (cursor := page["next_cursor"]) is not None:
            yield self._known(page["events"]), False
            page = await self._behind(cursor)
        yield self._known(page["events"]), True

    def _known(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [one for one in events if is_before(one["position"], self.positions)]

    async def _behind(self, cursor: str) -> dict[str, Any]:
        """Return the page behind a cursor from a TruthCore that knows all that the first page's knew."""
        give_up_at = time.monotonic() + WAIT_SECONDS
        while True:
            page = await _page(self._cores, self._job_id, [("cursor", cursor)])
            there = _reflected(page)
            if all(there.get(place, 0) >= following for place, following in self.positions.items()):
                return page
            if time.monotonic() >= give_up_at:
                text = "Expected TruthCore to be as far as when the history was begun, but another one answers that is behind."
                raise refused("projection_behind", text)
            await asyncio.sleep(AGAIN_SECONDS)


async def is_concluded(cores: TruthCores, job_id: str, positions: Mapping[Partition, int]) -> bool:
    """Return whether the conclusion of a job lies before these positions; False as well when TruthCore cannot say."""
    place = next((one for one in positions if one[0] == JOBS.name), None)
    if place is None or not positions[place]:
        return False
    # Conclusions are in that partition: a TruthCore that is so far knows the one that was told.
    query = [*(("event_type", one) for one in sorted(CONCLUSIONS)), ("limit", "1"), ("wait_seconds", str(WAIT_SECONDS))]
    query.append(("min_position", f"{place[0]}/{place[1]}/{positions[place] - 1}"))
    try:
        page = await _page(cores, job_id, query)
    except Refused:
        return False
    return any(is_before(one["position"], positions) for one in page["events"])


async def first_of(cores: TruthCores, job_id: str, event_type: str) -> str | None:
    """Return where the first record of a type about a job is, or None.

    Raises:
        Refused: the log does not know the job, or TruthCore does not answer.
    """
    page = await _page(cores, job_id, [("event_type", event_type), ("limit", "1")])
    return next((str(one["position"]) for one in page["events"]), None)


def is_before(position: str, positions: Mapping[Partition, int]) -> bool:
    """Return whether a record lies before these positions."""
    place = parse_position(position)
    return place.offset < positions.get((place.topic, place.partition), 0)


async def _page(cores: TruthCores, job_id: str, query: Query) -> dict[str, Any]:
    answer = await cores.ask("GET", f"/v1/jobs/{quote(job_id)}/events", urlencode(query).encode(), b"")
    found: dict[str, Any] = msgspec.json.decode(bytes(answer.body))
    if answer.status_code != 200:
        raise refused(found["code"], found["message"], field=found.get("field"), found=found.get("found"))
    return found


def _reflected(page: Mapping[str, Any]) -> dict[Partition, int]:
    return {
        (topic, int(number)): following
        for topic, partitions in page["reflects"]["positions"].items()
        for number, following in partitions.items()
    }
