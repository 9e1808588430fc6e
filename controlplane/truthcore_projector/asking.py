"""What the queries over HTTP share: their parameters, how they wait, and what they say when a parameter makes no sense."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import Query

from controlplane.api import models
from controlplane.api.fields import Moment
from controlplane.api.problems import Refused, refused
from controlplane.api.reading import MinPosition, WaitSeconds
from controlplane.truthcore_projector.moments import AsOf, as_of_text

T = TypeVar("T")

__all__ = [
    "AsOfText",
    "Asked",
    "Limit",
    "MinPosition",
    "ValidAt",
    "WaitSeconds",
    "as_of_from",
    "cursor_from",
    "missing",
]

Limit = Annotated[int, Query(ge=1, le=1000)]
AsOfText = Annotated[
    str | None,
    Query(
        description="What the log knew: a time (RFC 3339), or positions topic/partition/offset, comma-separated, each included.",
        examples=["2026-01-31T12:00:00Z"],
    ),
]  # fmt: skip
ValidAt = Annotated[Moment | None, Query(description="The moment in the world; by default that of as_of, or now.")]


class Asked(Protocol):
    """Answers from one snapshot once the wanted positions are reflected, as of a moment if one is named, and says what it reflects."""

    def __call__(
        self,
        min_position: list[str] | None,
        wait_seconds: float,
        work: Callable[[Any], T],
        as_of: str | None = None,
    ) -> Awaitable[tuple[T, models.Reflects]]:
        """Return what `work` makes of a cursor, and the positions that it reflects."""
        ...


def missing(what: str, name: str) -> Refused:
    """Return the refusal for a name that the log does not know."""
    return refused("not_found", f"Expected {what} {name[:200]!r}, but the log does not know it.", found=name)


def cursor_from(read: Callable[[str], T], text: str | None, field: str = "cursor") -> T | None:
    """Return where a page begins, as its own reader understands the cursor of the page before.

    Raises:
        Refused: no page gave this cursor.
    """
    try:
        return read(text) if text else None
    except ValueError as error:
        what = f"Expected a cursor of an earlier page, but found {str(text)[:100]!r}."
        raise refused("request_invalid", what, field=field) from error


def as_of_from(text: str | None, field: str = "as_of") -> AsOf | None:
    """Return what `as_of` names.

    Raises:
        Refused: it is neither a time nor positions.
    """
    try:
        return as_of_text(text) if text else None
    except ValueError as error:
        raise refused("request_invalid", str(error), field=field, found=text) from error
