"""A store that comes back empty after a long history is refilled from what is unfinished: what is read back does not grow with the history."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from controlplane.events.catalog import JOBS, ROUTING, SUBMISSIONS
from controlplane.jobforge_agent import recovery
from tests.simulation.history import History
from tests.simulation.logs import Record, SimulatedReader
from tests.simulation.run import played
from tests.simulation.stores import Server
from tests.simulation.world import World

JOBS_BEFORE = 150
JOBS_AFTER = 10
FOLDED = (JOBS.name, ROUTING.name, SUBMISSIONS.name)
QUIET_SECONDS = 120.0
"""Longer than anything is looked back for: repeated submissions a minute, clocks of brokers ten seconds."""


class LongHistory(History):
    """Many jobs that conclude, a rest, some that wait, and a store that is emptied while they do."""

    def __init__(self, world: World, server: Server) -> None:
        super().__init__(world, server, frozenset({"rush"}))
        self.plan = msgspec.structs.replace(self.plan, instances=2, runners=4, jobs=JOBS_BEFORE, job_partitions=2)
        self.appended_before = 0

    async def _storm(self) -> None:
        while len(self.checks.submitted) < JOBS_BEFORE or not self.checks.quiet(self.instances):  # noqa: ASYNC110 -- virtual
            await asyncio.sleep(1.0)
        await asyncio.sleep(QUIET_SECONDS)
        self.appended_before = len(self.log.appended)
        for number in range(JOBS_AFTER):
            await self._send(self._submission(f"late{number}"))
        await asyncio.sleep(0.05)  # Some wait, some run.
        self._store_empty()


@pytest.mark.timeout(300)
def test_recovery_reads_from_the_low_watermark(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folding: set[SimulatedReader] = set()
    counts: Counter[str] = Counter()
    batch, decisions = SimulatedReader.batch, recovery.recorded_decisions

    async def counted(self: SimulatedReader, **options: Any) -> Mapping[Any, Sequence[Record]]:
        found = await batch(self, **options)
        if self in folding:
            counts["records"] += sum(map(len, found.values()))
        return found

    async def noted(reader: Any, *about: Any) -> Any:
        folding.add(reader)
        counts["folds"] += 1
        return await decisions(reader, *about)

    monkeypatch.setattr(SimulatedReader, "batch", counted)
    monkeypatch.setattr(recovery, "recorded_decisions", noted)
    story, outcome = played(1, redis_url, LongHistory)
    assert outcome.failures == ()
    # What was decided before, and the submissions that led to it: none of it is read by any of the folds.
    before = [one for one in story.log.appended[: story.appended_before] if one.topic in FOLDED]
    assert len(before) > 4 * JOBS_BEFORE
    assert counts["folds"] > 0
    assert counts["records"] < counts["folds"] * len(FOLDED) * 3 * JOBS_AFTER < counts["folds"] * len(before) / 3
