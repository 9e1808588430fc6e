"""Positions as text: `topic/partition/offset`, the form in answers, URLs and dead letters."""

from controlplane.events.types import LogPosition

Partition = tuple[str, int]
"""(topic, partition)"""


class PositionInvalid(ValueError):
    """Expected a position like controlplane.jobs/3/1042, but found something else."""


def position_text(position: LogPosition) -> str:
    """Return a position as text."""
    return f"{position.topic}/{position.partition}/{position.offset}"


def parse_position(text: str) -> LogPosition:
    """Return the position that a text names.

    Raises:
        PositionInvalid: the text is not of that form.
    """
    topic, partition, offset = (*text.rsplit("/", 2), "", "")[:3]
    if not (topic and partition.isdecimal() and offset.isdecimal()):
        raise PositionInvalid(f"Expected a position like controlplane.jobs/3/1042, but found {text[:200]!r}.")
    return LogPosition(topic=topic, partition=int(partition), offset=int(offset))
