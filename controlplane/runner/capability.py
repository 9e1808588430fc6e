"""What a handler can do, read off its signature: payload and result types become the contract of its job type."""

import inspect
import json
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema

from controlplane.events.identity import IDENTIFIER
from controlplane.events.types import Capability, RetryPolicy

VERSION: Final = re.compile(r"(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})")
DESCRIPTION_LIMIT_CHARACTERS: Final = 500

Executor = Literal["loop", "thread", "process"]
HandlerFunction = Callable[..., Any]


class CapabilityInvalid(TypeError):
    """Expected a handler whose signature is a contract, but found another; the message says what is missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Handler:
    """A function with the contract that it keeps."""

    job_type: str
    version: str
    function: HandlerFunction
    takes_job: bool
    executor: Executor
    payload: TypeAdapter[Any]
    result: TypeAdapter[Any]
    payload_schema: str
    result_schema: str
    timeout_seconds: float | None
    retry: RetryPolicy | None
    slots: int
    description: str

    @property
    def major(self) -> int:
        """Return the major version: jobs ask for it, and all minor versions of it keep its contract."""
        return int(self.version.partition(".")[0])

    @property
    def label(self) -> str:
        """Return the job type and version as claims name them, for example image.thumbnail@1.2.0."""
        return f"{self.job_type}@{self.version}"

    def contract(self) -> Capability:
        """Return what the registration says about it."""
        return Capability(
            job_type=self.job_type, version=self.version, payload_schema=self.payload_schema,
            result_schema=self.result_schema, timeout_seconds=self.timeout_seconds, retry=self.retry, slots=self.slots,
            description=self.description,
        )  # fmt: skip


def handler_of(
    function: HandlerFunction, *, job_type: str, version: str, timeout: float | None, retry: RetryPolicy | None,
    slots: int, executor: Literal["thread", "process"] | None,
) -> Handler:  # fmt: skip
    """Return a function as a handler.

    Raises:
        CapabilityInvalid: its name, version, limits or signature cannot be a contract.
    """
    _check_offer(job_type, version, timeout, slots)
    payload_type, result_type, takes_job = _signature(function)
    is_async = inspect.iscoroutinefunction(function)
    if is_async and executor is not None:
        raise CapabilityInvalid(
            f"Expected an executor only for a plain function, but {_name(function)} is async: it runs on the loop."
        )
    payload, payload_schema = _contract(function, "payload", payload_type, "validation")
    result, result_schema = _contract(function, "result", result_type, "serialization")
    return Handler(
        job_type=job_type, version=version, function=function, takes_job=takes_job,
        executor="loop" if is_async else executor or "thread",
        payload=payload, result=result, payload_schema=payload_schema, result_schema=result_schema,
        timeout_seconds=timeout, retry=retry, slots=slots, description=_description(function),
    )  # fmt: skip


def _check_offer(job_type: str, version: str, timeout: float | None, slots: int) -> None:
    if not IDENTIFIER.fullmatch(job_type):
        raise CapabilityInvalid(f"Expected a job type like image.thumbnail, but found {job_type!r}.")
    if not VERSION.fullmatch(version):
        raise CapabilityInvalid(f"Expected a version like 1.2.0 for {job_type}, but found {version!r}.")
    if timeout is not None and not 0 < timeout < float("inf"):
        raise CapabilityInvalid(f"Expected a timeout above 0 seconds for {job_type}, but found {timeout!r}.")
    if slots < 1:
        raise CapabilityInvalid(f"Expected at least 1 slot for {job_type}, but found {slots!r}.")


def _signature(function: HandlerFunction) -> tuple[Any, Any, bool]:
    """Return the types of payload and result, and whether the handler wants to see its job."""
    name = _name(function)
    parameters = list(inspect.signature(function).parameters.values())
    positional = [one for one in parameters if one.kind in {one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD}]
    if len(positional) != len(parameters) or len(positional) not in {1, 2}:
        raise CapabilityInvalid(
            f"Expected {name}(payload) or {name}(payload, job), but found {name}{inspect.signature(function)}."
        )
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise CapabilityInvalid(
            f"Expected the annotations of {name} to name types of its module, but: {error}. "
            "Types that are defined inside a function cannot be found."
        ) from error
    if positional[0].name not in hints:
        raise CapabilityInvalid(
            f"Expected {name} to say the type of {positional[0].name}, but it has no annotation. Use Any to take anything."
        )
    return hints[positional[0].name], hints.get("return", Any), len(positional) == 2


def _contract(
    function: HandlerFunction, part: str, annotation: Any, mode: Literal["validation", "serialization"]
) -> tuple[TypeAdapter[Any], str]:
    try:
        adapter = TypeAdapter(annotation)
        return adapter, json.dumps(adapter.json_schema(mode=mode), separators=(",", ":"))
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema, PydanticUserError) as error:
        raise CapabilityInvalid(
            f"Expected the {part} of {_name(function)} to be a type with a JSON Schema (a Pydantic model, a dataclass, "
            f"dict[str, int], ...), but found {annotation!r}: {error.message}"
        ) from error


def _description(function: HandlerFunction) -> str:
    return (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")[:DESCRIPTION_LIMIT_CHARACTERS]


def _name(function: HandlerFunction) -> str:
    return getattr(function, "__qualname__", repr(function))
