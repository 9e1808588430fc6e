"""The contract of a handler, held on both sides of its call: what it is given, and what it returned.

What breaks it is quoted, so that somebody can repair it; of `sealed` content, which the log has encrypted, nothing is.
"""

from typing import Any

from pydantic import ValidationError

from controlplane.events.types import ErrorEnvelope
from controlplane.runner.capability import Handler
from controlplane.runner.context import JobContext
from controlplane.runner.errors import Refused, contract_failure, refusal, sealed_contract_failure


def arguments_of(handler: Handler, payload: bytes, context: JobContext, *, sealed: bool) -> tuple[Any, ...]:
    """Return what a handler is called with.

    Raises:
        Refused: the payload breaks the contract.
    """
    try:
        value = handler.payload.validate_json(payload or b"null")
    except ValidationError as error:
        schema = handler.payload_schema if sealed else None
        raise Refused(_broken("payload_invalid", "payload", error, context.attempt_id, schema)) from error
    return (value, context) if handler.takes_job else (value,)


def result_json(handler: Handler, result: object, attempt_id: str, *, sealed: bool) -> bytes:
    """Return a handler's result as JSON that keeps its contract.

    Raises:
        Refused: it does not.
    """
    try:
        return handler.result.dump_json(handler.result.validate_python(result))
    except ValidationError as error:
        schema = handler.result_schema if sealed else None
        raise Refused(_broken("result_invalid", "result", error, attempt_id, schema)) from error
    except ValueError as error:  # What Any let through cannot be written.
        found = type(error).__name__ if sealed else error
        raise Refused(
            refusal("result_invalid", f"Expected a result that can be JSON, but: {found}", attempt_id)
        ) from error


def _broken(code: str, field: str, error: ValidationError, attempt_id: str, schema: str | None) -> ErrorEnvelope:
    if schema is None:
        return contract_failure(code, field, error, attempt_id)
    return sealed_contract_failure(code, field, error, attempt_id, schema)
