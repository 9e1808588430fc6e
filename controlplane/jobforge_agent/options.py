"""What a submission may ask for: the gateway refuses the rest at the edge, JobForge again, because clients may write to the log."""

from collections.abc import Iterator
from typing import Final

from controlplane.events.bounds import oversized
from controlplane.events.errors import envelope
from controlplane.events.types import ErrorEnvelope, JobSubmitted

LONGEST_SECONDS: Final = 10 * 365 * 86_400.0
MOST_SLOTS: Final = 100_000
MOST_ATTEMPTS: Final = 1000
LARGEST_MULTIPLIER: Final = 1000.0

Bound = tuple[str, float | None, float, float]
"""Field, value, least and most."""


def impossible(event: JobSubmitted, error_id: str) -> ErrorEnvelope | None:
    """Return why no job can have these options, or None; not-a-number is within no bounds."""
    if (unfit := oversized(event, error_id)) is not None:
        return unfit
    for field, value, least, most in _bounds(event):
        if value is not None and not least <= value <= most:
            text = f"Expected {field} from {least:g} to {most:g}, but found {value!r}."
            return envelope(
                "request_invalid", text, error_id=error_id, field=field, expected=f"{least:g} to {most:g}", found=value
            )
    return None


def _bounds(event: JobSubmitted) -> Iterator[Bound]:
    yield "priority", event.priority, 0, 9
    yield "slots", event.slots, 1, MOST_SLOTS
    if event.timeouts is not None:
        yield "timeouts.attempt_seconds", event.timeouts.attempt_seconds, 0, LONGEST_SECONDS
        yield "timeouts.queue_seconds", event.timeouts.queue_seconds, 0, LONGEST_SECONDS
        yield "timeouts.total_seconds", event.timeouts.total_seconds, 0, LONGEST_SECONDS
    if event.retry is not None:
        yield "retry.max_attempts", event.retry.max_attempts, 1, MOST_ATTEMPTS
        yield "retry.max_lost_attempts", event.retry.max_lost_attempts, 0, MOST_ATTEMPTS
        yield "retry.initial_backoff_seconds", event.retry.initial_backoff_seconds, 0, LONGEST_SECONDS
        yield "retry.max_backoff_seconds", event.retry.max_backoff_seconds, 0, LONGEST_SECONDS
        yield "retry.multiplier", event.retry.multiplier, 1, LARGEST_MULTIPLIER
