"""What people see of lineage: trees that say each node once, and what a source's word decides."""

from pydantic_core import to_json
from rich.markup import escape
from rich.tree import Tree

from controlplane.api.lineage import ImpactAnswer, LineageAnswer, LineageNode
from controlplane.cli.show import console

COLOURS = {
    "assertion": "green",
    "attempt": "cyan",
    "job": "cyan",
    "event": "white",
    "runner": "yellow",
    "source": "yellow",
}
CHANGE_COLOURS = {"vanishes": "red", "changes": "yellow"}


def lineage(answer: LineageAnswer) -> None:
    """Show above each root what it came from, and below it what rests on it; a node that was shown is only named again."""
    nodes = {one.id: one for one in answer.nodes}
    for root in answer.roots:
        for title, up in (("came from", True), ("is what these rest on", False)):
            links: dict[str, list[tuple[str, str]]] = {}
            for edge in answer.edges:
                near, far = (edge.subject, edge.object) if up else (edge.object, edge.subject)
                links.setdefault(near, []).append((edge.relation, far))
            if root in links:
                tree = Tree(f"{_node(root, nodes)} [dim]{title}[/]")
                _grow(tree, root, links, nodes, {root})
                console.print(tree)
        if root not in {one for edge in answer.edges for one in (edge.subject, edge.object)}:
            console.print(f"{_node(root, nodes)} [dim]came from nothing, and nothing rests on it[/]")
    if answer.truncated or answer.next_cursor:
        console.print("[yellow]The graph goes on; choose a smaller --depth, or a --direction.[/]")


def _grow(
    branch: Tree, name: str, links: dict[str, list[tuple[str, str]]], nodes: dict[str, LineageNode], seen: set[str]
) -> None:
    for relation, far in links.get(name, ()):
        again = far in seen
        twig = branch.add(
            f"[dim]{relation}[/] {_node(far, nodes)}{' [dim](above)[/]' if again and far in links else ''}"
        )
        if not again:
            seen.add(far)
            _grow(twig, far, links, nodes, seen)


def _node(name: str, nodes: dict[str, LineageNode]) -> str:
    one = nodes.get(name)
    kind = name.partition(":")[0]
    words = escape(name)
    if one is not None and kind == "assertion" and one.detail:
        value = to_json(one.detail.get("value")).decode()
        words = f"{escape(str(one.detail['subject']))} {escape(str(one.detail['predicate']))} = {escape(value)} [dim]{escape(name)}[/]"
    elif one is not None and "event_type" in one.detail:
        words = f"{one.detail['event_type']} [dim]{escape(name)}[/]"
    return f"[{COLOURS.get(kind, 'white')}]{words}[/]"


def impact(answer: ImpactAnswer) -> None:
    """Show how far a source's word goes, and each truth that stands on it."""
    console.print(
        f"[bold]{escape(answer.source)}[/] said {answer.assertions:,} assertions; {answer.derived:,} rest on them"
        + (f", by {len(answer.jobs):,} jobs: {escape(', '.join(answer.jobs[:10]))}" if answer.jobs else "")
        + "."
    )
    for one in answer.truths:
        without = (
            "nothing"
            if one.without is None
            else f"{to_json(one.without.value).decode()} ({one.without.confidence:.1%})"
        )
        console.print(
            f"[{CHANGE_COLOURS.get(one.change, 'cyan')}]{one.change:>9}[/]  [bold]{escape(one.subject)}[/] {escape(one.predicate)}  "
            f"{escape(to_json(one.now.value).decode())} ({one.now.confidence:.1%}) -> {escape(without)}"
        )
    if answer.next_cursor or answer.truncated:
        console.print("[dim]There is more.[/]")
