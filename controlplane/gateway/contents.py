"""Payloads and results that are too large for the log: their bytes by digest, checked against it."""

import asyncio
from typing import Annotated, cast
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Response

from controlplane.api.models import Identifier, JobAnswer
from controlplane.api.problems import refused
from controlplane.contents.store import SCHEME, ContentCorrupt, ContentMissing
from controlplane.events.types import Content, ContentReference
from controlplane.gateway.callers import CALLER
from controlplane.gateway.cores import TruthCores
from controlplane.gateway.submissions import door_of

Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256, as a job's reference has it.")]

OfJob = Annotated[
    Identifier | None,
    Query(description="A job whose payload or result it is; needed by whoever sees one tenant alone."),
]

router = APIRouter(prefix="/v1/contents", tags=["jobs"])


@router.get("/{sha256}", responses={200: {"content": {"application/octet-stream": {}}}})
async def content(request: Request, sha256: Digest, job: OfJob = None) -> Response:
    """Return the bytes with this digest; they are read and checked before the first one is sent."""
    door = door_of(request)
    if not CALLER.get().of_all_tenants:
        await _check_job(request, job, sha256)
    wanted = Content(reference=ContentReference(uri=SCHEME + sha256, sha256=sha256, size_bytes=0))
    try:
        data = await asyncio.to_thread(door.contents.check_out, wanted)
    except ContentMissing as error:
        raise refused("not_found", str(error), field="sha256", found=sha256) from error
    except ContentCorrupt as error:
        raise refused("content_corrupt", str(error), field="sha256", found=sha256) from error
    return Response(data, media_type="application/octet-stream", headers={"etag": f'"{sha256}"'})


async def _check_job(request: Request, job_id: str | None, sha256: str) -> None:
    """Return if the bytes belong to a job that the caller sees: knowing a digest is no right to what it is of.

    Raises:
        Refused: they do not.
    """
    if job_id is not None:
        cores = cast(TruthCores, request.app.state.truthcores)
        answer = await cores.ask("GET", f"/v1/jobs/{quote(job_id)}", b"", b"")
        if answer.status_code == 200:
            view = JobAnswer.model_validate_json(bytes(answer.body)).job
            if sha256 in {one.sha256 for one in (view.payload_reference, view.result_reference) if one is not None}:
                return
    text = f"Expected a job of yours that has the content {sha256}, but {job_id or 'no job'} has not."
    raise refused("not_found", text, field="job", found=job_id)
