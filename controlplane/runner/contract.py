"""The contract of a handler, held on both sides of its call: what it is given, and what it returned."""

from typing import Any

from pydantic import ValidationError

from controlplane.runner.capability import Handler
from controlplane.runner.context import JobContext
from controlplane.runner.errors import Refused, contract_failure, refusal


def arguments_of(handler: Handler, payload: bytes, context: JobContext) -> tuple[Any, ...]:
    """Return what a handler is called with.

    Raises:
        Refused: the payload breaks the contract.
    """
    try:
        value = handler.payload.validate_json(payload or b"null")
    except ValidationError as error:
        raise Refused(contract_failure("payload_invalid", "payload", error, context.attempt_id)) from error
    return (value, context) if handler.takes_job else (value,)


def result_json(handler: Handler, result: object, attempt_id: str) -> bytes:
    """Return a handler's result as JSON that keeps its contract.

    Raises:
        Refused: it does not.
    """
    try:
        return handler.result.dump_json(handler.result.validate_python(result))
    except ValidationError as error:
        raise Refused(contract_failure("result_invalid", "result", error, attempt_id)) from error
    except ValueError as error:  # What Any let through cannot be written.
        raise Refused(
            refusal("result_invalid", f"Expected a result that can be JSON, but: {error}", attempt_id)
        ) from error
