"""Archiving over HTTP: for the command; the gateway does not pass it on."""

import anyio.to_thread
from fastapi import FastAPI

from controlplane.api.snapshots import ArchiveAnswer, ArchiveRequest, SnapshotFile
from controlplane.truthcore_projector.archiving import archive
from controlplane.truthcore_projector.store import Store


def add_archive(app: FastAPI, store: Store) -> None:
    """Let detail leave the database of this process when somebody says so."""

    @app.post("/v1/archive")
    async def move(body: ArchiveRequest) -> ArchiveAnswer:
        files = await anyio.to_thread.run_sync(archive, store, body.before)
        return ArchiveAnswer(
            folder=str(store.archive), rows=sum(one.rows for one in files),
            files=[SnapshotFile(name=one.name, sha256=one.sha256, size_bytes=one.size_bytes) for one in files],
        )  # fmt: skip
