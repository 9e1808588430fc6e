"""Snapshots over HTTP: for peers and for the command that puts one into a folder."""

from typing import Annotated

import anyio.to_thread
from fastapi import FastAPI, Path, Query
from fastapi.responses import FileResponse

from controlplane.api.problems import refused
from controlplane.api.snapshots import SnapshotManifest
from controlplane.truthcore_projector.snapshots import Snapshots


def add_snapshots(app: FastAPI, snapshots: Snapshots) -> None:
    """Offer the newest snapshot of this process."""

    @app.get("/v1/snapshot")
    async def manifest(max_age_seconds: Annotated[float, Query(ge=0, le=86_400)] = 60.0) -> SnapshotManifest:
        return await anyio.to_thread.run_sync(snapshots.newest, max_age_seconds)

    @app.get("/v1/snapshot/{sha256}")
    async def content(sha256: Annotated[str, Path(pattern="^[0-9a-f]{64}$")]) -> FileResponse:
        file = snapshots.file(sha256)
        if not file.is_file():
            raise refused("not_found", f"Expected a snapshot {sha256}, but it is not kept any more.", found=sha256)
        return FileResponse(file, media_type="application/vnd.duckdb")
