"""HTTP requests as metrics, the same in every service that answers them: by route, method and status, and how long they take."""

import time
from typing import Final

from fastapi.telemetry import TelemetryConfig
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BUCKETS_SECONDS: Final = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
UNMATCHED: Final = "unmatched"
FAULT: Final = 500
FRAMEWORKS_OWN: Final[TelemetryConfig] = {"tracing": False, "metrics": False, "logs": False}
"""What FastAPI would tell OpenTelemetry by itself: nothing. Spans and measures are ours, and asking for a provider cost each request 15 us."""


class RequestMeasures:
    """The metrics of one server's requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metrics."""
        self.seconds = Histogram(
            "controlplane_http_request_seconds", "Time from a request's headers to the end of its answer.",
            ["method", "route"], registry=registry, buckets=BUCKETS_SECONDS,
        )  # fmt: skip
        self.answers = Counter(
            "controlplane_http_answers_total", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        # Without labels it is there, at 0, before the first fault: what is born at 1 has no increase, and raises no alert.
        self.faults = Counter("controlplane_http_faults_total", "Requests that met a fault of ours.", registry=registry)
        self.in_flight = Gauge(
            "controlplane_http_requests_in_flight", "Requests that are being answered.", registry=registry
        )


class Measured:
    """Measure each request (ASGI middleware); the outermost, so that refusals count, too."""

    def __init__(self, app: ASGIApp, measures: RequestMeasures) -> None:
        """Wrap an application."""
        self._app = app
        self._measures = measures
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._measures.in_flight.inc()
        try:
            await self._app(scope, receive, noted)
        except ClientDisconnect:
            raise  # Whoever asked went away.
        except Exception:
            # What nobody expected is answered outside of every middleware: no answer was seen here.
            status = FAULT
            raise
        finally:
            self._measures.in_flight.dec()
            route = getattr(scope.get("route"), "path", None) or UNMATCHED
            # Whoever makes up methods must not make up series.
            method = scope["method"] if route != UNMATCHED else ""
            known = self._known.get((method, route, status))
            if known is None:
                measures = self._measures
                known = measures.answers.labels(method, route, str(status)), measures.seconds.labels(method, route)
                self._known[method, route, status] = known
            known[0].inc()
            if status == FAULT:
                self._measures.faults.inc()
            known[1].observe(time.perf_counter() - started)
