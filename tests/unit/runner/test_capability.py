"""A signature is a contract: what it says reaches the registration, and what it cannot say is refused where it is written."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from controlplane.events.types import Capability, RetryPolicy
from controlplane.runner import CapabilityInvalid, JobContext, Runner


class Thumbnail(BaseModel):
    image: str
    width: int = Field(64, gt=0)


class Made(BaseModel):
    path: str
    at: datetime


@dataclass
class Point:
    x: int
    y: int = 0


class Options(TypedDict, total=False):
    mode: Literal["fast", "slow"]


def only_capability(runner: Runner) -> Capability:
    [handler] = runner.handlers.values()
    return handler.contract()


def test_a_handler_becomes_a_contract() -> None:
    runner = Runner("media")
    policy = RetryPolicy(max_attempts=9)

    @runner.capability("image.thumbnail", version="1.2.0", timeout=30, retry=policy, slots=2)
    async def thumbnail(payload: Thumbnail, job: JobContext) -> Made:
        """Make a small
        image.

        With details.
        """
        raise NotImplementedError

    capability = only_capability(runner)
    assert (capability.job_type, capability.version, capability.timeout_seconds) == ("image.thumbnail", "1.2.0", 30)
    assert (capability.retry, capability.slots, capability.description) == (policy, 2, "Make a small image.")
    payload, result = json.loads(capability.payload_schema), json.loads(capability.result_schema)
    assert payload["required"] == ["image"]
    assert payload["properties"]["width"] == {"default": 64, "exclusiveMinimum": 0, "title": "Width", "type": "integer"}
    assert result["properties"]["at"]["format"] == "date-time"
    for schema in (payload, result):
        jsonschema.Draft202012Validator.check_schema(schema)
    assert runner.handler("image.thumbnail", 1) is not None
    assert runner.handler("image.thumbnail", 2) is None


def test_the_function_stays_what_it_is() -> None:
    runner = Runner("plain")

    @runner.capability("double")
    def double(payload: int) -> int:
        return 2 * payload

    assert double(4) == 8


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (Thumbnail, {"image": "a"}, {"width": 5}),
        (Point, {"x": 1}, {"y": 1}),
        (Options, {"mode": "fast"}, {"mode": "other"}),
        (dict[str, int], {"a": 1}, {"a": "b"}),
        (list[Point] | None, None, 5),
        (int, 5, "five"),
        (None, None, 5),
    ],
)
def test_any_type_with_a_json_schema_will_do(annotation: Any, good: object, bad: object) -> None:
    def handle(payload: Any) -> None: ...

    handle.__annotations__["payload"] = annotation
    runner = Runner("any")
    runner.capability("any")(handle)
    schema = json.loads(only_capability(runner).payload_schema)
    jsonschema.validate(good, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(bad, schema)


def test_what_is_not_annotated_as_a_result_may_be_anything() -> None:
    runner = Runner("any")

    @runner.capability("any")
    def anything(payload: Any):  # type: ignore[no-untyped-def]
        return payload

    assert only_capability(runner).result_schema == only_capability(runner).payload_schema == "{}"


def no_annotation(payload) -> None: ...  # type: ignore[no-untyped-def]
def nothing() -> None: ...
def too_much(payload: int, job: JobContext, more: int) -> None: ...
def by_keyword(payload: int, *, job: JobContext) -> None: ...
def unknown_name(payload: "Nowhere") -> None: ...  # type: ignore[name-defined] # noqa: F821
def no_schema(payload: Callable[[], None]) -> None: ...
def no_type(payload: JobContext) -> None: ...
async def is_async(payload: int) -> None: ...
def fine(payload: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (no_annotation, {}, "Expected no_annotation to say the type of payload"),
        (nothing, {}, r"Expected nothing\(payload\) or nothing\(payload, job\), but found nothing\(\)"),
        (too_much, {}, "Expected too_much"),
        (by_keyword, {}, "Expected by_keyword"),
        (unknown_name, {}, "name 'Nowhere' is not defined"),
        (no_schema, {}, "Expected the payload of no_schema to be a type with a JSON Schema"),
        (no_type, {}, "Expected the payload of no_type to be a type with a JSON Schema"),
        (is_async, {"executor": "thread"}, "but is_async is async"),
        (fine, {"version": "1.2"}, "Expected a version like 1.2.0 for job, but found '1.2'"),
        (fine, {"version": "01.2.0"}, "Expected a version like 1.2.0"),
        (fine, {"timeout": 0}, "Expected a timeout above 0"),
        (fine, {"slots": 0}, "Expected at least 1 slot"),
        (fine, {"slots": 17}, "Expected job to fit into the 16 slots of runner r"),
    ],
)
def test_what_is_no_contract_is_refused_in_words(function: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CapabilityInvalid, match=message):
        Runner("r").capability("job", **options)(function)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, "Expected a name of letters"),
        ({"name": "has space"}, "Expected a name of letters"),
        ({"name": "r", "pool": "é"}, "Expected a pool of letters"),
        ({"name": "r", "slots": 0}, "Expected at least 1 slot for runner r"),
    ],
)
def test_a_runner_has_a_name_and_room(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(CapabilityInvalid, match=message):
        Runner(**arguments)


def test_a_job_type_is_offered_once_per_major_version() -> None:
    runner = Runner("r")
    runner.capability("job", version="1.0.0")(fine)
    runner.capability("job", version="2.0.0")(fine)
    with pytest.raises(CapabilityInvalid, match="Expected one handler for job in major version 2"):
        runner.capability("job", version="2.5.0")(fine)
    with pytest.raises(CapabilityInvalid, match=r"Expected a job type like image\.thumbnail, but found 'a b'"):
        runner.capability("a b")(fine)
