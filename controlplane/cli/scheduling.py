"""Commands that show how scheduling goes: what a job logged, and what limits hold back."""

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from controlplane.cli import controls, jobs
from controlplane.cli.asking import Gateway, Json, ask

LEVEL_COLOURS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red", "DEBUG": "dim"}


def logs(
    job_id: Annotated[str, typer.Argument(help="The job.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come, until the job is over.")] = False,
    gateway: Gateway = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document per line.")] = False,
) -> None:
    """Show what the handlers of a job logged, of all its attempts."""
    from controlplane.cli import show

    def work(client: Any) -> None:
        for line in client.logs(job_id, follow=follow):
            if as_json:
                print(line.model_dump_json(), flush=True)
                continue
            colour = LEVEL_COLOURS.get(line.level, "white")
            at = line.at.astimezone().strftime("%H:%M:%S.%f")[:-3]
            show.console.print(f"[dim]{at}[/] [{colour}]{line.level:<8}[/] {escape(line.message)}", soft_wrap=True)

    ask(gateway, as_json, work)


def limits(
    subject: Annotated[str | None, typer.Argument(help="Only this one, for example key:default/customer-7.")] = None,
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Show the limits in force, and how many jobs run, wait and retry under each."""
    from controlplane.cli import show

    def render(found: list[Any]) -> None:
        table = Table(
            "Limit", "Allows", "Running", "Queued", "Retrying", "Delayed", "From", box=None, header_style="dim"
        )
        for one in found:
            counts = (one.running, one.queued, one.retrying, one.delayed)
            full = one.max_running is not None and one.running >= one.max_running
            name = f"[yellow]{escape(one.subject)}[/]" if full and one.queued else escape(one.subject)
            table.add_row(name, allowed(one), *map(str, counts), escape(one.declared or "the key itself"))
        show.console.print(table if found else "Nothing is limited.")

    found = ask(gateway, as_json, lambda client: client.limits(subject).limits)
    show.output(found, as_json, render)


def allowed(one: Any) -> str:
    """Return what a limit allows, in words."""
    parts = [] if one.max_running is None else [f"{one.max_running} at once"]
    if one.starts is not None:
        parts.append(f"{one.starts} starts in {one.period_seconds:g} s")
    return ", ".join(parts)


def add_to(app: typer.Typer) -> None:
    """Give the application these commands."""
    app.command(rich_help_panel=jobs.PANEL)(logs)
    app.command(rich_help_panel=controls.PANEL)(limits)
