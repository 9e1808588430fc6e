"""Spans in the words of OpenTelemetry's semantic conventions, and the W3C header that carries them on.

Source: opentelemetry.io/docs/specs/semconv, messaging (Kafka) and HTTP; w3.org/TR/trace-context. Only loaded where tracing is on.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controlplane import __version__

HEADER: Final = "traceparent"
_FORM: Final = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
SERVER_ERROR: Final = 500
UNTRACED: Final = ("/health", "/metrics")

Attributes = Mapping[str, str | int]


def exporting(service: str) -> "Spans":
    """Return spans that leave over OTLP; a provider that the program set up for itself is used as it is."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        named = Resource.create({SERVICE_NAME: f"controlplane-{service}", SERVICE_VERSION: __version__})
        provider = TracerProvider(resource=named.merge(OTELResourceDetector().detect()))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
    return Spans(provider)


def context_of(header: str | bytes | None) -> SpanContext | None:
    """Return the span that a `traceparent` header names; None where it is none."""
    if header is None:
        return None
    text = header.decode(errors="replace") if isinstance(header, bytes) else header
    found = _FORM.fullmatch(text.strip())
    if found is None:
        return None
    numbers = [int(part, 16) for part in found.groups()]
    context = SpanContext(numbers[0], numbers[1], is_remote=True, trace_flags=TraceFlags(numbers[2]))
    return context if context.is_valid else None


def header_of(span: Span) -> str:
    """Return the `traceparent` that makes whoever reads it a child of the span."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


class Spans:
    """Makes the spans of one process."""

    def __init__(self, provider: trace.TracerProvider) -> None:
        """Make spans of this provider."""
        self._tracer = provider.get_tracer("controlplane", __version__)

    def start(
        self, name: str, kind: SpanKind, attributes: Attributes, *, parent: SpanContext | None = None,
        links: Sequence[SpanContext] = (),
    ) -> Span:  # fmt: skip
        """Begin a span below `parent`, or below the current one."""
        context = None if parent is None else trace.set_span_in_context(NonRecordingSpan(parent))
        return self._tracer.start_span(
            name, context, kind=kind, attributes=attributes, links=[Link(one) for one in links]
        )

    def message(
        self, operation: str, topic: str, kind: SpanKind, *, parent: SpanContext | None = None,
        links: Sequence[SpanContext] = (), name: str | None = None, **attributes: str | int,
    ) -> Span:  # fmt: skip
        """Begin a span about messages: `operation` is create, send, receive or process; attribute names have __ for dots."""
        said: dict[str, str | int] = {
            "messaging.system": "kafka", "messaging.operation.type": operation,
            "messaging.operation.name": name or operation, "messaging.destination.name": topic,
        }  # fmt: skip
        said |= {f"messaging.{key.replace('__', '.')}": value for key, value in attributes.items()}
        return self.start(f"{name or operation} {topic}", kind, said, parent=parent, links=links)

    @staticmethod
    def current() -> str | None:
        """Return the header of the span that the running code belongs to."""
        span = trace.get_current_span()
        return header_of(span) if span.get_span_context().is_valid else None

    @staticmethod
    def current_ids() -> dict[str, str]:
        """Return trace id and span id of the running code, for its log lines."""
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return {}
        return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}

    @contextmanager
    def asking(self, method: str, path: str, url: str) -> Iterator[str]:
        """Ask another service; yields the header to send."""
        short = "/".join(path.split("/")[:3])
        span = self.start(
            f"{method} {short}", SpanKind.CLIENT, {"http.request.method": method, "url.full": f"{url}{path}"}
        )
        with trace.use_span(span, end_on_exit=True):
            yield header_of(span)

    @contextmanager
    def working(self, span: Span) -> Iterator[None]:
        """Let the running code belong to a span, and end the span with it."""
        with trace.use_span(span, end_on_exit=True):
            yield


def failed(span: Span, why: str) -> None:
    """Mark a span as failed."""
    span.set_status(Status(StatusCode.ERROR, why))


class Traced:
    """Middleware: each request is a span below the one that the client names, and what is written for it is below that."""

    def __init__(self, app: ASGIApp, spans: Spans) -> None:
        """Wrap an application."""
        self._app = app
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"].startswith(UNTRACED):
            await self._app(scope, receive, send)
            return
        parent = context_of(dict(scope["headers"]).get(HEADER.encode()))
        method: str = scope["method"]
        said = {"http.request.method": method, "url.path": scope["path"], "url.scheme": scope["scheme"]}
        span = self._spans.start(method, SpanKind.SERVER, said, parent=parent)

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.set_attribute("http.response.status_code", message["status"])
                if message["status"] >= SERVER_ERROR:
                    failed(span, str(message["status"]))
            await send(message)

        with self._spans.working(span):
            await self._app(scope, receive, noted)
            route = getattr(scope.get("route"), "path", None)
            if route is not None:
                span.set_attribute("http.route", route)
                span.update_name(f"{method} {route}")
