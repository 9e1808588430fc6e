"""Where truth came from and what rests on it: every node once, cycles and strange inputs included, and other tools can read it."""

import json
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.api.lineage import Direction
from controlplane.events import types
from controlplane.events.types import LogPosition
from controlplane.log.positions import position_text
from controlplane.truthcore_projector.impact import impacts, reach
from controlplane.truthcore_projector.lineage import Graph, page, text, walk, with_inputs
from controlplane.truthcore_projector.lineage_links import Looker, Node
from controlplane.truthcore_projector.moments import ALL, NOW, bounds
from controlplane.truthcore_projector.provenance import openlineage_events, prov_document
from tests.unit.truthcore_projector.stories import Projection, header, projection


@pytest.fixture
def told() -> Iterator[Projection]:
    with projection() as made:
        yield made


def graph(told: Projection, root: Node, direction: Direction = "both", as_of: Any = None, **limits: int) -> Graph:
    with told.store.snapshot() as cursor:
        return walk(Looker(cursor, bounds(cursor, as_of)), [root], direction, **limits)


def exported(told: Projection, root: Node) -> Graph:
    with told.store.snapshot() as cursor:
        looker = Looker(cursor, {})
        return with_inputs(looker, walk(looker, [root], "both"))


def names(found: Graph) -> set[str]:
    return {text(node) for node in found.depths}


def edges(found: Graph) -> set[tuple[str, str, str]]:
    return {(text(link.subject), link.relation, text(link.object)) for link in found.links.values()}


def measured(told: Projection) -> dict[str, str]:
    """Tell of a survey that a child job measured, from a raw reading and from a record of the log; returns the ids."""
    told.runs("survey", "r1")
    done = told.runs("measure", "r2", parent="survey")
    raw, raw_place = told.says("lens:1", "raw", 41, "sensor")
    width, width_place = told.says(
        "image:1", "width", 640, "camera", inputs=(raw, position_text(done)), job="measure", attempt="measure-a", cause=done
    )  # fmt: skip
    better, _ = told.says("image:1", "width", 641, "camera", supersedes=width)
    area, _ = told.says("image:1", "area", 307_200, "geometer", inputs=(width_place,))
    gone = told.tell(
        types.TruthRetracted(
            header=header("TruthRetracted", "x"), subject="image:1", assertion_id=area,
            source=types.Source(kind=types.SourceKind.CLIENT, name="geometer"),
        )
    )  # fmt: skip
    return {
        "raw": f"assertion:{raw}", "width": f"assertion:{width}", "better": f"assertion:{better}", "area": f"assertion:{area}",
        "done": f"event:{position_text(done)}", "gone": f"event:{position_text(gone)}", "raw_place": raw_place,
    }  # fmt: skip


def node(identity: str) -> Node:
    kind, _, name = identity.partition(":")
    return kind, name


def test_up_from_a_truth_stand_its_inputs_attempt_runner_and_parents(told: Projection) -> None:
    ids = measured(told)
    found = edges(graph(told, node(ids["width"]), "up"))
    assert found >= {
        (ids["width"], "wasGeneratedBy", "attempt:measure-a"),
        (ids["width"], "wasDerivedFrom", ids["raw"]),
        (ids["width"], "wasDerivedFrom", ids["done"]),
        (ids["width"], "wasAttributedTo", "source:camera"),
        (ids["raw"], "wasAttributedTo", "source:sensor"),
        ("attempt:measure-a", "used", ids["raw"]),
        ("attempt:measure-a", "wasAssociatedWith", "runner:r2"),
        ("attempt:measure-a", "wasInformedBy", "job:measure"),
        ("job:measure", "wasInformedBy", "job:survey"),
    }
    assert ids["area"] not in names(graph(told, node(ids["width"]), "up"))


def test_down_from_anything_stands_what_rests_on_it(told: Projection) -> None:
    ids = measured(told)
    for root in ("source:sensor", ids["raw"], "job:survey", "runner:r2", "attempt:measure-a", ids["done"]):
        found = names(graph(told, node(root), "down"))
        assert found >= {ids["width"], ids["better"], ids["area"]}, root
    assert ids["raw"] not in names(graph(told, node("job:survey"), "down"))
    assert (ids["area"], "wasInvalidatedBy", ids["gone"]) in edges(graph(told, node(ids["area"]), "up"))


