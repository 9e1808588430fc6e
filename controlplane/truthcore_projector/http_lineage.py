"""Lineage over HTTP: the graph above and below a truth, a job or a record, its exports, and the impact of a source."""

import json
from typing import Annotated, Any, Final, Literal

from fastapi import FastAPI, Query
from fastapi.responses import Response

from controlplane.api import lineage as answers
from controlplane.api.problems import Refused, refused
from controlplane.truthcore_projector import queries
from controlplane.truthcore_projector.asking import (
    Asked,
    AsOfText,
    Limit,
    MinPosition,
    ValidAt,
    WaitSeconds,
    as_of_from,
    cursor_from,
    missing,
)
from controlplane.truthcore_projector.cursors import Cursor
from controlplane.truthcore_projector.impact import Reach, impacts, reach
from controlplane.truthcore_projector.lineage import DEPTH_LIMIT, Graph, page, text, walk, with_inputs
from controlplane.truthcore_projector.lineage_links import NODES_LIMIT, Looker, Node
from controlplane.truthcore_projector.moments import AsOf, bounds, moment
from controlplane.truthcore_projector.provenance import openlineage_events, prov_document
from controlplane.truthcore_projector.truths import fused, page_end, truth_cursor

Format = Literal["json", "prov", "openlineage"]
_MEDIA_TYPES: Final = {"prov": "application/provenance+json", "openlineage": "application/openlineage+json"}
_FORMS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {
            _MEDIA_TYPES["prov"]: {"schema": {"type": "object", "description": "PROV-JSON."}},
            _MEDIA_TYPES["openlineage"]: {
                "schema": {"type": "array", "items": {"type": "object"}, "description": "OpenLineage run events."}
            },
        }
    }
}


def add_lineage(app: FastAPI, asked: Asked) -> None:
    """Give TruthCore its questions about provenance."""

    @app.get("/v1/lineage", response_model=answers.LineageAnswer, responses=_FORMS)
    async def lineage(
        assertion: str | None = None, job: str | None = None, event: str | None = None, source: str | None = None,
        subject: str | None = None, predicate: str | None = None, direction: answers.Direction = "both",
        depth: Annotated[int, Query(ge=1, le=DEPTH_LIMIT)] = DEPTH_LIMIT,
        max_nodes: Annotated[int, Query(ge=1, le=NODES_LIMIT)] = NODES_LIMIT, as_of: AsOfText = None, limit: Limit = 500,
        cursor: Annotated[int, Query(ge=0, lt=NODES_LIMIT)] = 0, format: Format = "json",  # noqa: A002 -- its name in the URL
        min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0,
    ) -> answers.LineageAnswer | Response:  # fmt: skip
        """Walk the graph; roots are one assertion, job, record or source, or the votes of one truth."""
        named = {"assertion": assertion, "job": job, "event": event, "source": source, "subject": subject}
        given = [name for name, value in named.items() if value is not None]
        if len(given) != 1 or (predicate is not None) != (subject is not None):
            what = "Expected exactly one of assertion, job, event and source, or subject with predicate."
            raise refused("request_invalid", what, field="assertion")
        known = as_of_from(as_of)

        def work(c: Cursor) -> Graph:
            looker = Looker(c, bounds(c, known))
            roots = (
                _votes(c, str(subject), str(predicate), known)
                if subject is not None
                else [_root(c, looker, given[0], str(named[given[0]]))]
            )
            found = walk(looker, roots, direction, depth, max_nodes)
            return found if format == "json" else with_inputs(looker, found)

        graph, reflects = await asked(min_position, wait_seconds, work)
        if format != "json":
            return _exported(graph, format, json.dumps(reflects.positions))
        nodes, edges, following = page(graph, limit, cursor)
        return answers.LineageAnswer(
            roots=[text(one) for one in graph.roots], nodes=nodes, edges=edges, truncated=graph.truncated,
            next_cursor=None if following is None else str(following), reflects=reflects,
        )  # fmt: skip

    @app.get("/v1/impact")
    async def impact(
        source: Annotated[str, Query(min_length=1, max_length=1000)], as_of: AsOfText = None, valid_at: ValidAt = None,
        limit: Limit = 100, cursor: str | None = None, min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0,
    ) -> answers.ImpactAnswer:  # fmt: skip
        known, after = as_of_from(as_of), cursor_from(truth_cursor, cursor)

        def work(c: Cursor) -> tuple[Reach, list[answers.TruthImpact], tuple[str, str] | None]:
            at = moment(c, known, valid_at)
            reached = reach(c, source, at.known)
            return reached, *impacts(c, source, reached, at, limit, after)

        (reached, found, following), reflects = await asked(min_position, wait_seconds, work)
        if not reached.assertions:
            raise missing("a source", source)
        return answers.ImpactAnswer(
            source=source, assertions=reached.assertions, derived=len(reached.derived), jobs=reached.jobs, truths=found,
            truncated=reached.truncated, next_cursor=following and page_end(following), reflects=reflects,
        )  # fmt: skip


def _root(cursor: Cursor, looker: Looker, kind: str, name: str) -> Node:
    """Return the node that a question names.

    Raises:
        Refused: the log does not know it.
    """
    root: Node = (kind, name)
    if kind == "event":
        found = queries.find_event(cursor, name)
        if found is None:
            raise missing("a record", name)
        root = looker.record(found.position)
        name = found.position if root[0] == "event" else root[1]
    known = (
        looker.look(root[0], up=True, names=[root[1]]).details or looker.look(root[0], up=False, names=[root[1]]).links
    )
    if not known:
        raise missing({"job": "a job", "source": "a source"}.get(kind, f"an {kind}"), name)
    return root


def _votes(cursor: Cursor, subject: str, predicate: str, known: AsOf | None) -> list[Node]:
    views = fused(cursor, [(subject, predicate)], moment(cursor, known, None))
    if not views:
        raise missing("a truth", f"{subject} {predicate}")
    return [("assertion", vote.assertion_id) for candidate in views[0].candidates for vote in candidate.votes]


def _exported(graph: Graph, wanted: str, reflects: str) -> Response:
    try:
        content: Any = prov_document(graph, reflects) if wanted == "prov" else openlineage_events(graph)
    except ImportError as error:
        raise _without_library(error) from error
    return Response(content, media_type=_MEDIA_TYPES[wanted])


def _without_library(error: ImportError) -> Refused:
    return refused("request_invalid", f"Expected the extra 'provenance' to be installed, but: {error}.", field="format")
