"""One HTTP connection that waits for nobody for ever: what a client may send before it is a request, and how slowly.

On uvicorn's protocol, because only there a connection exists before a request does: it bounds headers neither in size nor in time.
"""

import logging
from asyncio import TimerHandle, Transport
from http import HTTPStatus
from typing import Final

import msgspec

from controlplane.api.problems import MEDIA_TYPE, problem_fields
from controlplane.events.errors import envelope
from controlplane.events.types import ErrorEnvelope
from controlplane.security.serving import PeerProtocol

HEADERS_SECONDS: Final = 10.0
"""From the first byte, or from the connection, to the end of the headers."""
HEADERS_BYTES: Final = 32 * 1024
URL_BYTES: Final = 16 * 1024
STALLED_SECONDS: Final = 20.0
"""A client that takes nothing of its answer for so long is let go."""

assert URL_BYTES < HEADERS_BYTES

logger = logging.getLogger(__name__)


class _TooMuch(Exception):
    """The headers are beyond a limit; the envelope says which."""

    def __init__(self, error: ErrorEnvelope, status: int) -> None:
        super().__init__(error.message)
        self.error = error
        self.status = status


class PatientProtocol(PeerProtocol):
    """Serve one connection within bounds; every refusal is an envelope, as everywhere."""

    _deadline: TimerHandle | None = None
    _stalled: TimerHandle | None = None
    _header_bytes = 0
    _refused: _TooMuch | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override] # A server gives it no other transports.
        """Give a new connection the time in which its first request has to come."""
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the connection and its clocks go."""
        self._headers_came()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, unless the headers that it belongs to are beyond a limit."""
        if self._refused is None:
            super().data_received(data)

    def on_message_begin(self) -> None:
        """Begin a request, whose headers have to come in time."""
        super().on_message_begin()
        self._header_bytes = 0
        self._expect_headers()

    def on_url(self, url: bytes) -> None:
        """Take a part of the address."""
        super().on_url(url)
        if len(self.url) > URL_BYTES:
            self._too_much("url_too_long", "an address", "url", URL_BYTES)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > HEADERS_BYTES:
            self._too_much("headers_too_large", "headers", "headers", HEADERS_BYTES)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to serve."""
        self._headers_came()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """Let a client go that takes nothing any more."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client takes what it is sent."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, or has headers beyond a limit, and end the connection."""
        if self._refused is not None:
            self._refuse(self._refused.error, self._refused.status)
        else:
            self._refuse(envelope("http_malformed", "Expected an HTTP/1.1 request, but found something else."), 400)

    def _expect_headers(self) -> None:
        self._headers_came()
        self._deadline = self.loop.call_later(HEADERS_SECONDS, self._headers_late)

    def _headers_came(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _headers_late(self) -> None:
        if self.transport.is_closing():
            return
        if getattr(self.cycle, "response_complete", True) is False:
            self.transport.abort()  # A second request began while the first is being answered: nothing can be said in between.
            return
        text = f"Expected the headers of a request within {HEADERS_SECONDS:g} s, but they did not come."
        self._refuse(envelope("request_timeout", text, field="headers"), 408)

    def _too_much(self, code: str, what: str, field: str, limit: int) -> None:
        error = envelope(code, f"Expected {what} of at most {limit} bytes, but found more.", field=field)
        self._refused = _TooMuch(error, 414 if code == "url_too_long" else 431)
        raise self._refused  # The parser stops, and `send_400_response` is asked for.

    def _refuse(self, error: ErrorEnvelope, status: int) -> None:
        body = msgspec.json.encode(problem_fields(error, status))
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
