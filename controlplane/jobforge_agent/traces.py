"""The traces that JobForge continues: a span for each record that it decides, below the one that the record carries."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from controlplane.events.types import LogPosition
from controlplane.jobforge_agent.batch import Consumed
from controlplane.jobforge_agent.state import Job
from controlplane.log.session import Headers
from controlplane.log.traces import headers_of, traceparent_in
from controlplane.telemetry import tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class Traces:
    """The spans of what is decided just now, by the position of the record."""

    def __init__(self, group: str) -> None:
        """Begin with none."""
        self._group = group
        self._open: dict[LogPosition, Span] = {}

    def received(self, records: Sequence[Any], batch: list[Consumed]) -> list[Consumed]:
        """Return the batch with the span in which each record is decided; one `receive` span links to them all."""
        spans = tracing.active()
        if spans is None:
            return batch
        from opentelemetry.trace import SpanKind

        from controlplane.telemetry.spans import context_of, header_of

        parents = [context_of(traceparent_in(record.headers)) for record in records]
        links = [parent for parent in parents if parent is not None]
        if not links:
            return batch
        topic, partition = records[0].topic, str(records[0].partition)
        spans.message(
            "receive", topic, SpanKind.CLIENT, name="poll", links=links, batch__message_count=len(records),
            consumer__group__name=self._group, destination__partition__id=partition,
        ).end()  # fmt: skip
        traced = list(batch)
        for index, (one, parent) in enumerate(zip(batch, parents, strict=True)):
            if parent is not None:
                span = spans.message(
                    "process", topic, SpanKind.CONSUMER, parent=parent, consumer__group__name=self._group,
                    destination__partition__id=partition, kafka__offset=one.position.offset,
                    kafka__message__key=(one.key or b"").decode(errors="replace"),
                )  # fmt: skip
                if one.event is not None:
                    span.set_attribute("messaging.message.id", one.event.header.event_id)
                    span.set_attribute("messaging.message.conversation_id", one.event.header.correlation_id)
                self._open[one.position] = span
                traced[index] = msgspec.structs.replace(one, trace=header_of(span))
        return traced

    def headers(self, event: Any, jobs: Mapping[str, Job]) -> Headers:
        """Return the headers of a decision: below the record that led to it, or where time did, below what last moved the job."""
        if tracing.active() is None:
            return ()
        span = self._open.get(event.header.causation)
        if span is not None:
            from controlplane.telemetry.spans import header_of

            return headers_of(header_of(span))
        job = jobs.get(getattr(event, "job_id", ""))
        return headers_of(None if job is None else job.trace)

    def decided(self, batches: Iterable[tuple[int, Sequence[Consumed]]]) -> None:
        """End the spans of records whose effects are stored."""
        if self._open:
            for _, batch in batches:
                for one in batch:
                    if (span := self._open.pop(one.position, None)) is not None:
                        span.end()