def test_lineage_as_of_an_earlier_moment_has_nothing_that_came_later(told: Projection) -> None:
    ids = measured(told)
    place = ids["raw_place"].split("/")
    late = graph(told, node(ids["raw"]), "down", {("controlplane.truth", one): 10**6 for one in (0, 1)})
    early = graph(
        told,
        node(ids["raw"]),
        "down",
        {(place[0], one): int(place[2]) if one == int(place[1]) else -1 for one in (0, 1)},
    )
    assert ids["area"] in names(late)
    assert names(early) == {ids["raw"]}


@pytest.mark.parametrize(
    "strange",
    ["", "not/a/position", "controlplane.truth/٣/1", f"controlplane.truth/1/{10**30}", "a/b/1/2", "controlplane.jobs/1/999", "x'; DROP"],
)  # fmt: skip
def test_inputs_that_name_nothing_are_ends(told: Projection, strange: str) -> None:
    name, _ = told.says("s", "p", 1, "x", inputs=(strange,))
    found = graph(told, ("assertion", name))
    assert len(found.depths) == 3
    nodes, _, _ = page(found, 10, 0)
    assert [one.detail for one in nodes if one.name == strange] == [{}]


@given(st.lists(st.lists(st.integers(0, 7), max_size=3), min_size=1, max_size=8), st.integers(0, 7), st.booleans())
@settings(max_examples=15)
def test_any_graph_is_walked_whole_and_once_cycles_included(inputs: list[list[int]], root: int, up: bool) -> None:
    root %= len(inputs)
    with projection() as told:
        ids = [header("TruthAsserted", f"n{number}").event_id for number in range(8)]
        for number, some in enumerate(inputs):
            told.says("s", f"p{number}", number, "x", name=f"n{number}", inputs=tuple(ids[one] for one in some))
        known = {(number, one) for number, some in enumerate(inputs) for one in some}
        wanted, level = {root}, {root}
        while level:
            level = {b if up else a for a, b in known if (a if up else b) in level} - wanted
            wanted |= level
        found = graph(told, ("assertion", ids[root]), "up" if up else "down")
        assert {name for kind, name in found.depths if kind == "assertion"} == {ids[one] for one in wanted}
        assert not found.truncated
        pages = []
        following: int | None = 0
        while following is not None:
            nodes, some_edges, following = page(found, 2, following)
            pages.append((nodes, some_edges))
    together = [one.id for nodes, _ in pages for one in nodes]
    assert len(together) == len(set(together)) == len(found.depths)
    closed = [(one.subject, one.relation, one.object) for _, some_edges in pages for one in some_edges]
    assert len(closed) == len(set(closed))
    assert set(closed) == edges(found)


def test_depth_and_number_of_nodes_are_bounded_and_said(told: Projection) -> None:
    before: tuple[str, ...] = ()
    for number in range(30):
        name, _ = told.says("s", f"p{number}", number, "x", inputs=before)
        before = (name,)
    assert len(graph(told, ("assertion", before[0]), "up").depths) == 31  # With their source.
    shallow = graph(told, ("assertion", before[0]), "up", depth=5)
    assert (max(shallow.depths.values()), shallow.truncated) == (5, True)
    few = graph(told, ("assertion", before[0]), "up", nodes=7)
    assert (len(few.depths), few.truncated) == (7, True)
    assert {link.subject for link in few.links.values()} | {link.object for link in few.links.values()} <= set(
        few.depths
    )


