"""How a question is answered: from one snapshot of this file, or of this one and one of each other shard."""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import anyio.to_thread

from controlplane.api.models import Reflects
from controlplane.api.problems import refused
from controlplane.truthcore_projector.asking import as_of_from
from controlplane.truthcore_projector.cursors import Cursor, Gathered, Snapshot
from controlplane.truthcore_projector.past import as_it_was
from controlplane.truthcore_projector.peers import PartLost, Peers, merged
from controlplane.truthcore_projector.projector import Projector
from controlplane.truthcore_projector.store import Store, positions_in
from controlplane.truthcore_projector.visibility import TENANTS

T = TypeVar("T")

TRIES: Final = 3
"""A question whose replica dies under it is asked again, of others."""


class Answering:
    """Answers a question once the wanted positions are reflected, off the event loop, and says what the answer reflects."""

    def __init__(self, store: Store, projector: Projector, peers: Peers | None = None) -> None:
        """Take the file, how far it is, and where the other shards are, if there are any."""
        self._store = store
        self._projector = projector
        self._peers = peers

    async def __call__(
        self,
        min_position: Sequence[str] | None,
        wait_seconds: float,
        work: Callable[[Any], T],
        as_of: str | None = None,
    ) -> tuple[T, Reflects]:
        """Return what `work` finds in a snapshot that holds these positions, or in what of it the log knew at a moment.

        Raises:
            Refused: a position is none, or is not reached in time; or no replica of a shard answers.
        """
        texts, known = list(min_position or ()), as_of_from(as_of)

        def then(cursor: Cursor) -> T:
            return work(as_it_was(cursor, known))

        await self._projector.wait_for(texts, wait_seconds)
        if self._peers is None:
            return await anyio.to_thread.run_sync(self._from_here, then)
        return await anyio.to_thread.run_sync(self._from_all, self._peers, texts, wait_seconds, then)

    def _from_here(self, work: Callable[[Cursor], T]) -> tuple[T, Reflects]:
        with self._store.snapshot(TENANTS.get()) as cursor:
            return work(cursor), self._projector.standing(positions_in(cursor)).reflects

    def _from_all(
        self, peers: Peers, texts: Sequence[str], wait_seconds: float, work: Callable[[Cursor], T]
    ) -> tuple[T, Reflects]:
        shard = self._projector.shard
        others = [number for number in range(shard.of) if number != shard.number]
        wanted = self._projector.wanted(texts)
        fault: PartLost | None = None
        for _ in range(TRIES):
            try:
                with (
                    peers.parts(others, wanted, texts, wait_seconds) as parts,
                    self._store.snapshot(TENANTS.get()) as cursor,
                ):
                    here = self._projector.standing(positions_in(cursor))
                    reflects = merged([here, *(part.standing for part in parts)])
                    return work(Gathered([Snapshot(cursor), *parts])), reflects
            except PartLost as error:
                fault = error
        raise refused("projection_unavailable", f"Expected every shard to answer, but one went away: {fault}")
