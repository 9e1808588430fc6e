"""The report of a trail as one HTML file: everything inline, nothing fetched, every text escaped."""

from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic_core import to_json

from controlplane.api.lineage import LineageAnswer, LineageNode
from controlplane.api.models import CausationAnswer, CausationNode, EventView
from controlplane.cli.drawing import BOX_HEIGHT, BOX_WIDTH, Drawing, Node, duration, graph, timeline
from controlplane.cli.trail import Trail

TEMPLATES: Final = Path(__file__).parent / "templates"
VALUE_LETTERS: Final = 2_000


def page(trail: Trail) -> str:
    """Return the report."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "json": _json,
        "duration": duration,
        "moment": lambda one: f"{one:%Y-%m-%d %H:%M:%S.%f}"[:-3] if one else "-",
    }
    steps = [(one.log_time, f"{one.event_type}  {one.position}", _kind(one.event_type)) for one in trail.events]
    return environment.get_template("trail.html").render(
        trail=trail, timeline=timeline(steps), causation=None if trail.causation is None else _causes(trail.causation),
        lineage=None if trail.lineage is None else _lineage(trail.lineage), box_width=BOX_WIDTH, box_height=BOX_HEIGHT,
    )  # fmt: skip


def _json(value: Any) -> str:
    text = to_json(value).decode()
    return text if len(text) <= VALUE_LETTERS else f"{text[:VALUE_LETTERS]}… ({len(text):,} letters)"


def _kind(event_type: str) -> str:
    """Return which colour a record has: what it says about."""
    for beginning in ("Truth", "Attempt", "Job", "Runner"):
        if event_type.startswith(beginning):
            return beginning.lower()
    return "other"


def _event_node(event: EventView) -> Node:
    return Node(
        event.position,
        _kind(event.event_type),
        event.event_type,
        event.position,
        f"{event.event_type} at {event.position}, {event.log_time}",
    )


def _causes(answer: CausationAnswer) -> Drawing:
    """Place the chain of causes to the left of the record, and the tree of effects to its right."""
    nodes = {one.position: _event_node(one) for one in answer.chain}
    edges = [
        (one.position, other.position, "caused") for one, other in zip(answer.chain, answer.chain[1:], strict=False)
    ]
    waiting: list[CausationNode] = [answer.tree]
    for one in waiting:  # Grows while it is walked: a deep chain is no deep recursion.
        nodes.setdefault(one.event.position, _event_node(one.event))
        for effect in one.effects:
            edges.append((one.event.position, effect.event.position, "caused"))
            waiting.append(effect)
    return graph(nodes, [answer.tree.event.position], edges)


def _lineage_node(node: LineageNode) -> Node:
    detail = node.detail
    match node.kind:
        case "assertion" if detail:
            title, below = f"{detail['predicate']} = {_json(detail.get('value'))}", str(detail["subject"])
        case "job" if detail:
            title, below = node.name, str(detail.get("job_type", "job"))
        case "attempt" if detail:
            title, below = f"attempt {detail.get('attempt_number')}", str(detail.get("outcome") or "not ended").lower()
        case "event":
            title, below = str(detail.get("event_type", "record")), node.name
        case _:
            title, below = node.name, node.kind
    return Node(
        node.id,
        node.kind,
        title,
        below,
        f"{node.id}\n" + "\n".join(f"{name}: {value}" for name, value in detail.items()),
    )


def _lineage(answer: LineageAnswer) -> Drawing:
    """Place what something came from to its left, and what rests on it to its right."""
    nodes = {one.id: _lineage_node(one) for one in answer.nodes}
    return graph(nodes, answer.roots, [(one.object, one.subject, one.relation) for one in answer.edges])
