"""What only the gateway refuses: a log that does not answer, and bodies that are too large."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from controlplane.api.problems import add_problem_handlers, problem_response
from controlplane.events.errors import envelope
from controlplane.log.connection import LogUnavailable
from controlplane.log.producer import RecordTooLarge


def add_gateway_handlers(app: FastAPI) -> None:
    """Give every kind of error its envelope, those of the log included."""
    add_problem_handlers(app)

    async def on_log_unavailable(request: Request, fault: Exception) -> JSONResponse:
        return problem_response(envelope("log_unavailable", str(fault)), 503, request.url.path)

    async def on_too_large(request: Request, fault: Exception) -> JSONResponse:
        return problem_response(envelope("payload_too_large", str(fault)), 413, request.url.path)

    app.add_exception_handler(LogUnavailable, on_log_unavailable)
    app.add_exception_handler(RecordTooLarge, on_too_large)


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
