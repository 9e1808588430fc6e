"""The lineage graph in other tools' formats: W3C PROV-JSON by `prov`, OpenLineage run events by `openlineage-python`.

Sources: W3C PROV-DM and PROV-JSON; OpenLineage specification 2-0-2 with its facets for parents, errors and schemas.
"""

import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote
from uuid import NAMESPACE_URL, UUID, uuid5

from controlplane.events.values import canonical_json
from controlplane.truthcore_projector.lineage import Graph, node_view
from controlplane.truthcore_projector.lineage_links import Node, Row

NAMESPACE: Final = "urn:controlplane:"
PRODUCER: Final = "urn:controlplane:truthcore"
JOBS_NAMESPACE: Final = "controlplane"
TRUTHS_NAMESPACE: Final = "controlplane.truth"


def prov_document(graph: Graph, reflects: str) -> str:
    """Return a graph as a PROV-JSON document; `reflects` says as what log positions knew it.

    Raises:
        ImportError: the extra `provenance` is not installed.
    """
    from prov.model import ProvDocument

    document = ProvDocument()
    document.add_namespace("cp", NAMESPACE)
    document.entity("cp:log", {"cp:reflects": reflects})
    for node in graph.depths:
        _add_to_prov(document, node, graph)
    for link in graph.links.values():
        subject, thing = qualified(link.subject), qualified(link.object)
        match link.relation:
            case "wasRevisionOf":
                document.wasDerivedFrom(subject, thing, other_attributes={"prov:type": "prov:Revision"})
            case "wasInvalidatedBy":
                # What PROV lets invalidate an entity is an activity: the taking back that its record tells of.
                document.wasInvalidatedBy(
                    subject, f"{thing}/retraction", graph.details.get(link.object, {}).get("log_time")
                )
                document.activity(f"{thing}/retraction")
                document.used(f"{thing}/retraction", subject)
            case "wasGeneratedBy":
                document.wasGeneratedBy(subject, thing, graph.details.get(link.subject, {}).get("log_time"))
            case relation:
                getattr(document, relation)(subject, thing)
    return str(document.serialize(format="json", indent=1))


def _add_to_prov(document: Any, node: Node, graph: Graph) -> None:
    view = node_view(node, graph)
    said = {
        f"cp:{name}": value if isinstance(value, str | int | float | bool) else _text(value)
        for name, value in view.detail.items()
    }
    if view.position:
        said["cp:position"] = view.position
    match node[0]:
        case "attempt":
            row = graph.details.get(node, {})
            document.activity(
                qualified(node), row.get("started_at"), row.get("ended_at"), {"prov:type": "cp:Attempt", **said}
            )
        case "job":
            document.activity(qualified(node), None, None, {"prov:type": "cp:Job", **said})
        case "runner" | "source":
            document.agent(qualified(node), {"prov:type": "prov:SoftwareAgent", "prov:label": node[1], **said})
        case kind:
            document.entity(qualified(node), {"prov:type": f"cp:{kind.capitalize()}", **said})


def _text(value: Any) -> str:
    return canonical_json(value) if isinstance(value, dict | list | None) else str(value)


def qualified(node: Node) -> str:
    """Return a node's name as a qualified name: whatever it holds, one local part."""
    return f"cp:{node[0]}/{quote(node[1], safe='')}"


def openlineage_events(graph: Graph) -> str:
    """Return the attempts of a graph as OpenLineage run events, in the order of the log: subjects are the data sets.

    Raises:
        ImportError: the extra `provenance` is not installed.
    """
    from openlineage.client.serde import Serde

    events = [
        event for node in graph.depths if node[0] == "attempt" and node in graph.details for event in _run(node, graph)
    ]
    return json.dumps(
        [Serde.to_dict(event) for event in sorted(events, key=lambda event: (event.eventTime, event.run.runId))]
    )


_OUTCOMES: Final = {"SUCCEEDED": "COMPLETE", "FAILED": "FAIL", "LOST": "FAIL", "CANCELLED": "ABORT"}


def _run(node: Node, graph: Graph) -> Iterator[Any]:
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import error_message_run, parent_run

    row = graph.details[node]
    job = graph.details.get(("job", row["job_id"]), {})
    facets: dict[str, Any] = {}
    if parent := job.get("parent_job_id"):
        name = str(graph.details.get(("job", parent), {}).get("job_type", parent))
        facets["parent"] = parent_run.ParentRunFacet(
            run=parent_run.Run(runId=run_id(parent)), job=parent_run.Job(namespace=JOBS_NAMESPACE, name=name)
        )
    begin, end = row["started_at"] or row["log_time"], row["ended_at"]
    run = Run(runId=run_id(node[1]), facets=dict(facets))
    kind = Job(namespace=JOBS_NAMESPACE, name=str(job.get("job_type") or row["job_id"]))
    yield RunEvent(
        eventTime=begin.isoformat(), producer=PRODUCER, run=run, job=kind, eventType=RunState.START, inputs=_inputs(node, graph), outputs=[]
    )  # fmt: skip
    if end is None:
        return
    if row["error"]:
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
            message=row["error"], programmingLanguage="python"
        )
    yield RunEvent(
        eventTime=end.isoformat(), producer=PRODUCER, run=Run(runId=run.runId, facets=facets), job=kind,
        eventType=RunState[_OUTCOMES[row["outcome"]]], inputs=_inputs(node, graph), outputs=_outputs(node, graph),
    )  # fmt: skip


def _inputs(node: Node, graph: Graph) -> list[Any]:
    from openlineage.client.event_v2 import InputDataset

    used = [link.object for link in graph.links.values() if link.relation == "used" and link.subject == node]
    return [
        InputDataset(namespace=TRUTHS_NAMESPACE, name=subject, facets=_schema(rows))
        for subject, rows in sorted(_by_subject(used, graph).items())
    ]


def _outputs(node: Node, graph: Graph) -> list[Any]:
    from openlineage.client.event_v2 import OutputDataset

    made = [link.subject for link in graph.links.values() if link.relation == "wasGeneratedBy" and link.object == node]
    return [
        OutputDataset(namespace=TRUTHS_NAMESPACE, name=subject, facets=_schema(rows))
        for subject, rows in sorted(_by_subject(made, graph).items())
    ]


def _by_subject(nodes: list[Node], graph: Graph) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for node in nodes:
        row = graph.details.get(node, {})
        # A record that is no assertion is a data set under its own position.
        found.setdefault(row.get("subject") or node[1], []).append(row)
    return found


def _schema(rows: list[Row]) -> dict[str, Any]:
    from openlineage.client.facet_v2 import schema_dataset

    fields = {row["predicate"]: str(row["kind"]).lower() for row in rows if "predicate" in row}
    if not fields:
        return {}
    return {
        "schema": schema_dataset.SchemaDatasetFacet(
            fields=[
                schema_dataset.SchemaDatasetFacetFields(name=name, type=kind) for name, kind in sorted(fields.items())
            ]
        )
    }


def run_id(name: str) -> str:
    """Return the UUID of a run: the attempt's own, or one that follows from its name."""
    try:
        return str(UUID(name))
    except ValueError:
        return str(uuid5(NAMESPACE_URL, f"{NAMESPACE}{name}"))
