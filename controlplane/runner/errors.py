"""How a handler says that it failed, and what the log is told about it."""

import json
from collections.abc import Iterator
from typing import Any, Final

from pydantic import ValidationError

from controlplane.events.errors import envelope
from controlplane.events.identity import name_based_id
from controlplane.events.types import ErrorEnvelope

MESSAGE_LIMIT_CHARACTERS: Final = 2_000
FAULTS_SHOWN: Final = 5
UNSAID: Final = "*"
"""What stands in a path of encrypted content for a part that may be content itself: a key of a mapping, a number."""
MESSAGE_SEALED: Final = "its message is in the runner's own log alone, because the payload is encrypted."


class NonRetryable(Exception):
    """The job cannot succeed, however often it is tried: it concludes as failed at once."""

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        """Say why for a person, and optionally as a code of your own, which is told as what was found."""
        super().__init__(message)
        self.code = code


class RetryLater(Exception):
    """The job may succeed later: the next attempt starts no sooner than in so many seconds."""

    def __init__(self, seconds: float, message: str = "", *, code: str | None = None) -> None:
        """Say when, and optionally why, for a person and as a code of your own.

        Raises:
            ValueError: the time is negative or not finite.
        """
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"Expected seconds from 0 on, but found {seconds}.")
        super().__init__(message or f"Expected to succeed now, but have to wait {seconds:g} s.")
        self.seconds = seconds
        self.code = code


class DestinationUnavailable(Exception):
    """What the handler needs does not answer: the job is tried again, and the breaker of its job type counts it."""

    def __init__(self, message: str = "", *, retry_after_seconds: float | None = None) -> None:
        """Say what does not answer, and when it may answer again.

        Raises:
            ValueError: the time is negative or not finite.
        """
        if retry_after_seconds is not None and not 0 <= retry_after_seconds < float("inf"):
            raise ValueError(f"Expected seconds from 0 on, but found {retry_after_seconds}.")
        super().__init__(message or "Expected an answer from what the handler needs, but there was none.")
        self.retry_after_seconds = retry_after_seconds


class ClaimInvalid(NonRetryable):
    """Expected a claim that can become an assertion, but found something else; the message says what."""


class Refused(Exception):
    """The attempt ends with an envelope that was made before: its input or its result is not what it has to be."""

    def __init__(self, error: ErrorEnvelope, details: str = "") -> None:
        """Carry the envelope, and what only the local log is told."""
        super().__init__(error.message)
        self.error = error
        self.details = details


class WorkerDied(RuntimeError):
    """Expected the worker process to run the handler to its end, but it ended before; the message says how."""


def failure(error: BaseException, attempt_id: str, *, sealed: bool = False) -> ErrorEnvelope:
    """Return what the log is told about an exception of a handler: its type and its message, bounded, no traceback.

    Of a `sealed` attempt, whose payload is encrypted, it is told no message but one that was written for it: any other exception quotes
    what it came upon.
    """
    expected_of = isinstance(error, NonRetryable | RetryLater | DestinationUnavailable | WorkerDied)
    told = expected_of or not sealed
    kind = getattr(error, "code", None) if told else None
    found = kind if isinstance(kind, str) and kind else type(error).__name__
    said = text_of(error) if told else MESSAGE_SEALED
    own_words = isinstance(error, NonRetryable | RetryLater | DestinationUnavailable) and said
    message = said if own_words else f"{type(error).__name__}: {said}" if said else type(error).__name__
    if isinstance(error, DestinationUnavailable):
        return envelope(
            "destination_unavailable", message[:MESSAGE_LIMIT_CHARACTERS], error_id=_error_id(attempt_id), found=found,
            retry_after_seconds=error.retry_after_seconds,
        )  # fmt: skip
    code = "runner_broken" if isinstance(error, WorkerDied) else "handler_failed"
    return envelope(
        code, message[:MESSAGE_LIMIT_CHARACTERS], error_id=_error_id(attempt_id), found=found,
        retryable=not isinstance(error, NonRetryable),
        retry_after_seconds=error.seconds if isinstance(error, RetryLater) else None,
    )  # fmt: skip


def contract_failure(code: str, field: str, error: ValidationError, attempt_id: str) -> ErrorEnvelope:
    """Return the refusal of a payload or a result that breaks its contract: the first faults, each with its path."""
    faults = error.errors(include_url=False, include_context=False)
    shown = "; ".join(f"{_path(field, fault['loc'])}: {fault['msg']}" for fault in faults[:FAULTS_SHOWN])
    more = f" (and {len(faults) - FAULTS_SHOWN} more)" if len(faults) > FAULTS_SHOWN else ""
    first = faults[0]
    return envelope(
        code, f"Expected a {field} that keeps its contract, but: {shown}{more}"[:MESSAGE_LIMIT_CHARACTERS],
        error_id=_error_id(attempt_id), field=_path(field, first["loc"]), expected=first["msg"], found=repr(first["input"]),
    )  # fmt: skip


def sealed_contract_failure(
    code: str, field: str, error: ValidationError, attempt_id: str, schema: str
) -> ErrorEnvelope:
    """Return the refusal of an encrypted payload or result that breaks its contract: where, as far as the contract names it, and which rule."""
    names = frozenset(_properties(json.loads(schema)))
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    rules = [
        (_path(field, tuple(one if one in names else UNSAID for one in each["loc"])), each["type"]) for each in faults
    ]
    shown = "; ".join(f"{path}: {rule}" for path, rule in rules[:FAULTS_SHOWN])
    more = f" (and {len(rules) - FAULTS_SHOWN} more)" if len(rules) > FAULTS_SHOWN else ""
    return envelope(
        code, f"Expected a {field} that keeps its contract, but: {shown}{more}. What was found is encrypted."[:MESSAGE_LIMIT_CHARACTERS],
        error_id=_error_id(attempt_id), field=rules[0][0], expected=rules[0][1],
    )  # fmt: skip


def _properties(schema: Any) -> Iterator[str]:
    """Yield the names that a JSON Schema gives to fields."""
    if isinstance(schema, dict):
        named = schema.get("properties")
        if isinstance(named, dict):
            yield from named
        schema = list(schema.values())
    if isinstance(schema, list):
        for one in schema:
            yield from _properties(one)


def refusal(code: str, message: str, attempt_id: str, *, field: str | None = None) -> ErrorEnvelope:
    """Return the envelope of an attempt that did not get as far as its handler, or was stopped."""
    return envelope(code, message[:MESSAGE_LIMIT_CHARACTERS], error_id=_error_id(attempt_id), field=field)


def text_of(error: BaseException) -> str:
    """Return the message of an exception, whatever its own code does when it is asked for."""
    try:
        return str(error)
    except Exception as fault:  # noqa: BLE001 -- a stranger's __str__ may raise anything
        return f"(its message could not be made: {type(fault).__name__})"


def _error_id(attempt_id: str) -> str:
    return name_based_id(f"{attempt_id}/error")


def _path(field: str, location: tuple[int | str, ...]) -> str:
    return ".".join([field, *map(str, location)])
