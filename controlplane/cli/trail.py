"""The trail of a job or a subject: everything that the log says of it, gathered for a report."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal
from urllib.parse import quote

from pydantic import BaseModel

from controlplane import __version__
from controlplane.api.lineage import LineageAnswer
from controlplane.api.models import CausationAnswer, EventView, JobView, TruthView
from controlplane.api.truths import TruthHistoryAnswer
from controlplane.client import Client, ControlPlaneError

EVENTS_LIMIT: Final = 500
TRUTHS_LIMIT: Final = 200
HISTORIES_LIMIT: Final = 20


class Trail(BaseModel):
    """What the log says of one job or subject, as far as the positions that it names."""

    kind: Literal["job", "subject"]
    name: str
    made_at: datetime
    made_by: str
    as_of: str | None
    positions: dict[str, dict[int, int]]
    """Topic and partition to the first offset that is not reflected."""
    job: JobView | None = None
    events: list[EventView]
    causation: CausationAnswer | None = None
    lineage: LineageAnswer | None = None
    truths: list[TruthView]
    histories: list[TruthHistoryAnswer] = []


def gather(client: Client, name: str, as_of: str | None) -> Trail:
    """Return the trail of the job with this id, or else of the subject with this name.

    Raises:
        ControlPlaneError: the log knows neither.
    """
    try:
        return _of_job(client, name, as_of)
    except ControlPlaneError as error:
        if error.code != "not_found":
            raise
    return _of_subject(client, name, as_of)


def _of_job(client: Client, name: str, as_of: str | None) -> Trail:
    job = client.job(quote(name, safe=""), as_of=as_of)
    events = client.job_events(quote(name, safe=""), as_of=as_of)
    causation = client.why(job=name, as_of=as_of)
    lineage = LineageAnswer.model_validate(_read(client, "/v1/lineage", job=name, as_of=as_of, limit=1000))
    about = {(one.event["subject"], one.event["predicate"]) for one in events if one.event_type == "TruthAsserted"}
    truths = [
        one for subject, predicate in sorted(about)[:TRUTHS_LIMIT] for one in client.truths(subject, predicate, as_of=as_of)
        if (one.subject, one.predicate) == (subject, predicate)
    ]  # fmt: skip
    return Trail(
        kind="job", name=name, made_at=datetime.now(UTC), made_by=f"controlplane {__version__}", as_of=as_of,
        positions=causation.reflects.positions, job=job, events=events[:EVENTS_LIMIT], causation=causation, lineage=lineage, truths=truths,
    )  # fmt: skip


def _of_subject(client: Client, name: str, as_of: str | None) -> Trail:
    # A * in a name stands for anything: what else it finds is sorted out.
    truths = [one for one in client.truths(name, "*", limit=TRUTHS_LIMIT, as_of=as_of) if one.subject == name]
    said = client.sql(
        f"""SELECT predicate, topic || '/' || partition || '/' || "offset" FROM (
          SELECT predicate, topic, partition, "offset", log_time FROM assertions WHERE subject = {_text(name)}
          UNION ALL SELECT NULL, topic, partition, "offset", log_time FROM retractions WHERE subject = {_text(name)})
          ORDER BY log_time, topic, partition, "offset" LIMIT {EVENTS_LIMIT}""",  # noqa: S608 -- quoted
        as_of=as_of,
    )
    if not said.rows:
        raise ControlPlaneError(
            {
                "code": "not_found",
                "message": f"Expected a job or a subject {name[:200]!r}, but the log does not know it.",
            }
        )
    events = [EventView.model_validate(_read(client, f"/v1/events/{place}")["event"]) for _, place in said.rows]
    predicates = sorted({predicate for predicate, _ in said.rows if predicate})
    histories = [
        TruthHistoryAnswer.model_validate(
            _read(client, "/v1/truths/history", subject=name, predicate=predicate, as_of=as_of)
        )
        for predicate in predicates[:HISTORIES_LIMIT]
    ]
    return Trail(
        kind="subject", name=name, made_at=datetime.now(UTC), made_by=f"controlplane {__version__}", as_of=as_of,
        positions=said.reflects.positions, events=events, lineage=_lineage_of(client, name, truths, as_of), truths=truths,
        histories=histories,
    )  # fmt: skip


def _lineage_of(client: Client, name: str, truths: list[TruthView], as_of: str | None) -> LineageAnswer | None:
    """Return the lineage of all truths about a subject as one graph."""
    found: LineageAnswer | None = None
    for one in truths[:HISTORIES_LIMIT]:
        query = {"subject": name, "predicate": one.predicate, "as_of": as_of, "limit": 1000}
        part = LineageAnswer.model_validate(_read(client, "/v1/lineage", **query))
        if found is None:
            found = part
            continue
        known = {node.id for node in found.nodes}
        found = found.model_copy(
            update={
                "roots": [*found.roots, *(root for root in part.roots if root not in found.roots)],
                "nodes": [*found.nodes, *(node for node in part.nodes if node.id not in known)],
                "edges": [*found.edges, *(edge for edge in part.edges if edge not in found.edges)],
                "truncated": found.truncated or part.truncated,
            }
        )
    return found


def _read(client: Client, path: str, **query: Any) -> Mapping[str, Any]:
    answer: Mapping[str, Any] = client.request("GET", path, query=query)
    return answer


def _text(value: str) -> str:
    """Return a text as a literal of SQL."""
    return "'" + value.replace("'", "''") + "'"
