"""What a client writes begins a trace, or goes on with the one of the program that it is part of. Reads are not traced."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from controlplane.client.calls import Call
from controlplane.telemetry import tracing


@contextmanager
def asking(asked: Call[Any], url: str) -> Iterator[dict[str, str]]:
    """Yield the headers of a request, with those of its trace where it writes."""
    spans = tracing.active()
    if spans is None or asked.method == "GET":
        yield asked.headers()
        return
    with spans.asking(asked.method, asked.path, url.rstrip("/")) as traceparent:
        yield {**asked.headers(), "traceparent": traceparent}


@contextmanager
def submitting(topic: str) -> Iterator[None]:
    """Let what is written to the log belong to one span."""
    spans = tracing.active()
    if spans is None:
        yield
        return
    from opentelemetry.trace import SpanKind

    with spans.working(spans.start(f"submit {topic}", SpanKind.INTERNAL, {})):
        yield
