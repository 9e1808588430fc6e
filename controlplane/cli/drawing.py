"""Graphs and timelines as inline SVG: where everything stands is worked out here, a template draws it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

BOX_WIDTH: Final = 210
BOX_HEIGHT: Final = 40
GAP_ACROSS: Final = 64
GAP_DOWN: Final = 14
MARGIN: Final = 12
LAYER_LIMIT: Final = 40
"""More boxes above each other nobody reads; what is left out is counted."""
ROW_HEIGHT: Final = 20
ROWS_LIMIT: Final = 200
AXIS_WIDTH: Final = 420
LETTERS: Final = 32


class Box(NamedTuple):
    """A node, placed: two lines of text and the words for a closer look."""

    x: float
    y: float
    kind: str
    title: str
    below: str
    whole: str


class Line(NamedTuple):
    """An edge, placed, from the right side of a box to the left side of another."""

    path: str
    label: str


class Drawing(NamedTuple):
    """A graph, placed."""

    width: float
    height: float
    boxes: list[Box]
    lines: list[Line]
    left_out: int


class Node(NamedTuple):
    """A node to be placed."""

    name: str
    kind: str
    title: str
    below: str
    whole: str


def short(text: str, letters: int = LETTERS) -> str:
    """Return a text that fits: its end matters as much as its beginning."""
    return text if len(text) <= letters else f"{text[: letters // 2]}…{text[-(letters // 2 - 1) :]}"


def layers(roots: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Return how many steps each node is to the right of the roots; an edge leads from the left to the right."""
    after: dict[str, list[str]] = {}
    before: dict[str, list[str]] = {}
    for left, right in edges:
        after.setdefault(left, []).append(right)
        before.setdefault(right, []).append(left)
    found = dict.fromkeys(roots, 0)
    waiting = list(roots)
    for name in waiting:  # Grows while it is walked: breadth first.
        for there, step in ((after, 1), (before, -1)):
            for other in there.get(name, ()):
                if other not in found:
                    found[other] = found[name] + step
                    waiting.append(other)
    return found


def graph(nodes: Mapping[str, Node], roots: Sequence[str], edges: Sequence[tuple[str, str, str]]) -> Drawing:
    """Place a graph in layers from left to right; edges are (left, right, label), and each node stands near those it is joined to."""
    layer = layers([root for root in roots if root in nodes], [(left, right) for left, right, _ in edges])
    columns: dict[int, list[str]] = {}
    for name in nodes:
        if name in layer:
            columns.setdefault(layer[name], []).append(name)
    near: dict[str, list[str]] = {}
    for left, right, _ in edges:
        near.setdefault(left, []).append(right)
        near.setdefault(right, []).append(left)
    row: dict[str, float] = {}
    for number in sorted(columns, key=lambda one: (abs(one), one)):  # From the roots outwards.
        columns[number].sort(key=lambda name: _middle([row[other] for other in near.get(name, ()) if other in row]))
        row |= {name: float(place) for place, name in enumerate(columns[number])}
    tallest = max((min(len(column), LAYER_LIMIT) for column in columns.values()), default=0)
    first = min(columns, default=0)
    placed: dict[str, Box] = {}
    for number, column in columns.items():
        shown = column[:LAYER_LIMIT]
        top = MARGIN + (tallest - len(shown)) * (BOX_HEIGHT + GAP_DOWN) / 2
        for place, name in enumerate(shown):
            node = nodes[name]
            x, y = MARGIN + (number - first) * (BOX_WIDTH + GAP_ACROSS), top + place * (BOX_HEIGHT + GAP_DOWN)
            placed[name] = Box(x, y, node.kind, short(node.title), short(node.below), node.whole)
    lines = [
        Line(_curve(placed[left], placed[right]), label)
        for left, right, label in edges
        if left in placed and right in placed
    ]
    width = 2 * MARGIN + len(columns) * (BOX_WIDTH + GAP_ACROSS) - GAP_ACROSS if columns else 0
    height = 2 * MARGIN + tallest * (BOX_HEIGHT + GAP_DOWN) - GAP_DOWN if columns else 0
    return Drawing(width, height, list(placed.values()), lines, len(nodes) - len(placed))


def _middle(some: Sequence[float]) -> float:
    return sum(some) / len(some) if some else 0.0


def _curve(left: Box, right: Box) -> str:
    x1, y1, x2, y2 = left.x + BOX_WIDTH, left.y + BOX_HEIGHT / 2, right.x, right.y + BOX_HEIGHT / 2
    bend = max(GAP_ACROSS / 2, abs(x2 - x1) / 2)
    return f"M{x1:.1f},{y1:.1f} C{x1 + bend:.1f},{y1:.1f} {x2 - bend:.1f},{y2:.1f} {x2:.1f},{y2:.1f}"


class Step(NamedTuple):
    """One moment of a timeline, placed."""

    x: float
    y: float
    label: str
    kind: str
    since: str


class Timeline(NamedTuple):
    """A timeline, placed: a row for each moment, and marks along the axis."""

    height: float
    steps: list[Step]
    marks: list[tuple[float, str]]
    left_out: int


def timeline(moments: Sequence[tuple[datetime, str, str]]) -> Timeline:
    """Place moments, each (when, label, kind), along one axis from the first to the last."""
    shown = sorted(moments, key=lambda one: one[0])[:ROWS_LIMIT]
    if not shown:
        return Timeline(0, [], [], 0)
    first, span = shown[0][0], max((shown[-1][0] - shown[0][0]).total_seconds(), 1e-9)
    steps = [
        Step(
            MARGIN + (when - first).total_seconds() / span * AXIS_WIDTH, MARGIN + ROW_HEIGHT * (place + 2), label, kind,
            f"+{duration((when - first).total_seconds())}",
        )
        for place, (when, label, kind) in enumerate(shown)
    ]  # fmt: skip
    marks = [(MARGIN + AXIS_WIDTH * part / 4, f"+{duration(span * part / 4)}") for part in range(5)]
    return Timeline(MARGIN * 2 + ROW_HEIGHT * (len(shown) + 2), steps, marks, len(moments) - len(shown))


def duration(seconds: float) -> str:
    """Return a duration in the unit in which it reads well."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1000:.0f} ms"
