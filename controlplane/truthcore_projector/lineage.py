"""Where truth came from and what rests on it: a graph in the terms of W3C PROV, walked level by level.

Each level is a handful of joins, whatever its width. Every node is visited once, so that cycles end; depth and number are bounded, and the answer
says when the bound was met.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from controlplane.api.lineage import Direction, LineageEdge, LineageNode
from controlplane.truthcore_projector.lineage_links import NODES_LIMIT, Link, Looker, Node, Row
from controlplane.truthcore_projector.truths import plain

DEPTH_LIMIT: Final = 64


class Graph(msgspec.Struct, kw_only=True):
    """A part of the lineage graph; nodes in the order of their distance."""

    roots: list[Node]
    depths: dict[Node, int]
    details: dict[Node, Row]
    links: dict[tuple[Node, str, Node], Link]
    truncated: bool = False


def walk(
    looker: Looker, roots: Sequence[Node], direction: Direction, depth: int = DEPTH_LIMIT, nodes: int = NODES_LIMIT
) -> Graph:
    """Return the graph above, below, or above and below some nodes."""
    graph = Graph(roots=list(roots), depths=dict.fromkeys(roots, 0), details={}, links={})
    for up in {"up": (True,), "down": (False,), "both": (True, False)}[direction]:
        level, seen = list(roots), set(roots)
        for step in range(1, depth + 1):
            level = _step(looker, graph, level, seen, up, step, nodes)
            if not level:
                break
        graph.truncated |= bool(level)
    _describe(looker, graph)
    return graph


def with_inputs(looker: Looker, graph: Graph) -> Graph:
    """Return the graph with what its attempts used, also where nobody asked upwards: a run is told with its inputs."""
    attempts = [name for kind, name in graph.depths if kind == "attempt"]
    for link in looker.look("attempt", up=True, names=attempts).links:
        if link.relation == "used":
            graph.links.setdefault((link.subject, link.relation, link.object), link)
            graph.depths.setdefault(link.object, graph.depths[link.subject] + 1)
    _describe(looker, graph)
    return graph


def _step(
    looker: Looker, graph: Graph, level: Sequence[Node], seen: set[Node], up: bool, step: int, nodes: int
) -> list[Node]:
    """Follow the links of one level; returns the nodes of the next that were not seen yet."""
    following: list[Node] = []
    for kind, names in _by_kind(level).items():
        found = looker.look(kind, up, names)
        graph.details |= found.details
        for link in found.links:
            far = link.object if up else link.subject
            if far not in graph.depths and len(graph.depths) >= nodes:
                graph.truncated = True
                continue
            graph.links.setdefault((link.subject, link.relation, link.object), link)
            graph.depths.setdefault(far, step)
            if far not in seen:
                seen.add(far)
                following.append(far)
    return following


def _describe(looker: Looker, graph: Graph) -> None:
    """Look up what the nodes are that were only reached, and the agents and other ends of their links that are in the graph."""
    for kind, names in _by_kind([one for one in graph.depths if one not in graph.details]).items():
        found = looker.look(kind, True, names)
        graph.details |= found.details
        for link in found.links:
            if link.object in graph.depths:
                graph.links.setdefault((link.subject, link.relation, link.object), link)


def _by_kind(level: Iterable[Node]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for kind, name in level:
        found.setdefault(kind, []).append(name)
    return found


def page(graph: Graph, limit: int, skip: int) -> tuple[list[LineageNode], list[LineageEdge], int | None]:
    """Return a page of a graph's nodes by distance, the edges that they close, and how many nodes come before the next page."""
    order = sorted(graph.depths, key=lambda node: (graph.depths[node], node))
    place = {node: number for number, node in enumerate(order)}
    edges = [
        LineageEdge(subject=text(link.subject), relation=link.relation, object=text(link.object))
        for link in graph.links.values()
        if skip <= max(place[link.subject], place[link.object]) < skip + limit
    ]
    nodes = [node_view(node, graph) for node in order[skip : skip + limit]]
    return (
        nodes,
        sorted(edges, key=lambda edge: (edge.subject, edge.relation, edge.object)),
        skip + limit if skip + limit < len(order) else None,
    )


def text(node: Node) -> str:
    """Return a node's id."""
    return f"{node[0]}:{node[1]}"


_SHOWN: Final = {
    "assertion": ("subject", "predicate", "unit", "confidence", "source", "job_id", "valid_from", "valid_to"),
    "attempt": ("job_id", "attempt_number", "runner_id", "started_at", "ended_at", "outcome", "error"),
    "job": ("job_type", "pool", "tenant", "correlation_id", "parent_job_id"),
    "event": ("event_type", "event_id", "producer", "actor"),
}  # fmt: skip


def node_view(node: Node, graph: Graph) -> LineageNode:
    """Return a node as a model; what the log does not know of has no detail."""
    row = graph.details.get(node, {})
    detail = {name: row[name] for name in _SHOWN.get(node[0], ()) if row.get(name) is not None}
    if node[0] == "assertion" and row:
        detail["value"] = plain((row["kind"], row["text"], row["unit"]))
    place = row.get("place") or (f"{row['topic']}/{row['partition']}/{row['offset']}" if "topic" in row else None)
    return LineageNode(
        id=text(node), kind=node[0], name=node[1], position=place, log_time=row.get("log_time"), depth=graph.depths[node],
        detail=detail,
    )  # fmt: skip
