"""Traces across the log: a record carries the `traceparent` of what it belongs to, and sending it makes the span that its readers continue."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from controlplane.events.types import LogPosition
from controlplane.log.session import Headers, OutgoingRecord
from controlplane.telemetry import tracing

TRACEPARENT = "traceparent"


def headers_of(trace: str | None) -> Headers:
    """Return the headers of a record that belongs to a span; none where nothing is traced."""
    return () if trace is None else ((TRACEPARENT, trace.encode()),)


def current_headers() -> Headers:
    """Return the headers of a record that the running code writes."""
    spans = tracing.active()
    return () if spans is None else headers_of(spans.current())


def traceparent_in(headers: Any) -> str | None:
    """Return the traceparent among a record's headers."""
    for name, value in headers or ():
        if name == TRACEPARENT and value is not None:
            return bytes(value).decode(errors="replace")
    return None


def sent(records: Sequence[OutgoingRecord], answer: "asyncio.Future[list[LogPosition]]") -> Sequence[OutgoingRecord]:
    """Return the records with the spans of being sent in their headers; those end when the log answers.

    One record is one `send` span. Several are each a `create` span, in the trace that the record belongs to, and one `send` span, in
    the trace of whoever sends, that links to them all.
    """
    spans = tracing.active()
    if spans is None:
        return records
    from opentelemetry.trace import SpanKind

    from controlplane.telemetry.spans import context_of, failed, header_of

    parents = [context_of(traceparent_in(record.headers)) if record.headers else None for record in records]
    if not any(parents):
        return records
    operation = "send" if len(records) == 1 else "create"
    signed, made = list(records), []
    for index, (record, parent) in enumerate(zip(records, parents, strict=True)):
        if parent is not None:
            span = spans.message(
                operation, record.topic, SpanKind.PRODUCER, parent=parent, message__body__size=len(record.value),
                destination__partition__id=str(record.partition), kafka__message__key=record.key.decode(errors="replace"),
            )  # fmt: skip
            others = tuple(pair for pair in record.headers if pair[0] != TRACEPARENT)
            signed[index] = msgspec.structs.replace(record, headers=(*others, *headers_of(header_of(span))))
            made.append((index, span))
    batch = None
    if operation == "create":
        links = [span.get_span_context() for _, span in made]
        topic = records[0].topic if len({record.topic for record in records}) == 1 else "controlplane"
        batch = spans.message("send", topic, SpanKind.CLIENT, links=links, batch__message_count=len(records))

    def ended(done: "asyncio.Future[list[LogPosition]]") -> None:
        error = None if done.cancelled() else done.exception()
        for index, span in made:
            if error is not None:
                failed(span, str(error))
            elif not done.cancelled():
                span.set_attribute("messaging.kafka.offset", done.result()[index].offset)
            span.end()
        if batch is not None:
            batch.end()

    answer.add_done_callback(ended)
    return signed
