"""The trace of one attempt: what its handler does and what is written about it belong to the span in which its lease is worked on."""

from contextvars import Context, copy_context
from typing import TYPE_CHECKING

import msgspec

from controlplane.events.types import JobRouted, LogPosition, Producer
from controlplane.runner.outbox import Acknowledged, Sink
from controlplane.telemetry import tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class AttemptTrace:
    """The span of an attempt, and the context in which its code runs; without a span where the job is not traced."""

    def __init__(self, context: Context, span: "Span | None") -> None:
        self.context = context
        self._span = span

    def sink(self, sink: Sink) -> Sink:
        """Return a sink whose records belong to this attempt, whoever causes them to be written."""
        return _TracedSink(sink, self.context)

    def end(self, outcome: str) -> None:
        """End with how the attempt ended."""
        if self._span is not None:
            from controlplane.telemetry.spans import failed

            self._span.set_attribute("controlplane.attempt.outcome", outcome)
            if outcome != "succeeded":
                failed(self._span, outcome)
            self._span.end()


class _TracedSink:
    def __init__(self, sink: Sink, context: Context) -> None:
        self._sink = sink
        self._context = context

    @property
    def identity(self) -> Producer:
        return self._sink.identity

    def emit(
        self, event: msgspec.Struct, *, partition: int | None = None, droppable: bool = False,
        acknowledged: Acknowledged | None = None,
    ) -> None:  # fmt: skip
        # A copy: the handler itself may be running in the context.
        self._context.copy().run(
            self._sink.emit, event, partition=partition, droppable=droppable, acknowledged=acknowledged
        )


def attempt_trace(routed: JobRouted, position: LogPosition, traceparent: str | None) -> AttemptTrace | None:
    """Return the trace of an attempt that begins; None: this process does not trace."""
    spans = tracing.active()
    if spans is None:
        return None
    from opentelemetry import context as otel_context
    from opentelemetry import trace

    from controlplane.telemetry.spans import context_of

    context, parent = copy_context(), context_of(traceparent)
    if parent is None:
        return AttemptTrace(context, None)
    span = spans.message(
        "process", position.topic, trace.SpanKind.CONSUMER, parent=parent, kafka__offset=position.offset,
        destination__partition__id=str(position.partition), kafka__message__key=routed.job_id,
        message__id=routed.header.event_id, message__conversation_id=routed.header.correlation_id, client__id=routed.runner_id,
    )  # fmt: skip
    for name, value in (("job_type", routed.job_type), ("job_id", routed.job_id), ("attempt_id", routed.attempt_id)):
        span.set_attribute(f"controlplane.{name}", value)
    context.run(lambda: otel_context.attach(trace.set_span_in_context(span)))
    return AttemptTrace(context, span)
