"""Objects of assertions: Python values to typed values in one canonical text, and back.

Equal values have equal texts, so that votes for one value meet whoever cast them: `1`, `1.0` and `Decimal("1.00")` are all the number `1`.
"""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Context, Decimal
from enum import Enum
from typing import Any, Final

import msgspec

from controlplane.events.types import TypedValue, ValueKind

TEXT_LIMIT_CHARACTERS: Final = 65_536
SUBJECT_LIMIT_CHARACTERS: Final = 512
UNIT_LIMIT_CHARACTERS: Final = 64
NUMBER_LIMIT_DIGITS: Final = 400
DEPTH_LIMIT: Final = 32
PLAIN_LIMIT_DIGITS: Final = 21
"""Numbers with more digits before the point are written with an exponent, as ECMAScript does."""

assert NUMBER_LIMIT_DIGITS >= 309 + 17  # Every double has room, written in full.

_EXACT: Final = Context(prec=NUMBER_LIMIT_DIGITS, Emax=999_999, Emin=-999_999)


class ValueInvalid(ValueError):
    """Expected a value that can be the object of an assertion, but found something else; the message says what."""


class Reference(msgspec.Struct, frozen=True):
    """A value that is itself a subject, for example `Reference("module:json")`."""

    subject: str


Plain = str | int | float | bool | datetime | Decimal | Reference | list[Any] | dict[str, Any] | None
"""What handlers and clients say: a list, a dict or None is JSON."""


def typed_value(value: object, *, kind: ValueKind | None = None, unit: str | None = None) -> TypedValue:
    """Return a Python value as the object of an assertion, with its kind following from its type unless it is given.

    A given kind reads what came as JSON: `INSTANT` takes RFC 3339 text, `REFERENCE` a subject, `JSON` anything.

    Raises:
        ValueInvalid: it is no such value, or over a limit.
    """
    if isinstance(value, Enum):
        value = value.value
    found = kind or _kind_of(value)
    if unit is not None and found is not ValueKind.NUMBER:
        raise ValueInvalid(f"Expected a unit only with a number, but found {unit[:100]!r} with {found.lower()}.")
    if unit is not None and not 0 < len(unit) <= UNIT_LIMIT_CHARACTERS:
        raise ValueInvalid(f"Expected a unit of 1 to {UNIT_LIMIT_CHARACTERS} characters, but found {len(unit)}.")
    text = _text_of(found, value)
    limit = SUBJECT_LIMIT_CHARACTERS if found is ValueKind.REFERENCE else TEXT_LIMIT_CHARACTERS
    if len(text) > limit:
        raise ValueInvalid(f"Expected a {found.lower()} of at most {limit} characters, but found {len(text)}.")
    try:
        f"{text}{unit}".encode()
    except UnicodeEncodeError as error:
        raise ValueInvalid(f"Expected text that is valid Unicode, but: {error}.") from error
    number = float(text) if found is ValueKind.NUMBER else None
    return TypedValue(kind=found, text=text, number=number, unit=unit)


def plain_value(value: TypedValue) -> Plain:
    """Return the Python value of an object: `plain_value(typed_value(x))` is `x`, or equals it in its canonical text."""
    match value.kind:
        case ValueKind.STRING:
            return value.text
        case ValueKind.BOOLEAN:
            return value.text == "true"
        case ValueKind.NUMBER:
            return _plain_number(value.text)
        case ValueKind.INSTANT:
            return datetime.fromisoformat(value.text)
        case ValueKind.REFERENCE:
            return Reference(value.text)
        case ValueKind.JSON:
            decoded: Plain = json.loads(value.text)
            return decoded


def json_value(value: TypedValue) -> Any:
    """Return the object as a value for JSON: instants and references as their text."""
    plain = plain_value(value)
    return plain if isinstance(plain, str | int | float | list | dict | None) else value.text


def number_text(number: float | Decimal) -> str:
    """Return the shortest decimal of a finite number, in the notation of ECMAScript's Number::toString.

    Raises:
        ValueInvalid: it is not finite, or has more digits than the limit.
    """
    if not isinstance(number, float) and (digits := _digits_in(number)) > NUMBER_LIMIT_DIGITS:
        raise ValueInvalid(f"Expected a number of at most {NUMBER_LIMIT_DIGITS} digits, but found {digits}.")
    exact = Decimal(repr(number)) if isinstance(number, float) else Decimal(number)
    try:
        finite = exact.is_finite() and math.isfinite(float(exact))
    except OverflowError:
        finite = False
    if not finite:
        raise ValueInvalid(f"Expected a finite number within the range of a double, but found {str(number)[:50]}.")
    if exact == 0:
        return "0"
    sign, digits_, exponent = exact.normalize(_EXACT).as_tuple()
    assert isinstance(exponent, int)  # Only NaN and infinity have a letter there.
    return ("-" if sign else "") + _notation("".join(map(str, digits_)), exponent)


