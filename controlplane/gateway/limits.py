"""What only the gateway refuses: a log that does not answer, bodies that are too large, too slow, or of another form, and forms of answers that it has not."""

import asyncio
from typing import Any, Final, cast

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic_core import from_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controlplane.api.problems import Refused, add_problem_handlers, problem_response, refused
from controlplane.events.errors import envelope
from controlplane.log.connection import LogUnavailable
from controlplane.log.producer import RecordTooLarge

BODY_LIMIT_BYTES: Final = 16 * 1024 * 1024
BODY_SECONDS: Final = 30.0
"""A body comes within this time; one that is read line by line may pause so long between two parts."""
LINES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/json")


class BodyLate(Exception):
    """Expected the rest of a body in time, but it did not come."""


def add_gateway_handlers(app: FastAPI) -> None:
    """Give every kind of error its envelope, those of the log included."""
    add_problem_handlers(app)

    async def on_log_unavailable(request: Request, fault: Exception) -> JSONResponse:
        return unavailable(fault, request.url.path)

    async def on_too_large(request: Request, fault: Exception) -> JSONResponse:
        return problem_response(envelope("payload_too_large", str(fault)), 413, request.url.path)

    app.add_exception_handler(LogUnavailable, on_log_unavailable)
    app.add_exception_handler(RecordTooLarge, on_too_large)


def unavailable(fault: Exception, path: str) -> JSONResponse:
    """Return the answer while the log does not take or give anything."""
    return problem_response(envelope("log_unavailable", str(fault)), 503, path)


def header_in(scope: Scope, name: bytes) -> str | None:
    """Return a header of a request, named in lower case; the first where there are several."""
    for key, value in scope["headers"]:
        if key == name:
            return cast(bytes, value).decode("latin-1")
    return None


async def in_time(receive: Receive) -> Message:
    """Return the next part of a body.

    Raises:
        BodyLate: it does not come within `BODY_SECONDS`.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await receive()
    except TimeoutError as error:
        raise BodyLate(f"Expected the body of the request within {BODY_SECONDS:g} s, but it did not come.") from error


class Intake:
    """Read a request's body within its bounds and judge its form before anything else looks at it (ASGI middleware)."""

    def __init__(self, app: ASGIApp, streaming_paths: frozenset[str] = frozenset()) -> None:
        """Wrap an application; paths that read their body line by line have limits of their own."""
        self._app = app
        self._streaming = streaming_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            if scope["path"].startswith("/v1/"):
                judge_accept(header_in(scope, b"accept"))
            if scope["path"] in self._streaming:
                if scope["method"] == "POST":
                    judge_content_type(header_in(scope, b"content-type"), LINES)
                await self._app(scope, receive, send)
                return
            body = await read_body(receive)
            if body is None:
                return
            if body and scope["method"] != "GET":
                judge_content_type(header_in(scope, b"content-type"))
                judge_json(body)
        except BodyLate as late:
            answer = problem_response(envelope("request_timeout", str(late), field="body"), 408, scope["path"])
            answer.headers["connection"] = "close"
            await answer(scope, receive, send)
        except Refused as fault:
            await problem_response(fault.error, fault.status, scope["path"])(scope, receive, send)
        else:
            await self._app(scope, again(body, receive), send)


async def read_body(receive: Receive) -> bytes | None:
    """Return a whole body; None when the client left.

    Raises:
        BodyLate: it takes too long.
        Refused: it is larger than the limit; no more than the limit is read.
    """
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                if part := message.get("body", b""):
                    parts.append(part)
                    size += len(part)
                    if size > BODY_LIMIT_BYTES:
                        raise _too_large()
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
    except TimeoutError as error:
        raise BodyLate(f"Expected the whole body within {BODY_SECONDS:g} s, but it did not come.") from error


def _too_large() -> Refused:
    text = f"Expected a body of at most {BODY_LIMIT_BYTES} bytes, but found more."
    return refused("payload_too_large", text, field="body", expected=f"at most {BODY_LIMIT_BYTES} bytes")


def again(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body that was read once more, and then what the connection says."""
    given = False

    async def replay() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def judge_content_type(found: str | None, expected: tuple[str, ...] = ("application/json",)) -> None:
    """Return if a body has a form that is taken.

    Raises:
        Refused: it has another, or does not say.
    """
    kind = (found or "").partition(";")[0].strip().lower()
    if kind in expected or (kind.startswith("application/") and kind.endswith("+json")):
        return
    wanted = " or ".join(expected)
    text = f"Expected a body with the header Content-Type: {wanted}, but found {kind[:100] or 'none'}."
    raise refused("unsupported_media_type", text, field="content-type", expected=wanted, found=kind or None)


def judge_json(body: bytes) -> None:
    """Return if a body is JSON (RFC 8259): UTF-8, no NaN or Infinity, no half characters, not nested beyond 200 levels.

    Raises:
        Refused: it is not; the message says where.
    """
    try:
        from_json(body, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        text = f"Expected the body to be JSON, but: {error}."
        raise refused("request_invalid", text, field="body", expected="JSON") from error


def judge_accept(found: str | None) -> None:
    """Return if one of the forms that there are is accepted: JSON, lines of JSON, server-sent events, tables, bytes.

    Raises:
        Refused: only other forms are.
    """
    if not found or "*/*" in found:
        return
    for part in found.lower().split(","):
        kind, _, parameters = part.partition(";")
        kind = kind.strip()
        refused_kind = any(one.strip() in {"q=0", "q=0.0", "q=0.00", "q=0.000"} for one in parameters.split(";"))
        if not refused_kind and (kind in _SERVED or kind.endswith("+json")):
            return
    text = f"Expected application/json to be accepted, but found Accept: {found[:200]}."
    raise refused("not_acceptable", text, field="accept", expected="application/json", found=found)


_SERVED: Final = frozenset(
    {
        "application/json",
        "application/*",
        "application/octet-stream",
        "application/x-ndjson",
        "text/event-stream",
        "text/*",
        "application/vnd.apache.arrow.stream",
        "application/vnd.apache.parquet",
    }
)
