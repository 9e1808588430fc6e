"""What runners say of themselves and operators declare: noted in the store, and read from there by every instance."""

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.events import types
from controlplane.events.catalog import CONTROLS
from controlplane.events.job_contracts import Registry
from controlplane.jobforge_agent.batch import Consumed
from controlplane.jobforge_agent.changes import Changes
from controlplane.jobforge_agent.control_store import Noted, noted
from controlplane.jobforge_agent.router import Router
from controlplane.jobforge_agent.store import Store, partition_text
from controlplane.log.positions import Partition
from controlplane.log.producer import OutgoingRecord


class Notes:
    """The registry of runners and the controls, as this instance last saw them."""

    def __init__(self, store: Store, router: Router) -> None:
        """Know nothing yet."""
        self._store = store
        self._router = router
        self.registry = Registry({})
        self._registry_version = -1
        self.controls = router.controls

    async def take(
        self,
        batch: Sequence[Consumed],
        *,
        expect: Mapping[Partition, tuple[int, int]],
        outbox: tuple[str, Sequence[OutgoingRecord]],
    ) -> bool:
        """Note the events of a batch of one partition, in their order. False: the store is not where the batch begins.

        What operators declare is noted in one step with the position, so that nobody who comes late with it takes back what was declared since. What
        runners say is noted first, and said again soon; the position follows.
        """
        if batch[0].position.topic == CONTROLS.name:
            places = {partition_text(place): positions for place, positions in expect.items()}
            known = await self._store.controls.note(_declared(batch), expect=places, outbox=outbox)
            await self.refresh_controls()
            return known
        for consumed in batch:
            if consumed.error is None:
                await self.take_runner(consumed.event, consumed.at)
        return await self._store.commit(Changes(), expect=expect, outbox=outbox) == "ok"

    async def fold(self, batch: Sequence[Consumed], ends: Mapping[Partition, int]) -> None:
        """Note everything that was ever declared, up to where the log ends; a store that knows of it stays as it is."""
        await self._store.controls.note(_declared(batch), fold={partition_text(one): end for one, end in ends.items()})
        await self.refresh_controls()

    async def take_runner(self, event: Any, at: int) -> None:
        """Note what a runner says of itself."""
        match event:
            case types.RunnerRegistered():
                await self._store.runners.register(event, at)
            case types.RunnerHeartbeat():
                await self._store.runners.beat(event.runner_id, at, event.attempt_ids, draining=event.draining)
            case types.RunnerDraining():
                await self._store.runners.drain(event.runner_id)
            case types.RunnerLeft():
                await self._store.runners.forget(event.runner_id)

    async def refresh(self) -> None:
        """Tell the router who lives, and take new contracts and controls."""
        await self.refresh_registry(await self._store.runners.version())
        await self.refresh_controls()
        self._router.update(
            self.registry.runners, await self._store.runners.beats(), await self._store.runners.draining()
        )

    async def refresh_registry(self, version: int) -> None:
        """Take new contracts if there are any."""
        if version != self._registry_version:
            self.registry = Registry(await self._store.runners.registered(), await self._store.runners.known())
            self._registry_version = version

    async def refresh_controls(self) -> None:
        """Take new controls if there are any."""
        before = self.controls.version
        await self.controls.follow(await self._store.controls.version())
        if self.controls.version != before:
            self._router.wake.set()


def _declared(batch: Sequence[Consumed]) -> list[Noted]:
    """Return what the store keeps of a batch; a key that is gone is nothing to route by."""
    return [
        noted(one.event, one.position, one.at)
        for one in batch if one.error is None and not isinstance(one.event, types.SecretForgotten)
    ]  # fmt: skip
