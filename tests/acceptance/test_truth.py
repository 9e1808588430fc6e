"""Truth as a user meets it, through the gateway and the command: contracts, two times, where it came from, what changed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.cli.stack import SystemStack
from controlplane.client import Client, ControlPlaneError
from controlplane.settings import Settings
from tests.acceptance.test_stack import command


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemStack]:
    with SystemStack(Settings(), tmp_path_factory.mktemp("stack"), free_ports=True) as running:
        yield running


@pytest.fixture
def client(stack: SystemStack) -> Iterator[Client]:
    with stack.client() as one:
        yield one


def says(
    client: Client, subject: str, predicate: str, value: Any, source: str, confidence: float = 0.9, **more: Any
) -> str:
    """Assert something and return its position, once it is answered for."""
    position = str(client.assert_truth(subject, predicate, value, confidence, source=source, **more).position)
    client.truths(subject, predicate, min_position=position)
    return position


def shown(stack: SystemStack, *arguments: str) -> str:
    """Return what a person sees of a command that succeeds."""
    done = subprocess.run(
        [sys.executable, "-m", "controlplane.cli.main", *arguments],
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "160", **stack.environment()}, cwd=Path.cwd(), capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_contract_and_the_trust_in_a_source_decide(client: Client) -> None:
    client.declare_predicate("depth", cardinality="SINGLE", unit="m", value_kind="NUMBER")
    says(client, "lake:baikal", "depth", 1642, "sonar", unit="m")
    says(client, "lake:baikal", "depth", 1637, "atlas")
    says(client, "lake:baikal", "depth", "deep", "poet")
    trust = client.declare_source("atlas", 0.1, "copied from an older edition")
    (truth,) = client.truths("lake:baikal", "depth", min_position=trust.position)
    assert (truth.value, truth.unit, truth.conflict, truth.rule) == (1642, "m", True, "BAYES")
    assert [vote.strength for vote in truth.candidates[1].votes] == [pytest.approx(0.09)]
    assert [(one.vote.source, one.reason) for one in truth.ignored] == [
        ("poet", "Expected a number, as declared, but found a string.")
    ]


def test_two_times_are_asked_for_apart(stack: SystemStack, client: Client) -> None:
    first = says(
        client, "office:1", "tenant", "person:ann", "registry", kind="REFERENCE", valid_from="2020-01-01T00:00:00Z"
    )
    second = says(
        client, "office:1", "tenant", "person:bob", "registry", kind="REFERENCE", valid_from="2021-01-01T00:00:00Z"
    )

    def tenant(**times: Any) -> Any:
        return [one.value for one in client.truths("office:1", "tenant", **times)]

    assert (tenant(), tenant(valid_at="2020-06-01T00:00:00Z")) == (["person:bob"], ["person:ann"])
    assert (tenant(as_of=first), tenant(as_of=second, valid_at="2019-01-01T00:00:00Z")) == (["person:ann"], [])
    with pytest.raises(ControlPlaneError, match="Expected valid_to after valid_from"):
        says(client, "s", "p", 1, "x", valid_from="2020-01-01T00:00:00Z", valid_to="2020-01-01T00:00:00Z")
    code, found = command(stack, "truth", "history", "office:1", "tenant", "--axis", "valid")
    assert (code, [one["value"] for one in found["intervals"]]) == (0, ["person:ann", "person:bob"])
    code, found = command(stack, "truth", "diff", first, second, "--subject", "office:*")
    assert [(one["change"], one["before"]["value"], one["after"]["value"]) for one in found["changes"]] == [
        ("changed", "person:ann", "person:bob")
    ]


def test_the_history_of_a_number_is_plotted(stack: SystemStack, client: Client) -> None:
    positions = [says(client, "room:7", "temperature", value, "thermometer") for value in (18, 21.5, 20)]
    text = shown(stack, "truth", "history", "room:7", "temperature")
    assert [word for word in ("18", "21.5", "20", "room:7 temperature: value (UTC)", "┤") if word not in text] == []
    assert "21.5 (90.0%) -> 20 (90.0%)" in shown(stack, "truth", "diff", positions[1], "--subject", "room:7")
    assert "temperature = 20" in shown(stack, "truth", "room:7")
    code, refused = command(stack, "truth", "history", "room:7", "nothing")
    assert (code, refused["error"]["code"]) == (1, "not_found")
    code, refused = command(stack, "truth", "diff", "yesterday")
    assert (code, refused["error"]["field"]) == (1, "from")


def test_where_a_truth_came_from_and_what_rests_on_a_source(stack: SystemStack, client: Client) -> None:
    raw = client.assert_truth("lens:9", "raw", 41, source="sensor")
    width = client.assert_truth("image:9", "width", 640, source="camera", inputs=[raw.event_id])
    says(client, "image:9", "area", 307_200, "geometer", inputs=[width.position])
    code, found = command(stack, "lineage", "image:9", "area", "--direction", "up")
    assert code == 0
    assert {one["id"] for one in found["nodes"]} >= {
        f"assertion:{raw.event_id}",
        f"assertion:{width.event_id}",
        "source:sensor",
    }
    assert (found["truncated"], found["next_cursor"]) == (False, None)
    text = shown(stack, "lineage", "sensor")
    assert [
        word for word in ("lens:9 raw = 41", "image:9 width = 640", "image:9 area = 307200") if word not in text
    ] == []
    prov = json.loads(shown(stack, "lineage", raw.event_id, "--format", "prov"))
    assert len(prov["wasDerivedFrom"]) == 2
    assert json.loads(shown(stack, "lineage", str(width.position), "--format", "openlineage")) == []
    code, impact = command(stack, "impact", "sensor")
    assert (impact["assertions"], impact["derived"], [one["change"] for one in impact["truths"]]) == (
        1,
        2,
        ["vanishes"] * 3,
    )
    assert "image:9 area  307200 (90.0%) -> nothing" in shown(stack, "impact", "sensor")
    code, refused = command(stack, "impact", "nobody")
    assert (code, refused["error"]["code"]) == (1, "not_found")
    for query in ({}, {"job": "a", "event": "b"}, {"subject": "a"}):
        with pytest.raises(ControlPlaneError, match="Expected exactly one of"):
            client.request("GET", "/v1/lineage", query=query)


def test_changes_are_told_as_they_come_and_taken_up_where_they_broke_off(stack: SystemStack, client: Client) -> None:
    begin = client.request("GET", "/v1/truths/changes")["place"]
    for value in (18, 19, 19):
        says(client, "room:9", "temperature", value, "thermometer")
    says(client, "room:8", "temperature", 1, "thermometer")
    feed = client.truth_changes("room:9", after=begin)
    first = next(feed)
    assert (first.change, first.before, first.after and first.after.value) == ("appeared", None, 18)
    second = next(feed)
    assert (second.change, second.before and second.before.value, second.after and second.after.value) == (
        "changed",
        18,
        19,
    )
    feed.close()
    later = client.truth_changes("room:9", after=first.place)
    assert next(later).cause == second.cause
    assert next(later).change == "otherwise"  # The same value again: another vote.
    says(client, "room:9", "temperature", 21, "thermometer")
    fresh = next(later)
    assert (fresh.change, fresh.after and fresh.after.value) == ("changed", 21)
    later.close()
    lines = shown(stack, "truth", "watch", "room:9", "--after", begin, "--until-idle", "--json").splitlines()
    assert [json.loads(one)["change"] for one in lines] == ["appeared", "changed", "otherwise", "changed"]
    assert "room:9 temperature" in shown(stack, "truth", "watch", "room:9", "--after", first.place, "--until-idle")
    code, refused = command(stack, "truth", "watch", "--after", "nowhere")
    assert (code, refused["error"]["code"]) == (1, "request_invalid")


def test_a_snapshot_is_put_into_a_folder(stack: SystemStack, client: Client, tmp_path: Path) -> None:
    says(client, "room:4", "temperature", 4, "thermometer")
    code, found = command(stack, "snapshot", tmp_path.as_uri())
    assert code == 0, found
    assert Path(found["file"]).stat().st_size == found["size_bytes"]
    assert found["records"] > 0
    code, refused = command(stack, "snapshot", tmp_path.as_uri(), "--truthcore", "http://127.0.0.1:1")
    assert (code, refused["error"]["message"][:8]) == (1, "Expected")


def test_rows_are_read_as_a_table_with_the_databases_types(client: Client) -> None:
    position = says(client, "room:5", "temperature", 4.5, "thermometer")
    table = client.sql_table(
        "SELECT subject, number, log_time FROM assertions WHERE subject = 'room:5'", min_position=position
    )
    assert table.to_pylist()[0]["number"] == 4.5
    assert str(table.schema.field("log_time").type) == "timestamp[us]"
    assert json.loads(table.schema.metadata[b"controlplane.reflects"])["answered_by"] == ["truthcore"]
    with pytest.raises(ControlPlaneError, match="Expected one SELECT"):
        client.sql_table("DROP TABLE events")
