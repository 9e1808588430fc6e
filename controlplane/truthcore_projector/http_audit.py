"""The audit over HTTP: digests, and how the projection differs between two moments."""

from typing import Annotated, Any

import anyio.to_thread
from fastapi import FastAPI, Query

from controlplane.api import models
from controlplane.api.audits import AuditDiffAnswer
from controlplane.log.positions import Partition
from controlplane.truthcore_projector.asking import Asked, AsOfText, Limit, MinPosition, WaitSeconds, as_of_from
from controlplane.truthcore_projector.comparison import between
from controlplane.truthcore_projector.digest import digest
from controlplane.truthcore_projector.moments import bounds
from controlplane.truthcore_projector.projector import Projector
from controlplane.truthcore_projector.store import Store, positions_in


def add_audit(app: FastAPI, asked: Asked, projector: Projector, store: Store) -> None:
    """Give TruthCore its questions about the projection itself."""

    @app.get("/v1/audit/diff")
    async def diff(
        begin: Annotated[str, Query(alias="from", description="As as_of: what the log knew before.")],
        end: Annotated[str | None, Query(alias="to", description="As as_of: what it knew after; by default all.")] = None,
        limit: Limit = 100, min_position: MinPosition = None, wait_seconds: WaitSeconds = 30.0,
    ) -> AuditDiffAnswer:  # fmt: skip
        before, after = as_of_from(begin, "from"), as_of_from(end, "to")
        found, reflects = await asked(min_position, wait_seconds, lambda c: between(c, before, after, limit))
        return AuditDiffAnswer(**dict(found), reflects=reflects)

    @app.get("/v1/digest")
    async def digests(
        as_of: AsOfText = None, min_position: MinPosition = None, wait_seconds: WaitSeconds = 30.0
    ) -> models.DigestAnswer:
        """Digest the projection, or that part of it that the log knew then: `reflects` has those positions."""
        known = as_of_from(as_of)

        def work(cursor: Any) -> tuple[list[models.TableDigest], dict[Partition, int]]:
            there, ends = positions_in(cursor), bounds(cursor, known)
            cut = {one: min(offset, ends.get(one, offset)) for one, offset in there.items()}
            return digest(cursor, cut), cut

        await anyio.to_thread.run_sync(store.see_archive)
        (tables, cut), reflects = await asked(min_position, wait_seconds, work)
        shown = reflects.model_copy(update={"positions": projector.reflects(cut).positions}) if known else reflects
        return models.DigestAnswer(tables=tables, reflects=shown)
