"""Brokers that are away for longer than a lease: nobody could be heard, so nobody was silent."""

import asyncio

import msgspec
import pytest

from controlplane.events import types
from controlplane.events.codec import decode
from tests.simulation.history import History
from tests.simulation.instances import LEASE_SECONDS
from tests.simulation.run import played
from tests.simulation.stores import Server
from tests.simulation.world import World


class LogAway(History):
    """Healthy runners at work, and brokers that do not answer for a while."""

    def __init__(self, world: World, server: Server) -> None:
        super().__init__(world, server, frozenset())
        self.plan = msgspec.structs.replace(self.plan, runners=2, jobs=40, storm_seconds=10.0)

    async def _storm(self) -> None:
        await asyncio.sleep(3.0)
        self.world.log_away_until = self.world.seconds + self.world.random.uniform(1, 5) * LEASE_SECONDS
        self.world.note(f"the brokers are away until {self.world.log_away_until:.1f} s")
        while self.world.log_away:  # noqa: ASYNC110 -- virtual
            await asyncio.sleep(1.0)

    async def _heal(self) -> None:
        self._calm = True
        for place in ("here", "there"):  # Beside the others, of whom none ends.
            self._start_runner(f"calm/{place}")


@pytest.mark.parametrize("seed", range(1, 7))
def test_no_attempt_is_lost_while_nobody_listens(seed: int, redis_url: str) -> None:
    story, outcome = played(seed, redis_url, LogAway)
    assert outcome.failures == ()
    events = [decode(one.value) for one in story.log.appended]
    submitted = {one.job_id for one in events if isinstance(one, types.JobSubmitted)}
    assert submitted == {f"job{number + 1}" for number in range(40)}
    assert [one for one in events if isinstance(one, types.AttemptLost | types.JobFailed)] == []