def test_prov_reads_what_is_exported(told: Projection) -> None:
    from prov.model import ProvActivity, ProvAgent, ProvDerivation, ProvDocument, ProvEntity, ProvGeneration

    ids = measured(told)
    found = exported(told, node(ids["width"]))
    written = prov_document(found, "{}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        document = ProvDocument.deserialize(content=written, format="json")
    assert ProvDocument.deserialize(content=document.serialize(format="json"), format="json") == document
    kinds = [kind for kind, _ in found.depths]
    assert len(set(document.get_records(ProvAgent))) == kinds.count("runner") + kinds.count("source")
    assert len(list(document.get_records(ProvEntity))) == kinds.count("assertion") + kinds.count("event") + 1
    assert {str(one.identifier) for one in document.get_records(ProvActivity)} >= {
        "cp:attempt/measure-a",
        "cp:job/measure",
        "cp:job/survey",
    }
    relations = [link.relation for link in found.links.values()]
    assert len(list(document.get_records(ProvGeneration))) == relations.count("wasGeneratedBy")
    assert len(list(document.get_records(ProvDerivation))) == relations.count("wasDerivedFrom") + relations.count(
        "wasRevisionOf"
    )


def test_openlineage_takes_what_is_exported(told: Projection) -> None:
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState

    ids = measured(told)
    told.runs("broken", "r3", parent="survey", fails=True)
    events = json.loads(openlineage_events(exported(told, ("job", "survey"))))
    by_job: dict[str, list[Any]] = {}
    for one in events:
        # The library's own classes check ids, times and names.
        RunEvent(
            eventTime=one["eventTime"], producer=one["producer"], run=Run(one["run"]["runId"]), job=Job(**_named(one["job"])),
            eventType=RunState[one["eventType"]], inputs=[InputDataset(**_named(each)) for each in one["inputs"]],
            outputs=[OutputDataset(**_named(each)) for each in one["outputs"]],
        )  # fmt: skip
        by_job.setdefault(one["run"]["runId"], []).append(one)
    assert sorted([each["eventType"] for each in some] for some in by_job.values()) == [
        ["START", "COMPLETE"], ["START", "COMPLETE"], ["START", "FAIL"]
    ]  # fmt: skip
    (measure,) = (some for some in by_job.values() if some[-1]["outputs"])
    assert [(one["name"], one["facets"]["schema"]["fields"]) for one in measure[-1]["outputs"]] == [
        ("image:1", [{"name": "width", "type": "number", "fields": []}])
    ]
    assert [one["name"] for one in measure[-1]["inputs"]] == sorted([ids["done"].partition(":")[2], "lens:1"])
    assert measure[0]["run"]["facets"]["parent"]["job"]["name"] == "measure"
    (failed,) = (one for one in events if one["eventType"] == "FAIL")
    assert failed["run"]["facets"]["errorMessage"]["message"] == "Expected a lens, but found none."


def _named(one: dict[str, Any]) -> dict[str, Any]:
    return {"namespace": one["namespace"], "name": one["name"]}


def test_the_impact_of_a_source_is_what_would_change_without_it(told: Projection) -> None:
    told.declares("width", types.Cardinality.SINGLE)
    bad, place = told.says("image:1", "width", 640, "camera")
    told.says("image:1", "width", 650, "ruler", 0.6)
    told.says("image:2", "width", 10, "camera")
    told.says("image:3", "width", 10, "camera")
    told.says("image:3", "width", 10, "ruler")
    told.says("image:4", "width", 10, "ruler")
    told.runs("area", "r1")
    area, _ = told.says("image:1", "area", 1, "geometer", inputs=(bad,), job="area", attempt="area-a")
    told.says("image:1", "price", 2, "seller", inputs=(area, place))
    told.says("image:2", "width", 11, "ruler", 0.1)
    with told.store.snapshot() as cursor:
        reached = reach(cursor, "camera", ALL)
        found, following = impacts(cursor, "camera", reached, NOW, 3, None)
        more, end = impacts(cursor, "camera", reached, NOW, 3, following)
        nobody = reach(cursor, "nobody", ALL)
    assert (reached.assertions, len(reached.derived), reached.jobs, reached.truncated) == (3, 2, ["area"], False)
    assert [(one.subject, one.predicate, one.change) for one in (*found, *more)] == [
        ("image:1", "area", "vanishes"), ("image:1", "price", "vanishes"), ("image:1", "width", "changes"),
        ("image:2", "width", "changes"), ("image:3", "width", "less sure"),
    ]  # fmt: skip
    assert found[2].without is not None
    assert (found[2].now.value, found[2].without.value, end) == (640, 650, None)
    assert (nobody.assertions, nobody.derived) == (0, frozenset())


def test_a_source_that_cites_itself_in_a_circle_ends(told: Projection) -> None:
    ids = [header("TruthAsserted", f"n{number}").event_id for number in range(3)]
    for number in range(3):
        told.says("s", f"p{number}", 1, "x" if number == 0 else "y", name=f"n{number}", inputs=(ids[(number + 1) % 3],))
    with told.store.snapshot() as cursor:
        reached = reach(cursor, "x", ALL)
    assert (reached.assertions, reached.derived, reached.truncated) == (1, frozenset(ids), False)


def test_a_record_is_the_job_or_the_assertion_that_it_is(told: Projection) -> None:
    done = told.runs("job", "r")
    name, place = told.says("s", "p", 1, "x")
    with told.store.snapshot() as cursor:
        looker = Looker(cursor, {})
        assert looker.record(place) == ("assertion", name)
        assert looker.record(position_text(done)) == ("event", position_text(done))
        submitted = next(
            LogPosition(topic=row[0], partition=row[1], offset=row[2])
            for row in cursor.execute('SELECT topic, partition, "offset" FROM submissions').fetchall()
        )
        assert looker.record(position_text(submitted)) == ("job", "job")
