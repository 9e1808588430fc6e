"""Every error over HTTP is an ErrorEnvelope in the outer form of RFC 9457."""

import logging
import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from controlplane.events.errors import ERROR_CODES, envelope
from controlplane.events.types import ErrorEnvelope

MEDIA_TYPE: Final = "application/problem+json"
_CODE_OF_STATUS: Final = {401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed", 406: "not_acceptable", 408: "request_timeout", 409: "conflict", 413: "payload_too_large", 415: "unsupported_media_type", 429: "rate_limited", 503: "overloaded"}  # fmt: skip
_METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")

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


def of_faults(faults: Sequence[Any], whole: str) -> ErrorEnvelope:
    """Return the envelope of the first of the faults that Pydantic found; `whole` names what has no field."""
    first = faults[0]
    field = ".".join(str(part) for part in first["loc"]) or whole
    found = first.get("input")
    return envelope(
        "request_invalid", f"Expected {field} to be valid, but: {first['msg']}.",
        field=field, expected=first["msg"], found=None if isinstance(found, dict) else found,
    )  # fmt: skip


def of_http(request: Request, fault: HTTPException) -> JSONResponse:
    """Return the answer for what the framework itself refused: no such path, method, or header."""
    code = _CODE_OF_STATUS.get(fault.status_code, "request_invalid" if fault.status_code < 500 else "internal")
    text = f"Expected {request.method} {request.url.path} to be served, but: {fault.detail}."
    response = problem_response(envelope(code, text), fault.status_code, request.url.path)
    response.headers.update(fault.headers or {})
    if fault.status_code == 405 and fault.detail == "Method Not Allowed" and (methods := allowed_methods(request)):
        response.headers["Allow"] = ", ".join(sorted(methods))
    return response


def allowed_methods(request: Request) -> set[str]:
    """Return every method that some route of this path takes; the framework names those of the first route only."""
    routes = request.app.routes
    return {
        method
        for method in _METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    }


def add_problem_handlers(app: FastAPI) -> None:
    """Give every kind of error its envelope; the last one is the supervised place for what nobody expected."""

    async def on_refused(request: Request, fault: Exception) -> JSONResponse:
        assert isinstance(fault, Refused)
        return problem_response(fault.error, fault.status, request.url.path)

    async def on_validation(request: Request, fault: Exception) -> JSONResponse:
        assert isinstance(fault, RequestValidationError)
        return problem_response(of_faults(fault.errors(), "request"), 422, request.url.path)

    async def on_http(request: Request, fault: Exception) -> JSONResponse:
        assert isinstance(fault, HTTPException)
        return of_http(request, fault)

    async def on_anything(request: Request, fault: Exception) -> JSONResponse:
        error = envelope("internal", "Expected the request to be served, but a fault of ours prevented it.")
        logger.error("Fault %s at %s", error.error_id, request.url.path, exc_info=fault)
        return problem_response(error, 500, request.url.path)

    app.add_exception_handler(Refused, on_refused)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_anything)
