"""An OTLP collector: a real HTTP server that takes what OpenTelemetry's exporters send, as protobuf, and keeps the spans."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Received:
    """A span with the service that made it and its attributes as Python values."""

    def __init__(self, service: str, span: Span) -> None:
        self.service = service
        self.name: str = span.name
        self.kind: str = Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower()
        self.trace, self.id, self.parent = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
        self.links = {link.span_id.hex() for link in span.links}
        self.attributes: dict[str, Any] = {
            one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value") for one in span.attributes
        }
        self.lasted = span.end_time_unix_nano - span.start_time_unix_nano


class Collector:
    """Serves on loopback while it is entered."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        kept = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                request = ExportTraceServiceRequest.FromString(body)
                assert self.path == "/v1/traces"
                for group in request.resource_spans:
                    named = {one.key: one.value.string_value for one in group.resource.attributes}
                    for scope in group.scope_spans:
                        kept.extend(Received(named["service.name"], span) for span in scope.spans)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def of_trace(self, trace: str) -> list[Received]:
        return [one for one in list(self.spans) if one.trace == trace]
