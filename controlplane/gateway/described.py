"""The gateway's OpenAPI document: every path with its answers, its problems and examples, those that TruthCore serves included."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from copy import deepcopy
from typing import Any, Final

from fastapi import FastAPI

from controlplane import __version__
from controlplane.api.examples import EXAMPLES
from controlplane.api.models import Problem
from controlplane.api.problems import MEDIA_TYPE
from controlplane.events.errors import ERROR_CODES
from controlplane.gateway.reads import described_reads
from controlplane.gateway.registry import registry_schemas
from controlplane.telemetry.health import HealthAnswer
from controlplane.telemetry.requests import FRAMEWORKS_OWN

DESCRIPTION: Final = """Jobs run on a message log; what is known of them, and what is therefore true, follows from it.

Writes answer `202` with the log position once the brokers have acknowledged. Reads take `min_position` and wait until they reflect it;
every answer says what it `reflects`. Every error is a problem (RFC 9457) with the fields of an ErrorEnvelope.
"""
TAGS: Final = (
    ("jobs", "Submit, follow and command jobs."),
    ("events", "The records of the log: pages, live streams, causes and effects."),
    ("truths", "What is true, since when, according to whom, and where it comes from."),
    ("runners", "Who executes."),
    ("operations", "Limits, shares, pauses, schedules, bulk commands, dead letters."),
    ("secrets", "What is encrypted, and forgetting it."),
    ("session", "Who asks."),
    ("audit", "Digests and read-only SQL."),
    ("schema registry", "The read side of a schema registry, for stock Avro tools."),
    ("health", "For operators."),
)
ANY: Final = (
    "unauthorized",
    "forbidden",
    "not_found",
    "method_not_allowed",
    "not_acceptable",
    "url_too_long",
    "request_invalid",
    "rate_limited",
    "overloaded",
)
BODIES: Final = ("http_malformed", "request_timeout", "payload_too_large", "unsupported_media_type")
WRITES: Final = ("conflict",)
SECRETS: Final = ("content_forgotten",)
WITH_SECRETS: Final = frozenset(
    {("/v1/jobs", "post"), ("/v1/schedules/{schedule_id}", "put"), ("/v1/jobs/{job_id}/opened", "get")}
)
"""What needs the key of a secret, which may be destroyed."""
OWN_ERRORS: Final = "x-own-errors"
"""In an operation while the document is made: the statuses that it describes itself."""
METHODS: Final = ("get", "put", "post", "delete")

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


class DescribedGateway(FastAPI):
    """A FastAPI application that describes what it forwards as well."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI 3.1 document, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = completed(super().openapi())
        return self.openapi_schema


def described(lifespan: Lifespan) -> FastAPI:
    """Return an application without paths, that describes itself well."""
    return DescribedGateway(
        title="ControlPlane", version=__version__, lifespan=lifespan, description=DESCRIPTION,
        summary="Run jobs, and know what is true of them.", license_info={"name": "Apache 2.0", "identifier": "Apache-2.0"},
        openapi_tags=[{"name": name, "description": text} for name, text in TAGS], servers=[{"url": "/"}],
        telemetry=FRAMEWORKS_OWN,
    )  # fmt: skip


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """Return FastAPI's document with the forwarded reads, health, the problems of every path, and examples."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    reads = deepcopy(described_reads())
    for name, schema in reads["schemas"].items():
        schemas.setdefault(name, schema)
    schemas |= registry_schemas()
    paths = document["paths"]
    for read in reads["reads"]:
        paths.setdefault(read["path"], {})[read["method"].lower()] = read["operation"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = _own_schema(Problem)
    _add_health(document)
    document["components"]["responses"] = _problems()
    for path, item in paths.items():
        for method, operation in item.items():
            if method in METHODS:
                _add_problems(path, method, operation)
                _name_headers(operation)
    for name, example in EXAMPLES.items():
        if name in schemas:
            schemas[name]["examples"] = [example]
    return document


def _own_schema(model: type[Any]) -> dict[str, Any]:
    schema: dict[str, Any] = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return schema


def _problems() -> dict[str, Any]:
    """Return one response for each status that some code has."""
    by_status: dict[int, list[str]] = {}
    for code in (*ANY, *BODIES, *WRITES, *SECRETS):
        by_status.setdefault(ERROR_CODES[code].http_status, []).append(code)
    return {f"Problem{status}": _problem(status, codes) for status, codes in by_status.items()}


def _problem(status: int, codes: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "description": "; ".join(ERROR_CODES[code].title for code in codes),
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status in {429, 503}:
        wait = {"description": "Seconds after which to try again.", "schema": {"type": "integer", "minimum": 1}}
        found["headers"] = {"Retry-After": wait}
    if status == 405:
        found["headers"] = {"Allow": {"description": "Methods of this path.", "schema": {"type": "string"}}}
    return found


_OF_FASTAPI: Final = {"$ref": "#/components/schemas/HTTPValidationError"}


def _add_problems(path: str, method: str, operation: dict[str, Any]) -> None:
    own = operation.pop(OWN_ERRORS, ())
    for answer in operation["responses"].values():
        content = answer.get("content", {})
        if content.get("application/json", {}).get("schema") == _OF_FASTAPI:
            del content["application/json"]  # It would be; ours are problems.
    codes = [*ANY, *BODIES]
    if method != "get" and path != "/v1/sql":
        codes += WRITES
    if (path, method) in WITH_SECRETS:
        codes += SECRETS
    for code in codes:
        status = ERROR_CODES[code].http_status
        if own != "all" and status not in own:
            operation["responses"][str(status)] = {"$ref": f"#/components/responses/Problem{status}"}


def _name_headers(operation: dict[str, Any]) -> None:
    """Let a header be absent or text: it cannot be null."""
    for one in operation.get("parameters", ()):
        if one["in"] == "header" and "anyOf" in one["schema"]:
            [kind] = [kind for kind in one["schema"].pop("anyOf") if kind != {"type": "null"}]
            one["schema"] |= kind


def _add_health(document: dict[str, Any]) -> None:
    schema = HealthAnswer.model_json_schema(ref_template="#/components/schemas/{model}")
    document["components"]["schemas"] |= schema.pop("$defs")
    document["components"]["schemas"]["HealthAnswer"] = schema
    whole = {"application/json": {"schema": {"$ref": "#/components/schemas/HealthAnswer"}}}
    live = {"application/json": {"schema": {"type": "object"}}}
    text = {"text/plain": {"schema": {"type": "string"}}}
    for path, name, content, ready in (
        ("/health", "The state of the service and of each thing that it depends on.", whole, False),
        ("/health/live", "Whether the process answers.", live, False),
        ("/health/ready", "Whether the service can do its work; 503 when it cannot.", whole, True),
        ("/metrics", "Metrics in the Prometheus text format.", text, False),
    ):
        answers = {"200": {"description": name, "content": content}}
        if ready:
            answers["503"] = {"description": "It cannot now.", "content": content}
        document["paths"][path] = {
            "get": {"tags": ["health"], "summary": name, "responses": answers, OWN_ERRORS: "all", "operationId": path[1:].replace("/", "_")}
        }  # fmt: skip
