"""Old and new side by side on one log: what the contract in force writes, a service of any earlier release would read (docs/operations/upgrade.md)."""

import io
from typing import Any

import fastavro
import pytest

from controlplane.events import codec
from controlplane.events.codec import PREFIX, UndecodableRecord, current_schemas, schemas_by_id
from controlplane.events.schemas import Schema, schema_id, without_logical_types
from tests.golden.records import FILLINGS, on_the_wire, released

EARLIER = [
    (event, version, schema)
    for event, version, schema in released()
    if schema_id(schema) != current_schemas()[event].id
]


def _common(read: Any, written: Any) -> bool:
    """Say whether the two agree wherever both have a field."""
    if isinstance(read, dict) and isinstance(written, dict):
        return all(_common(one, written[name]) for name, one in read.items() if name in written)
    if isinstance(read, list) and isinstance(written, list):
        return len(read) == len(written) and all(map(_common, read, written))
    return bool(read == written)


def test_there_is_an_earlier_release_to_read_with() -> None:
    assert {event for event, _, _ in EARLIER} >= {"CheckpointSigned", "JobSubmitted"}


@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize(
    ("event", "version", "earlier"), EARLIER, ids=lambda one: str(one) if not isinstance(one, dict) else ""
)
def test_what_is_written_today_is_read_with_an_earlier_schema(
    event: str, version: int, earlier: Schema, filling: str
) -> None:
    today = current_schemas()[event]
    wire, written = on_the_wire(event, today.schema, filling)
    read = fastavro.schemaless_reader(
        io.BytesIO(wire[PREFIX.size :]), today.parsed, fastavro.parse_schema(without_logical_types(earlier))
    )
    assert isinstance(read, dict)
    assert read.keys() == {field["name"] for field in earlier["fields"]}, version
    assert _common(read, written)


def test_a_release_that_does_not_know_a_schema_says_so_and_guesses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why a release that writes new versions comes after every reader knows them."""
    event = "JobSubmitted"
    wire, _ = on_the_wire(event, current_schemas()[event].schema, "full")
    older = {key: one for key, one in schemas_by_id().items() if key != current_schemas()[event].id}
    monkeypatch.setattr(codec, "schemas_by_id", lambda: older)
    with pytest.raises(UndecodableRecord, match="Expected the id of a schema of the contract"):
        codec.decode(wire)
