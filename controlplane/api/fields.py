"""Fields of requests that take what JSON Schema says and nothing that merely resembles it: "1" is no number, 0 is not false."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Strict, WrapValidator

INT_MOST: Final = 2**31 - 1
"""Largest whole number of an Avro int."""

_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")
"""What a time begins with; other numbers would be taken for seconds since 1970."""


def _number(value: Any) -> Any:
    if isinstance(value, bool | str | bytes):
        raise ValueError("Input should be a number")
    return value


def _moment(value: Any, read: Callable[[Any], datetime]) -> datetime:
    if isinstance(value, datetime):
        return value  # Of a caller in this process, who is told by whoever makes the event of it.
    if not isinstance(value, str) or not _DAY.match(value):
        raise ValueError("Input should be a time as text (RFC 3339)")
    found = read(value)
    if found.tzinfo is None:
        raise ValueError("Input should have a time zone")
    return found


AS_NUMBER: Final = BeforeValidator(_number)
"""For bounds of what may be null: they stand before it, `Annotated[int, Field(ge=1), AS_NUMBER] | None`, or JSON Schema would not say them."""
Whole = Annotated[int, AS_NUMBER]
Number = Annotated[float, AS_NUMBER]
YesNo = Annotated[bool, Strict()]
Moment = Annotated[datetime, WrapValidator(_moment)]
