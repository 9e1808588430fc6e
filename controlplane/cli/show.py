"""What people see: tables, trees and timelines; or one JSON document for programs."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
from pydantic_core import to_json
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from controlplane.api.models import CausationAnswer, CausationNode, EventView, JobView, RunnerView, TruthView

console = Console(highlight=False)
COLOURS = {
    "COMPLETED": "green",
    "FAILED": "red",
    "REJECTED": "red",
    "CANCELLED": "yellow",
    "RUNNING": "cyan",
    "ROUTED": "cyan",
}


def output(value: Any, as_json: bool, render: Callable[[Any], None]) -> None:
    """Print a value as JSON, or as `render` shows it."""
    if as_json:
        plain = msgspec.to_builtins(value) if isinstance(value, msgspec.Struct) else value
        print(to_json(plain, fallback=msgspec.to_builtins).decode())
    else:
        render(value)


def _time(moment: datetime | None) -> str:
    return moment.astimezone().strftime("%H:%M:%S.%f")[:-3] if moment else "-"


def _phase(phase: str) -> str:
    return f"[{COLOURS.get(phase, 'white')}]{phase.lower()}[/]"


def _took(start: datetime | None, end: datetime | None) -> str:
    return f"{(end - start).total_seconds() * 1000:,.0f} ms" if start and end else "-"


def submitted(answer: dict[str, Any]) -> None:
    """Show an acknowledgement."""
    console.print(f"Submitted [bold]{escape(answer['job_id'])}[/], on the log at {answer['position']}.")


def jobs(found: list[JobView]) -> None:
    """Show a list of jobs."""
    table = Table("Job", "Type", "Phase", "Priority", "Attempts", "Submitted", "Took", box=None, header_style="dim")
    for one in found:
        table.add_row(
            escape(one.job_id), escape(one.job_type), _phase(one.phase), str(one.priority), str(len(one.attempts)),
            _time(one.submitted_at), _took(one.submitted_at, one.concluded_at),
        )  # fmt: skip
    console.print(table if found else "No jobs.")


def job(one: JobView) -> None:
    """Show one job with its timeline."""
    console.print(f"[bold]{escape(one.job_id)}[/]  {escape(one.job_type)}  {_phase(one.phase)}")
    if one.encrypted_with:
        console.print(f"encrypted with {escape(one.encrypted_with)}")
    if one.waiting_for:
        console.print(f"[yellow]{escape(one.waiting_for)}[/]")
    steps: list[tuple[datetime | None, str]] = [(one.submitted_at, "submitted")]
    for attempt in one.attempts:
        name = f"attempt {attempt.attempt_number}"
        steps.append(
            (attempt.routed_at, f"{name} routed to {attempt.runner_id} ({attempt.routing_reason or 'no reason kept'})")
        )
        steps.append((attempt.started_at, f"{name} started"))
        ended = f"{name} {attempt.phase.lower()}" + (f": {attempt.error['message']}" if attempt.error else "")
        steps.append((attempt.ended_at, ended))
    steps.append((one.concluded_at, one.phase.lower()))
    for moment, words in sorted((step for step in steps if step[0]), key=lambda step: str(step[0])):
        console.print(f"  {_time(moment)}  {escape(words)}")
    if one.retried_as:
        console.print(f"retried as {escape(one.retried_as)}")
    if one.error:
        console.print(f"[red]{escape(str(one.error.get('code')))}[/] {escape(str(one.error.get('message')))}")
    if one.result is not None:
        console.print(f"result: {escape(to_json(one.result).decode())}")
    if one.result_reference is not None:
        kept = one.result_reference
        console.print(f"result: {kept.size_bytes:,} bytes, GET /v1/contents/{kept.sha256}")


def truths(found: list[TruthView]) -> None:
    """Show truths with what speaks for and against each."""
    if not found:
        console.print("Nothing is known.")
    for one in found:
        mark = "  [red]conflict[/]" if one.conflict else ""
        value = f"{len(one.candidates)} values" if isinstance(one.value, list) else to_json(one.value).decode()
        console.print(
            f"[bold]{escape(one.subject)}[/] {escape(one.predicate)} = [green]{escape(value)}[/]"
            f"  {one.confidence:.1%} by {one.rule.lower()}{mark}"
        )
        for candidate in one.candidates:
            sources = ", ".join(f"{vote.source} ({vote.confidence:.0%})" for vote in candidate.votes)
            console.print(
                f"    {escape(to_json(candidate.value).decode())}  {candidate.probability:.1%}  says {escape(sources)}"
            )


def _event(event: EventView) -> str:
    head = f"[bold]{event.event_type}[/]  {_time(event.log_time)}  [dim]{escape(event.position)}[/]"
    return "\n".join([head, *(f"  {escape(line)}" for line in _says(event.event))])


def _says(event: dict[str, Any]) -> list[str]:
    """Return what an event says of its reasons: why this runner, which others were not chosen, what went wrong."""
    lines = [str(event["reason"])] if event.get("reason") else []
    lines += [f"not {one['runner_id']}: {one['reason']}" for one in event.get("refused") or ()]
    if isinstance(event.get("error"), dict):
        lines.append(f"{event['error'].get('code')}: {event['error'].get('message')}")
    return lines


def causation(answer: CausationAnswer) -> None:
    """Show the chain of causes and the tree of effects."""
    if len(answer.chain) > 1:
        console.print("[dim]because of[/]")
        for depth, event in enumerate(answer.chain[:-1]):
            console.print("  " * depth + _event(event))
    tree = Tree(_event(answer.tree.event))

    def grow(branch: Tree, node: CausationNode) -> None:
        for effect in node.effects:
            grow(branch.add(_event(effect.event)), effect)

    grow(tree, answer.tree)
    console.print(tree)


def runners(found: list[RunnerView]) -> None:
    """Show a list of runners."""
    table = Table("Runner", "State", "Slots", "Capabilities", "Last heartbeat", box=None, header_style="dim")
    for one in found:
        table.add_row(
            escape(one.runner_id), one.state.lower(), f"{one.in_flight}/{one.slots}", escape(", ".join(one.capabilities)),
            _time(one.last_heartbeat_at),
        )  # fmt: skip
    console.print(table if found else "No runners.")
