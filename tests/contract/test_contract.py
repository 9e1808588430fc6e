"""The contract holds together, and a breaking edit to it is found."""

import copy
from pathlib import Path
from typing import Any

import pytest

from controlplane.events import check, schemas
from controlplane.events.catalog import EVENT_TYPES, TOPICS
from controlplane.events.codec import current_schemas
from controlplane.events.compatibility import full_incompatibilities
from controlplane.events.errors import ERROR_CODES


def test_the_contract_as_it_stands_has_no_fault() -> None:
    assert check.faults() == []


def test_every_event_schema_is_in_the_catalog_and_has_one_topic() -> None:
    events = {name.rpartition(".")[2] for name, one in schemas.written_schemas().items() if _is_event(one)}
    assert events == set(EVENT_TYPES)
    assert {one.topic.name for one in EVENT_TYPES.values()} <= set(TOPICS)
    assert all(one.authors for one in EVENT_TYPES.values())


def _is_event(schema: dict[str, Any]) -> bool:
    return any(field["name"] == "header" for field in schema.get("fields", []))


def test_ids_are_positive_and_differ() -> None:
    ids = [schema.id for schema in current_schemas().values()]
    assert len(set(ids)) == len(ids)
    assert all(0 < one < 2**31 for one in ids)


def _edited(edit: str) -> dict[str, Any]:
    schema = copy.deepcopy(current_schemas()["JobAccepted"].schema)
    fields = schema["fields"]
    match edit:
        case "a field renamed":
            fields[1]["name"] = "job"
        case "a field without default added":
            fields.append({"name": "queue", "type": "string"})
        case "a type narrowed":
            fields[4]["type"] = "boolean"
        case "a field without default removed":
            del fields[2]
    return schema


@pytest.mark.parametrize(
    "edit", ["a field renamed", "a field without default added", "a type narrowed", "a field without default removed"]
)
def test_a_breaking_edit_is_found(edit: str) -> None:
    assert full_incompatibilities(current_schemas()["JobAccepted"].schema, _edited(edit))


def test_a_field_with_default_may_be_added() -> None:
    schema = copy.deepcopy(current_schemas()["JobAccepted"].schema)
    schema["fields"].append({"name": "queue", "type": "string", "default": ""})
    assert full_incompatibilities(current_schemas()["JobAccepted"].schema, schema) == []


def test_a_breaking_edit_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    written = dict(schemas.written_schemas())
    name = "controlplane.events.JobAccepted"
    broken = copy.deepcopy(written[name])
    broken["fields"].append({"name": "queue", "type": "string", "doc": "Without a default."})
    monkeypatch.setattr(check, "written_schemas", lambda: {**written, name: broken})
    assert any("JobAccepted" in fault and "compatible" in fault for fault in check.incompatible())
    assert any("types.py" in fault for fault in check.drift())


def test_error_codes_are_words_and_statuses() -> None:
    for code, entry in ERROR_CODES.items():
        assert code.replace("_", "").isalpha()
        assert 400 <= entry.http_status <= 599


def test_released_schemas_are_there() -> None:
    assert {path.parent.name for path in Path(schemas.schema_folder() / "released").glob("*/v1.avsc")} == set(
        EVENT_TYPES
    )
