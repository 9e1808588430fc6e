"""The AsyncAPI document is one by the specification's own schema, and says of every event what the catalog says."""

import copy
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest
from jsonschema import Draft7Validator

from controlplane.events.catalog import EVENT_TYPES, TOPICS
from controlplane.gateway.asyncapi import document

SCHEMA = Path(__file__).parent / "data" / "asyncapi-3.0.0.json"


@pytest.fixture(scope="module")
def validator() -> Draft7Validator:
    return Draft7Validator(json.loads(SCHEMA.read_text()))


def test_it_is_asyncapi_3(validator: Draft7Validator) -> None:
    assert [fault.message for fault in validator.iter_errors(document())] == []


def test_the_schema_would_find_a_fault(validator: Draft7Validator) -> None:
    spoiled: Any = copy.deepcopy({**document(), "components": {}})
    spoiled["channels"]["jobs"]["adress"] = "a typing error"
    assert not validator.is_valid(spoiled)


def test_every_topic_and_event_is_there_with_its_authors_and_readers() -> None:
    found = document()
    assert {one["address"] for one in found["channels"].values()} == set(TOPICS)
    for name, event in EVENT_TYPES.items():
        message = found["components"]["messages"][name]
        fastavro.parse_schema(copy.deepcopy(message["payload"]["schema"]))
        short = event.topic.name.rpartition(".")[2]
        assert name in found["channels"][short]["messages"]
        reference = {"$ref": f"#/channels/{short}/messages/{name}"}
        for service in event.authors:
            assert reference in found["operations"][f"{service.value}.send.{short}"]["messages"]
        for service in event.topic.readers:
            assert reference in found["operations"][f"{service.value}.receive.{short}"]["messages"]