def instant_text(moment: datetime) -> str:
    """Return a moment in RFC 3339, in UTC, without trailing zeros.

    Raises:
        ValueInvalid: it has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueInvalid(f"Expected a time with its zone, but found {moment.isoformat()}.")
    text = moment.astimezone(UTC).replace(tzinfo=None).isoformat()
    return (text.rstrip("0") if "." in text else text) + "Z"


def canonical_json(value: object, *, depth: int = 0) -> str:
    """Return JSON with sorted keys, no spaces and shortest numbers (as RFC 8785 does, but exact beyond doubles).

    Raises:
        ValueInvalid: it is not JSON, or nested deeper than the limit.
    """
    if depth > DEPTH_LIMIT:
        raise ValueInvalid(f"Expected JSON nested at most {DEPTH_LIMIT} deep, but found more.")
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(str(value), ensure_ascii=False)
        case int() | float() | Decimal():
            return number_text(value)
        case Mapping():
            return "{" + ",".join(_member(name, value[name], depth) for name in sorted(value, key=_order)) + "}"
        case list() | tuple():
            return "[" + ",".join(canonical_json(one, depth=depth + 1) for one in value) + "]"
        case _:
            raise ValueInvalid(
                f"Expected JSON (text, number, true, false, null, list, dict), but found {type(value).__name__}."
            )


def _member(name: str, value: object, depth: int) -> str:
    return f"{json.dumps(name, ensure_ascii=False)}:{canonical_json(value, depth=depth + 1)}"


def _order(name: object) -> bytes:
    """Return what RFC 8785 sorts names by: their UTF-16 code units."""
    if not isinstance(name, str):
        raise ValueInvalid(f"Expected names of JSON members as text, but found {type(name).__name__}.")
    return name.encode("utf-16-be", errors="surrogatepass")


def _kind_of(value: object) -> ValueKind:
    match value:
        case bool():
            return ValueKind.BOOLEAN
        case str():
            return ValueKind.STRING
        case int() | float() | Decimal():
            return ValueKind.NUMBER
        case datetime():
            return ValueKind.INSTANT
        case Reference():
            return ValueKind.REFERENCE
        case None | Mapping() | list() | tuple():
            return ValueKind.JSON
        case _:
            raise ValueInvalid(
                "Expected text, a number, a boolean, a datetime, a Reference or JSON (list, dict, None) as value, "
                f"but found {type(value).__name__}."
            )


def _text_of(kind: ValueKind, value: object) -> str:
    match kind, value:
        case ValueKind.STRING, str():
            return str(value)
        case ValueKind.BOOLEAN, bool():
            return "true" if value else "false"
        case ValueKind.NUMBER, int() | float() | Decimal() if not isinstance(value, bool):
            return number_text(value)
        case ValueKind.INSTANT, datetime():
            return instant_text(value)
        case ValueKind.INSTANT, str():
            return instant_text(_moment(value))
        case ValueKind.REFERENCE, (Reference(subject=str(subject)) | str(subject)) if subject:
            return subject
        case ValueKind.JSON, _:
            return canonical_json(value)
        case _:
            raise ValueInvalid(f"Expected a {kind.lower()}, but found {type(value).__name__} {str(value)[:100]!r}.")


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueInvalid(f"Expected a time like 2026-01-31T12:00:00Z, but found {text[:100]!r}.") from error


def _plain_number(text: str) -> int | float | Decimal:
    if "." not in text and "e" not in text:
        return int(text)
    number = float(text)
    return number if number_text(number) == text else Decimal(text)


def _digits_in(number: int | Decimal) -> int:
    if isinstance(number, int):
        return number.bit_length() * 30103 // 100_000 + 1  # log10(2), so that no long text is made to be counted.
    return len(number.as_tuple().digits)


def _notation(digits: str, exponent: int) -> str:
    """Write significant digits and their exponent as ECMA-262, section 6.1.6.1.20, does."""
    point = len(digits) + exponent
    if 0 < point <= PLAIN_LIMIT_DIGITS:
        return digits.ljust(point, "0") if exponent >= 0 else f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{point - 1:+d}"
