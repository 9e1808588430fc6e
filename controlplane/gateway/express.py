"""The call that comes by the thousand, without the framework's machinery, which costs more than everything else that it needs.

Only what is valid is taken here. Whatever is not goes on to the same call as the framework declares it, which finds the fault again and says
it: there is one contract, one description and one form of every refusal.
"""

import re
from typing import Final, cast

import msgspec
from pydantic import ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from controlplane.api.models import JobRequest
from controlplane.api.problems import Refused
from controlplane.gateway.idempotency import KEY_PATTERN
from controlplane.gateway.limits import again, header_in, unavailable
from controlplane.gateway.submissions import Door, submission
from controlplane.log.connection import LogUnavailable
from controlplane.log.positions import position_text
from controlplane.log.producer import OutgoingRecord, RecordTooLarge

PATH: Final = "/v1/jobs"
_KEY: Final = re.compile(KEY_PATTERN)


class _Route(msgspec.Struct, frozen=True):
    """What metrics and spans call the call."""

    path: str


_ROUTE: Final = _Route(path=PATH)


class Express:
    """Take single submissions (ASGI middleware, the innermost: bodies were judged before)."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application that takes them, too."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        message = await receive()  # The whole body, which was read and judged before.
        if message["type"] == "http.disconnect":
            return
        body: bytes = message["body"]
        door = cast(Door, scope["app"].state.door)
        found = _event_of(body, header_in(scope, b"idempotency-key"), door)
        if found is None:
            await self._app(scope, again(body, receive), send)
            return
        scope["route"] = _ROUTE
        record, said = found
        try:
            (position,) = await door.producer.send([record])
        except LogUnavailable as fault:
            await unavailable(fault, PATH)(scope, receive, send)
            return
        said["position"] = position_text(position)
        answer = msgspec.json.encode(said)
        headers = [(b"content-length", b"%d" % len(answer)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


def _event_of(body: bytes, key: str | None, door: Door) -> tuple[OutgoingRecord, dict[str, str]] | None:
    """Return the record of a submission and what is said of it; None for what has to be refused. Nothing is written yet."""
    if key is not None and not _KEY.fullmatch(key):
        return None
    try:
        event = submission(JobRequest.model_validate_json(body), door, None, key)
        record = door.producer.record(event)
    except (ValidationError, Refused, RecordTooLarge):
        return None
    header = event.header
    return record, {
        "job_id": event.job_id, "event_id": header.event_id, "position": "", "correlation_id": header.correlation_id,
    }  # fmt: skip
