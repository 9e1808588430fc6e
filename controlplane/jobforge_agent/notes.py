"""What runners say of themselves and operators declare: noted in the store, and read from there by every instance."""

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.events import types
from controlplane.events.catalog import CONTROLS
from controlplane.events.job_contracts import Registry
from controlplane.jobforge_agent.batch import Consumed
from controlplane.jobforge_agent.control_store import Noted, Place, noted
from controlplane.jobforge_agent.router import Router
from controlplane.jobforge_agent.store import Store


class Notes:
    """The registry of runners and the controls, as this instance last saw them."""

    def __init__(self, store: Store, router: Router) -> None:
        """Know nothing yet."""
        self._store = store
        self._router = router
        self.registry = Registry({})
        self._registry_version = -1
        self.controls = router.controls

    async def take(self, batch: Sequence[Consumed], *, fold: Mapping[str, int] | None = None) -> bool:
        """Note the events of a batch, in their order; a batch that comes again changes nothing. False: the store has to be folded first.

        `fold` says that the batch is everything that was ever declared, up to its positions.
        """
        changes: list[Noted] = []
        for consumed in batch:
            if consumed.error is not None or isinstance(consumed.event, types.SecretForgotten):
                continue  # A key that is gone is nothing to route by.
            if consumed.position.topic == CONTROLS.name:
                changes.append(noted(consumed.event, consumed.position, consumed.at))
            else:
                await self.take_runner(consumed.event, consumed.at)
        if not changes and fold is None:
            return True
        known = await self._store.controls.note(changes, fold=fold)
        await self.refresh_controls()
        return known

    async def take_runner(self, event: Any, at: int) -> None:
        """Note what a runner says of itself."""
        match event:
            case types.RunnerRegistered():
                await self._store.register(event, at)
            case types.RunnerHeartbeat():
                await self._store.beat(event.runner_id, at, event.attempt_ids, draining=event.draining)
            case types.RunnerDraining():
                await self._store.drain(event.runner_id)
            case types.RunnerLeft():
                await self._store.forget_runner(event.runner_id)

    async def refresh(self) -> None:
        """Tell the router who lives, and take new contracts and controls."""
        await self.refresh_registry(await self._store.registry_version())
        await self.refresh_controls()
        self._router.update(self.registry.runners, await self._store.beats(), await self._store.draining())

    async def refresh_registry(self, version: int) -> None:
        """Take new contracts if there are any."""
        if version != self._registry_version:
            self.registry = Registry(await self._store.runners(), await self._store.known_runners())
            self._registry_version = version

    async def refresh_controls(self) -> None:
        """Take new controls if there are any."""
        before = self.controls.version
        await self.controls.follow(await self._store.controls.version())
        if self.controls.version != before:
            self._router.wake.set()

    async def place_of(self, subject: str) -> Place | None:
        """Return where a schedule or a bulk command was declared."""
        return await self._store.controls.place(subject)
