"""Commands about what governs routing: limits, shares, pauses, schedules; and who is there to run jobs."""

from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.markup import escape
from rich.table import Table

from controlplane.cli.asking import AsOf, Gateway, Json, Reason, ask, fail, payload_of, request, tell

PANEL = "Operate"
limit_app = typer.Typer(help="Limit how much of something runs at once, or how often it starts.", no_args_is_help=True)
schedule_app = typer.Typer(help="Submit jobs at the times of a cron expression.", no_args_is_help=True)


def runners(as_of: AsOf = None, gateway: Gateway = None, as_json: Json = False) -> None:
    """List the runners."""
    from controlplane.cli import show

    show.output(ask(gateway, as_json, lambda client: client.runners(as_of=as_of).runners), as_json, show.runners)


def pause(
    subject: Annotated[str, typer.Argument(help="pool:NAME or type:JOB_TYPE")],
    reason: Reason = "",
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Stop routing of a pool or a job type; what runs goes on."""
    tell(
        request(gateway, as_json, "PUT", f"/v1/pauses/{quote(subject)}", {"reason": reason}),
        as_json,
        f"Paused {subject}",
    )


def resume(
    subject: Annotated[str, typer.Argument(help="pool:NAME or type:JOB_TYPE")],
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Go on with routing of a pool or a job type."""
    tell(request(gateway, as_json, "DELETE", f"/v1/pauses/{quote(subject)}"), as_json, f"Resumed {subject}")


def share(
    tenant: Annotated[str, typer.Argument(help="The tenant.")],
    weight: Annotated[
        float, typer.Argument(min=0.000001, help="Relative to the others, which have 1 unless declared.")
    ],
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Give a tenant a larger or smaller part where tenants compete for runners."""
    tell(
        request(gateway, as_json, "PUT", f"/v1/shares/{quote(tenant)}", {"weight": weight}),
        as_json,
        f"Weight {weight:g} for {tenant}",
    )


def controls(gateway: Gateway = None, as_json: Json = False) -> None:
    """Show what governs routing now: limits, shares, pauses, open circuit breakers, admission."""
    from controlplane.cli import show

    show.output(request(gateway, as_json, "GET", "/v1/controls"), as_json, _show_controls)


def _show_controls(found: dict[str, Any]) -> None:
    from controlplane.cli.show import console

    table = Table("What", "Subject", "Says", box=None, header_style="dim")
    for subject, limit in found["limits"].items():
        parts = []
        if limit["max_running"] is not None:
            parts.append(f"{limit['max_running']} at once")
        if limit["starts"] is not None:
            parts.append(f"{limit['starts']} starts in {limit['period_seconds']:g} s")
        table.add_row("limit", escape(subject), ", ".join(parts))
    for tenant, weight in found["shares"].items():
        table.add_row("share", escape(f"tenant:{tenant}"), f"weight {weight:g}")
    for subject, reason in found["pauses"].items():
        table.add_row("[yellow]paused[/]", escape(subject), escape(reason))
    for subject, breaker in found["breakers"].items():
        table.add_row(f"[red]breaker {breaker['state'].lower()}[/]", escape(subject), escape(breaker["reason"]))
    admission = found["admission"]
    table.add_row("admission", "", "open" if admission["open"] else f"[red]closed[/]: {escape(admission['reason'])}")
    console.print(table)


@limit_app.command("set")
def limit_set(
    subject: Annotated[str, typer.Argument(help="key:TENANT/NAME, type:JOB_TYPE or tenant:NAME; a NAME may end in *")],
    max_running: Annotated[int | None, typer.Option(min=0, help="Attempts at once.")] = None,
    starts: Annotated[int | None, typer.Option(min=1, help="Attempts that may start in each period.")] = None,
    period: Annotated[float, typer.Option(min=0.001, help="Seconds of the period.")] = 1.0,
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Limit a key, a job type or a tenant; what is not given is not limited any more."""
    if max_running is None and starts is None:
        text = "Expected --max-running or --starts, but found neither; `limit remove` lets as much run as there is room for."
        fail(text, as_json=as_json, code=2)
    body = {"max_running": max_running, "starts": starts, "period_seconds": period}
    tell(request(gateway, as_json, "PUT", f"/v1/limits/{quote(subject)}", body), as_json, f"Limited {subject}")


@limit_app.command("remove")
def limit_remove(subject: str, gateway: Gateway = None, as_json: Json = False) -> None:
    """Let as much run as there is room for."""
    tell(request(gateway, as_json, "DELETE", f"/v1/limits/{quote(subject)}"), as_json, f"No limit for {subject}")


@schedule_app.command("set")
def schedule_set(
    schedule_id: Annotated[str, typer.Argument(help="Your name for it; the same again changes it.")],
    cron: Annotated[str, typer.Argument(help="Five fields, for example '0 6 * * 1-5'.")],
    job_type: Annotated[str, typer.Argument(help="What is to be done.")],
    payload: Annotated[str, typer.Option(help="JSON, or @file with JSON, or @- for standard input.")] = "null",
    time_zone: Annotated[str, typer.Option(help="IANA name.")] = "UTC",
    overlap: Annotated[bool, typer.Option(help="Submit also while the job before is not concluded.")] = True,
    catch_up: Annotated[
        float, typer.Option(min=0, help="Seconds; a time missed by more, and by more than 5, is left out.")
    ] = 60.0,
    priority: Annotated[int, typer.Option(min=0, max=9)] = 5,
    secret: Annotated[
        str | None,
        typer.Option(help="Encrypt payloads and results with the key of this name; `secrets forget` destroys it."),
    ] = None,
    paused: Annotated[bool, typer.Option(help="Let it rest.")] = False,
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Submit a job at every time of a cron expression from now on."""
    job = {"job_type": job_type, "payload": payload_of(payload, as_json), "priority": priority, "secret": secret}
    body = {
        "cron": cron, "time_zone": time_zone, "job": job, "overlap": overlap, "catch_up_seconds": catch_up, "paused": paused,
    }  # fmt: skip
    answer = request(gateway, as_json, "PUT", f"/v1/schedules/{quote(schedule_id)}", body)
    tell(answer, as_json, f"Schedule {schedule_id} declared")


@schedule_app.command("list")
def schedule_list(gateway: Gateway = None, as_json: Json = False) -> None:
    """List the schedules, when they fired last and when they fire next."""
    from controlplane.cli import show

    def render(found: list[dict[str, Any]]) -> None:
        table = Table("Schedule", "Cron", "Zone", "Type", "Last", "Next", box=None, header_style="dim")
        for one in found:
            coming = "[yellow]paused[/]" if one["paused"] else (one["next_at"] or ["never"])[0]
            cells = (one["schedule_id"], one["cron"], one["time_zone"], one["job_type"], one["last_at"] or "-")
            table.add_row(*map(escape, cells), coming)
        show.console.print(table)

    show.output(request(gateway, as_json, "GET", "/v1/schedules")["schedules"], as_json, render)


@schedule_app.command("remove")
def schedule_remove(schedule_id: str, gateway: Gateway = None, as_json: Json = False) -> None:
    """End a schedule; jobs that it submitted go on."""
    tell(
        request(gateway, as_json, "DELETE", f"/v1/schedules/{quote(schedule_id)}"),
        as_json,
        f"Schedule {schedule_id} removed",
    )


def add_to(app: typer.Typer) -> None:
    """Give the application these commands."""
    for command in (runners, controls, pause, resume, share):
        app.command(rich_help_panel=PANEL)(command)
    app.add_typer(limit_app, name="limit", rich_help_panel=PANEL)
    app.add_typer(schedule_app, name="schedule", rich_help_panel=PANEL)
