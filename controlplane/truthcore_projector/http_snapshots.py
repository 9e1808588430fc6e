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

    @app.get("/v1/snapshot/{name}")
    async def content(
        name: Annotated[str, Path(pattern=r"^([0-9a-f]{64}\.duckdb|[a-z_]+-[0-9a-f]{64}\.parquet)$")],
    ) -> FileResponse:
        file = snapshots.file(name)
        if not file.is_file():
            raise refused("not_found", f"Expected {name} of a snapshot, but it is not kept any more.", found=name)
        return FileResponse(file, media_type="application/octet-stream")
