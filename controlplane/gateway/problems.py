"""Every error of the gateway is an ErrorEnvelope in the outer form of RFC 9457."""

import logging
import math
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from controlplane.events.errors import ERROR_CODES, envelope
from controlplane.events.types import ErrorEnvelope
from controlplane.log.connection import LogUnavailable
from controlplane.log.producer import RecordTooLarge

MEDIA_TYPE: Final = "application/problem+json"
_CODE_OF_STATUS: Final = {401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed", 409: "conflict", 413: "payload_too_large", 429: "rate_limited", 503: "overloaded"}  # fmt: skip

logger = logging.getLogger(__name__)


class Refused(Exception):
    """A request that cannot be fulfilled, with the envelope that says why."""

    def __init__(self, error: ErrorEnvelope, status: int | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.status = status or ERROR_CODES[error.code].http_status


def refused(code: str, message: str, **details: Any) -> Refused:
    """Return a refusal with the envelope of a code."""
    return Refused(envelope(code, message, **details))


def problem_fields(error: ErrorEnvelope, status: int, instance: str | None = None) -> dict[str, Any]:
    """Return the members of the problem document of an envelope."""
    entry = ERROR_CODES.get(error.code)
    fields = {key: value for key, value in msgspec.to_builtins(error).items() if value is not None}
    outer = {
        "type": f"urn:controlplane:error:{error.code}", "title": entry.title if entry else error.code,
        "status": status, "detail": error.message,
    }  # fmt: skip
    return outer | ({"instance": instance} if instance else {}) | fields


def problem_response(error: ErrorEnvelope, status: int, instance: str | None = None) -> JSONResponse:
    """Return the answer for an envelope, with Retry-After where it says when."""
    headers = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
    return JSONResponse(problem_fields(error, status, instance), status, headers=headers, media_type=MEDIA_TYPE)


def _of_validation(fault: RequestValidationError) -> ErrorEnvelope:
    first = fault.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return envelope(
        "request_invalid", f"Expected {field} to be valid, but: {first['msg']}.",
        field=field, expected=first["msg"], found=first.get("input"),
    )  # fmt: skip


def add_problem_handlers(app: FastAPI) -> None:
    """Give every kind of error its envelope; the last one is the supervised place for what nobody expected."""

    async def on_refused(request: Request, fault: Exception) -> JSONResponse:
        assert isinstance(fault, Refused)
        return problem_response(fault.error, fault.status, request.url.path)

    async def on_validation(request: Request, fault: Exception) -> JSONResponse:
        assert isinstance(fault, RequestValidationError)
        return problem_response(_of_validation(fault), 422, request.url.path)

    async def on_http(request: Request, fault: Exception) -> JSONResponse:
        assert isinstance(fault, HTTPException)
        code = _CODE_OF_STATUS.get(fault.status_code, "request_invalid" if fault.status_code < 500 else "internal")
        text = f"Expected {request.method} {request.url.path} to be served, but: {fault.detail}."
        response = problem_response(envelope(code, text), fault.status_code, request.url.path)
        response.headers.update(fault.headers or {})
        return response

    async def on_log_unavailable(request: Request, fault: Exception) -> JSONResponse:
        return problem_response(envelope("log_unavailable", str(fault)), 503, request.url.path)

    async def on_too_large(request: Request, fault: Exception) -> JSONResponse:
        return problem_response(envelope("payload_too_large", str(fault)), 413, request.url.path)

    async def on_anything(request: Request, fault: Exception) -> JSONResponse:
        error = envelope("internal", "Expected the request to be served, but a fault of ours prevented it.")
        logger.error("Fault %s at %s", error.error_id, request.url.path, exc_info=fault)
        return problem_response(error, 500, request.url.path)

    app.add_exception_handler(Refused, on_refused)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(LogUnavailable, on_log_unavailable)
    app.add_exception_handler(RecordTooLarge, on_too_large)
    app.add_exception_handler(Exception, on_anything)


class BodyLimit:
    """Refuse a request whose body is larger than the limit before more than the limit is read (ASGI middleware)."""

    def __init__(self, app: ASGIApp, limit_bytes: int, streaming_paths: frozenset[str] = frozenset()) -> None:
        """Wrap an application; paths that read their body line by line have limits of their own."""
        self._app = app
        self._limit = limit_bytes
        self._streaming = streaming_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in self._streaming:
            await self._app(scope, receive, send)
            return
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._limit:
                text = f"Expected a body of at most {self._limit} bytes, but found more."
                error = envelope("payload_too_large", text, field="body", expected=f"at most {self._limit} bytes")
                await problem_response(error, 413, scope["path"])(scope, receive, send)
                return
        given = False

        async def replay() -> Any:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)
