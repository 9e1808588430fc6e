"""How often one client may ask: a bucket of tokens for each, that fills at the rate of the setting."""

import time
from collections import OrderedDict
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from controlplane.api.problems import problem_response
from controlplane.events.errors import envelope
from controlplane.gateway.callers import CALLER

CLIENTS_REMEMBERED: Final = 10_000
"""The one that was silent longest is forgotten first: its bucket was full again long ago, or soon is."""
BURST_SECONDS: Final = 2.0
FREE_PATHS: Final = ("/health", "/metrics")


class Pace:
    """Count requests of clients; pure but for the time that it is told."""

    def __init__(self, per_second: float) -> None:
        """Let each client ask so often, and for a moment twice as much."""
        self._rate = per_second
        self._most = max(1.0, per_second * BURST_SECONDS)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_seconds(self, client: str, now: float) -> float:
        """Count a request; returns 0 when it may be served, else after how many seconds the next one may."""
        tokens, since = self._buckets.pop(client, (self._most, now))
        tokens = min(self._most, tokens + max(0.0, now - since) * self._rate)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self._rate
        self._buckets[client] = (tokens if wait else tokens - 1, now)
        if len(self._buckets) > CLIENTS_REMEMBERED:
            self._buckets.popitem(last=False)
        return wait


def client_of(scope: Scope) -> str:
    """Return what tells a client from others: its name where it has one, else its address."""
    caller, place = CALLER.get(), scope.get("client")
    return f"{caller.tenant}/{caller.name}" if caller.known else str(place[0]) if place else ""


class PaceLimit:
    """Refuse requests of a client that asks too often (ASGI middleware)."""

    def __init__(self, app: ASGIApp, per_second: float) -> None:
        """Wrap an application."""
        self._app = app
        self._pace = Pace(per_second)
        self._per_second = per_second

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and not scope["path"].startswith(FREE_PATHS):
            wait = self._pace.wait_seconds(client_of(scope), time.monotonic())
            if wait:
                text = f"Expected at most {self._per_second:g} requests a second from one client, but found more."
                error = envelope(
                    "rate_limited", text, expected=f"{self._per_second:g} a second", retry_after_seconds=round(wait, 3)
                )
                await problem_response(error, 429, scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)
