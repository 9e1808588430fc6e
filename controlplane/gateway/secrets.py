"""Payloads and results that are encrypted: read in the clear while their key is kept, and never again once it was forgotten."""

import asyncio
from typing import Annotated, Any, cast
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Depends, Path, Request
from pydantic import Field

from controlplane.api.models import Acknowledgement, Identifier, Model, TenantName
from controlplane.api.problems import refused
from controlplane.contents.keys import KeyForgotten, KeyMissing
from controlplane.contents.store import ContentCorrupt, ContentMissing
from controlplane.events import types
from controlplane.gateway.callers import CALLER
from controlplane.gateway.cores import TruthCores
from controlplane.gateway.idempotency import declared
from controlplane.gateway.records import event_at
from controlplane.gateway.submissions import command_header, door_of
from controlplane.log.positions import parse_position, position_text

SecretName = Annotated[Identifier, Path(description="The name, as `secret` of a job.")]

router = APIRouter(prefix="/v1", tags=["secrets"])


class ForgetRequest(Model):
    """Why, for the log."""

    reason: str = Field("", max_length=1000)
    tenant: TenantName | None = Field(None, description="Whose secret it is; by default that of whoever asks.")


class Forgotten(Acknowledgement):
    """That a key is forgotten stands on the log at this position."""

    key_id: str = Field(description="The whole name of the key: tenant/name.")
    existed: bool = Field(description="False if there was no such key: it was never made, or forgotten before.")


class OpenedView(Model):
    """What a job was given and what it returned, in the clear."""

    payload: Any
    result: Any


@router.post("/secrets/{name:path}/forget", status_code=202, dependencies=[Depends(declared)])
async def forget(request: Request, name: SecretName, body: ForgetRequest | None = None) -> Forgotten:
    """Forget a key: every payload and result that it encrypted is unreadable from now on, wherever its bytes are.

    The name is never used again, also if there was no key: `existed` tells a mistyped name from a key.

    1. That it is forgotten goes on the log. A crash after it: the caller, who got no answer, asks again.
    2. The key is destroyed.
    """
    door, wish = door_of(request), body or ForgetRequest()
    tenant = CALLER.get().tenant_for(wish.tenant)
    key_id = f"{tenant}/{name}"
    if door.contents.keys is None:
        raise refused(
            "key_missing", f"Expected the keys of this installation, but the gateway has none to forget {name}."
        )
    header = msgspec.structs.replace(command_header(request, "SecretForgotten", f"secret:{key_id}"), tenant=tenant)
    event = types.SecretForgotten(header=header, subject=f"secret:{key_id}", key_id=key_id, reason=wish.reason)
    position = await door.producer.publish(event)
    existed = await asyncio.to_thread(door.contents.keys.forget, key_id)
    return Forgotten(
        event_id=header.event_id, position=position_text(position), correlation_id=header.correlation_id, key_id=key_id,
        existed=existed,
    )  # fmt: skip


@router.get("/jobs/{job_id:path}/opened")
async def opened(request: Request, job_id: Identifier) -> OpenedView:
    """Return the payload and the result of a job in the clear; 410 once their key was forgotten."""
    cores = cast(TruthCores, request.app.state.truthcores)
    return OpenedView(
        payload=await _read(request, await _first(cores, job_id, "JobSubmitted"), "payload"),
        result=await _read(request, await _first(cores, job_id, "JobCompleted"), "result"),
    )


async def _first(cores: TruthCores, job_id: str, event_type: str) -> str | None:
    """Return where the first record of this type about a job is.

    Raises:
        Refused: the log does not know the job.
    """
    answer = await cores.ask(
        "GET", f"/v1/jobs/{quote(job_id)}/events", f"limit=1&event_type={event_type}".encode(), b""
    )
    if answer.status_code != 200:
        text = f"Expected a job {job_id}, but the log does not know it."
        raise refused("not_found", text, field="job_id", found=job_id)
    return next((str(one["position"]) for one in msgspec.json.decode(bytes(answer.body))["events"]), None)


async def _read(request: Request, position: str | None, field: str) -> Any:
    if position is None:
        return None
    place = parse_position(position)
    event = await event_at(request.app.state.connection, place.topic, place.partition, place.offset)
    content: types.Content = getattr(event, field)
    try:
        data = await asyncio.to_thread(door_of(request).contents.check_out, content)
    except KeyForgotten as error:
        raise refused("content_forgotten", str(error), field=field) from error
    except KeyMissing as error:
        raise refused("key_missing", str(error), field=field) from error
    except ContentMissing as error:
        raise refused("not_found", str(error), field=field) from error
    except ContentCorrupt as error:
        raise refused("content_corrupt", str(error), field=field) from error
    return msgspec.json.decode(data) if data else None
