"""The OpenAPI document says everything: every path with its answers, problems and examples that are valid."""

from functools import cache
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from schemathesis.openapi import from_dict

from controlplane.api.examples import EXAMPLES
from controlplane.gateway.described import METHODS, WITH_SECRETS
from controlplane.gateway.limits import judge_accept
from controlplane.gateway.service import create_app
from controlplane.settings import Settings


@cache
def document() -> dict[str, Any]:
    return create_app(Settings()).openapi()


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    found = [
        (path, method, one)
        for path, item in document()["paths"].items()
        for method, one in item.items()
        if method in METHODS
    ]
    assert len(found) > 60
    return found


def references(part: Any) -> set[str]:
    """Return where a document refers to."""
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*(references(one) for one in part.values()))
    return set().union(*(references(one) for one in part)) if isinstance(part, list) else set()


def test_it_is_openapi_3_1_and_every_reference_leads_somewhere() -> None:
    assert document()["openapi"].startswith("3.1")
    assert len(references(document())) > 100
    for reference in references(document()):
        place: Any = document()
        for name in reference.removeprefix("#/").split("/"):
            assert name in place, f"Expected {reference} to lead somewhere, but it does not."
            place = place[name]
    assert len(list(from_dict(document()).get_all_operations())) == len(operations())


def keywords(schema: Any) -> set[str]:
    """Return the names of everything in a document, values of `properties` and the like included."""
    if isinstance(schema, dict):
        return set(schema).union(*(keywords(one) for one in schema.values()))
    return set().union(*(keywords(one) for one in schema)) if isinstance(schema, list) else set()


def test_bounds_are_said_in_the_words_of_json_schema() -> None:
    assert (
        keywords(document()) & {"ge", "gt", "le", "lt"} == set()
    )  # What pydantic leaves of a bound that it cannot place.


def test_what_needs_a_secret_says_that_it_may_be_forgotten() -> None:
    assert {(path, method) for path, method, one in operations() if "410" in one["responses"]} == WITH_SECRETS


def test_a_header_cannot_be_null() -> None:
    headers = [one for _, _, found in operations() for one in found.get("parameters", ()) if one["in"] == "header"]
    assert len(headers) > 10
    assert all("type" in one["schema"] and "anyOf" not in one["schema"] for one in headers)


def test_every_path_names_its_problems() -> None:
    for path, method, one in operations():
        if path.startswith(("/health", "/metrics")):
            continue
        wanted = {"404", "405", "406", "422", "429", "503"}
        assert wanted <= one["responses"].keys(), (method, path)
        assert one.get("summary"), (method, path)
    problem = document()["components"]["responses"]["Problem503"]
    assert "Retry-After" in problem["headers"]
    assert list(problem["content"]) == ["application/problem+json"]


def test_every_write_takes_an_idempotency_key_and_every_read_a_position() -> None:
    own_ids = (
        "/subjects",
        "/config",
        "/mode",
        "/compatibility",
        "/schemas",
        "/health",
        "/metrics",
        "/v1/contents",
        "/asyncapi",
        "/v1/session",
    )
    for path, method, one in operations():
        names = {parameter["name"] for parameter in one.get("parameters", ())}
        if path.startswith(own_ids):
            continue
        if method == "get" or path == "/v1/sql":
            assert "min_position" in names or path in {"/v1/events/stream", "/v1/jobs/{job_id}/opened"}, (method, path)
        else:
            assert "Idempotency-Key" in names, (method, path)


def test_every_form_of_answer_may_be_asked_for_by_name() -> None:
    forms = {form for path, _, one in operations() if path.startswith("/v1/") for form in one["responses"].get("200", {}).get("content", {})}  # fmt: skip
    assert "application/octet-stream" in forms
    for form in forms:
        judge_accept(form)


def test_every_request_and_answer_has_an_example() -> None:
    schemas = document()["components"]["schemas"]
    used = {
        reference.rpartition("/")[2]
        for _, _, one in operations()
        for part in (one.get("requestBody", {}), one["responses"].get("200", {}), one["responses"].get("202", {}))
        for content in part.get("content", {}).values()
        if (reference := content.get("schema", {}).get("$ref", ""))
    }
    registry = {"SubjectVersion", "SchemaText", "Compatible", "Level", "Mode", "PostedSchema"}
    assert {name for name in used if "examples" not in schemas[name]} - registry == set()


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_examples_are_valid(name: str) -> None:
    root = {**document(), "$ref": f"#/components/schemas/{name}"}
    faults = [fault.message for fault in Draft202012Validator(root).iter_errors(EXAMPLES[name])]
    assert faults == []
