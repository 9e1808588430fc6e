"""What commands need to know besides their job: read before a batch with such commands is decided, and for no other batch."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from controlplane.events import types
from controlplane.events.catalog import SUBMISSIONS
from controlplane.events.header import concerns
from controlplane.events.types import LogPosition
from controlplane.jobforge_agent import recovery
from controlplane.jobforge_agent.batch import Consumed
from controlplane.jobforge_agent.decide import Related
from controlplane.jobforge_agent.state import Job
from controlplane.jobforge_agent.store import Store
from controlplane.jobforge_agent.transitions import Phase
from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.log.reader import BRIEF_WAIT_MILLISECONDS, LogReader

NOTHING = Related()
READ_WITHIN_SECONDS: Final = 10.0
"""No longer is everything else kept waiting: an instance that cannot read the log ends, and the next one tries again."""


class Relations:
    """Looks up children, parents and former submissions."""

    def __init__(self, connection: LogConnection, store: Store) -> None:
        """Look into this store and this log."""
        self._connection = connection
        self._store = store

    async def of(self, taken: Sequence[tuple[int, Sequence[Consumed]]], known: Mapping[str, Job]) -> Related:
        """Return what the commands of these batches need."""
        trees: list[str] = []
        parents: list[str] = []
        retries: dict[str, LogPosition] = {}
        for _, batch in taken:
            for consumed in batch:
                event = consumed.event
                match event:
                    case types.JobSubmitted() if event.parent and not event.retry_of and event.job_id not in known:
                        parents.append(event.parent.job_id)
                    case types.JobCancelRequested() if event.tree:
                        job = known.get(event.job_id)
                        if job is not None and concerns(event.header.tenant, job.tenant):
                            trees.append(event.job_id)
                    case types.JobRetryRequested():
                        place = submission_of(known.get(event.job_id), event)
                        if place is not None:
                            retries[event.job_id] = place
        if not (trees or parents or retries):
            return NOTHING
        # First, so that no other instance accepts a child that is missed here.
        await self._store.controls.cancel_trees(trees)
        asked = frozenset(parents)
        cancelled = await self._store.controls.cancelled_trees(asked)
        return Related(
            children=await self._store.controls.children(trees) if trees else {},
            parents=await self._store.jobs(sorted(asked)) if asked else {},
            cancelled_trees=cancelled,
            standing=tuple(sorted(asked - cancelled)),
            originals=await self.originals(retries),
        )

    async def originals(self, places: Mapping[str, LogPosition]) -> dict[str, types.JobSubmitted]:
        """Return the submissions of jobs from where they stand; those that the log no longer has are left out."""
        if not places:
            return {}
        found: dict[str, types.JobSubmitted] = {}
        reader = LogReader(
            self._connection, client_id="controlplane-jobforge-originals", wait_milliseconds=BRIEF_WAIT_MILLISECONDS
        )
        try:
            async with asyncio.timeout(READ_WITHIN_SECONDS), reader:
                for job_id, place in places.items():
                    event = await _event_at(reader, place)
                    if isinstance(event, types.JobSubmitted) and event.job_id == job_id:
                        found[job_id] = event
        except TimeoutError as error:
            text = f"Expected the submissions of {', '.join(places)} within {READ_WITHIN_SECONDS:g} s, but they did not come."
            raise LogUnavailable(text[:500]) from error
        return found

    async def submissions_until(self, partition: int, at: int) -> int:
        """Return the offset behind the last submission that was appended at or before a moment (microseconds)."""
        async with LogReader(
            self._connection, client_id="controlplane-jobforge-until", wait_milliseconds=BRIEF_WAIT_MILLISECONDS
        ) as reader:
            place = (SUBMISSIONS.name, partition)
            return (await reader.offsets_at({place: at // 1000 + 1}))[place]

    async def submissions_so_far(self, partition: int) -> int:
        """Return the offset behind the last submission that was appended until now."""
        async with LogReader(
            self._connection, client_id="controlplane-jobforge-until", wait_milliseconds=BRIEF_WAIT_MILLISECONDS
        ) as reader:
            place = (SUBMISSIONS.name, partition)
            return (await reader.end_offsets([place]))[place]


def submission_of(job: Job | None, event: types.JobRetryRequested) -> LogPosition | None:
    """Return where the submission of a job stands that is to be retried as a new one; None if it runs or waits itself."""
    if job is None:
        return event.submission
    return job.submission if job.concluded and job.phase is not Phase.COMPLETED else None


async def _event_at(reader: LogReader, place: LogPosition) -> object:
    partition = (place.topic, place.partition)
    begins = await reader.beginning_offsets([partition])
    ends = await reader.end_offsets([partition])
    if not begins[partition] <= place.offset < ends[partition]:
        return None
    async for record in recovery.records(reader, {partition: place.offset}, most=1):
        return recovery.decoded(record)
    return None
