"""Alerts of instances that died: the next ones take them back when they are no longer so."""

import asyncio

import msgspec
import pytest

from controlplane.events.types import AlertCleared, AlertRaised
from tests.simulation.history import History
from tests.simulation.run import played
from tests.simulation.stores import Server
from tests.simulation.world import World

STORE = "store_unavailable"
RUNNER = "runner_lost"


class EverybodyDies(History):
    """Instances that raise alerts and are killed, all of them, before it is over."""

    def __init__(self, world: World, server: Server) -> None:
        super().__init__(world, server, frozenset())
        self.plan = msgspec.structs.replace(self.plan, instances=2, runners=2, jobs=8)

    async def _until(self, kind: str, said: type) -> None:
        async with asyncio.timeout(60):
            while [type(one) for one in self.checks.alerts(kind)] != [said]:  # noqa: ASYNC110 -- virtual
                await asyncio.sleep(0.1)

    def _kill_all(self) -> None:
        for one in self.instances:
            one.crash("killed")

    async def _storm(self) -> None:
        await self._until(STORE, AlertCleared)
        self.server.down = True
        await self._until(STORE, AlertRaised)
        self._kill_all()
        self.server.down = False
        await self._until(STORE, AlertCleared)
        lost = self.runners[0]
        lost.vanish()
        await self._until(RUNNER, AlertRaised)
        self._kill_all()
        self._start_runner(lost.kind)
        await self._until(RUNNER, AlertCleared)


@pytest.mark.parametrize("seed", range(1, 4))
def test_what_instances_raised_that_died_is_cleared_by_the_next(seed: int, redis_url: str) -> None:
    _, outcome = played(seed, redis_url, EverybodyDies)
    assert outcome.failures == ()
