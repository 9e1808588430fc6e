"""Payloads and results that are too large for the log: their bytes by digest, checked against it."""

import asyncio
from typing import Annotated, cast

from fastapi import APIRouter, Path, Request, Response

from controlplane.api.problems import refused
from controlplane.contents.store import SCHEME, ContentCorrupt, ContentMissing
from controlplane.events.types import Content, ContentReference
from controlplane.gateway.submissions import Door

Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256, as a job's reference has it.")]

router = APIRouter(prefix="/v1/contents", tags=["jobs"])


@router.get("/{sha256}", responses={200: {"content": {"application/octet-stream": {}}}})
async def content(request: Request, sha256: Digest) -> Response:
    """Return the bytes with this digest; they are read and checked before the first one is sent."""
    door = cast(Door, request.app.state.door)
    wanted = Content(reference=ContentReference(uri=SCHEME + sha256, sha256=sha256, size_bytes=0))
    try:
        data = await asyncio.to_thread(door.contents.check_out, wanted)
    except ContentMissing as error:
        raise refused("not_found", str(error), field="sha256", found=sha256) from error
    except ContentCorrupt as error:
        raise refused("content_corrupt", str(error), field="sha256", found=sha256) from error
    return Response(data, media_type="application/octet-stream", headers={"etag": f'"{sha256}"'})
