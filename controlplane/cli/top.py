"""`controlplane top`: what goes on, in the terminal, again and again."""

import time
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final

import typer
from rich.console import Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from controlplane.cli.asking import Gateway, Json, address_of, ask, client_of, examples

PANEL: Final = "Operate"
BUCKETS: Final = 60
"""The most; a narrow terminal gets fewer."""
BESIDE_COLUMNS: Final = 54
"""What stands beside the line of a rate."""
TYPES_SHOWN: Final = 12
NARROW_COLUMNS: Final = 64
"""Below so many, headings are short, and runners without bars and capabilities: figures stay whole."""
TYPE_LETTERS: Final = 8
"""The least that is shown of a type's name."""
BLOCKS: Final = " ▁▂▃▄▅▆▇█"
WAITING: Final = ("SUBMITTED", "QUEUED", "DELAYED", "RETRYING")
RUNNING: Final = ("ROUTED", "RUNNING")


def spark(values: Sequence[float | None]) -> str:
    """Return a line of blocks as high as the values; a gap where there is none."""
    most = max((value for value in values if value is not None), default=0)
    if not most:
        return " " * len(values)
    return "".join(" " if not value else BLOCKS[max(1, round(value / most * (len(BLOCKS) - 1)))] for value in values)


def bar(share: float, width: int = 16) -> str:
    """Return a bar of blocks, filled by this share."""
    filled = round(max(0.0, min(1.0, share)) * width)
    return "█" * filled + "░" * (width - filled)


def seconds(value: float | None) -> str:
    """Return a time as people read it."""
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def widest(cells: Iterable[str]) -> int:
    """Return how many columns these take below each other."""
    return max(map(len, cells), default=0)


def look(client: Any, window: int, columns: int) -> dict[str, Any]:
    """Return everything that a frame of so many columns shows."""
    buckets = max(10, min(BUCKETS, columns - BESIDE_COLUMNS))
    return {
        "activity": client.request("GET", "/v1/activity", query={"seconds": window, "buckets": buckets}),
        "runners": [one for one in client.request("GET", "/v1/runners")["runners"] if one["state"] != "LEFT"],
        "controls": client.request("GET", "/v1/controls"),
    }


def frame(found: dict[str, Any], address: str, columns: int = 80) -> Group:
    """Return one picture of what was found, for a terminal of so many columns."""
    activity, controls = found["activity"], found["controls"]
    reflects = activity["reflects"]
    lag = f"{reflects['lag_records']:,} records, {reflects['lag_seconds']:.1f} s behind the log" if reflects["lag_records"] else "up to date with the log"  # fmt: skip
    head = Text.from_markup(f"[bold]ControlPlane[/] {escape(address)}   {time.strftime('%H:%M:%S')}\n[dim]{lag}; the last {activity['seconds']} s[/]")  # fmt: skip
    parts: list[Any] = [head, _rates(activity, columns), _types(activity, columns), _runners(found["runners"], columns)]
    if trouble := _trouble(controls):
        parts.append(Panel(trouble, title="needs somebody", border_style="red", title_align="left"))
    return Group(*parts)


def _rates(activity: dict[str, Any], columns: int) -> Table:
    buckets, per_second = activity["buckets"], 1 / activity["bucket_seconds"]
    counted = {name: sum(bucket[name] for bucket in buckets) for name in ("submitted", "completed", "failed")}
    waiting = sum(activity["open"].get(phase, 0) for phase in WAITING)
    running = sum(activity["open"].get(phase, 0) for phase in RUNNING)
    lines: list[tuple[str, str, str, str, str]] = [
        ("waiting", f"{waiting:,}", "waiting", "yellow", ""),
        ("running", f"{running:,}", "busy", "cyan", ""),
    ]
    for name, colour in (("submitted", "white"), ("completed", "green"), ("failed", "red")):
        newest = buckets[-1][name] * per_second
        lines.append((name, f"{newest:,.1f}/s", name, colour, f"{counted[name]:,} in the window"))
    lines.append(("took", seconds(activity["median_seconds"]), "median_seconds", "blue", f"median; p95 {seconds(activity['p95_seconds'])}, p99 {seconds(activity['p99_seconds'])}"))  # fmt: skip
    room = columns - sum(2 + widest(line[number] for line in lines) for number in (0, 1))
    beside = 2 + widest(line[4] for line in lines)
    noted = room >= beside
    cells = max(0, room - (beside if noted else 2) - 2)
    table = Table(box=None, show_header=False, padding=(0, 1))
    for _ in range(4):
        table.add_column(no_wrap=True)
    for name, value, field, colour, note in lines:
        course = spark([bucket[field] for bucket in buckets[len(buckets) - min(cells, len(buckets)) :]])
        table.add_row(name, f"[bold]{value}[/]", f"[{colour}]{course}[/]", f"[dim]{note if noted else ''}[/]")
    return table


def _types(activity: dict[str, Any], columns: int) -> Table:
    found = activity["types"][:TYPES_SHOWN]
    short = columns < NARROW_COLUMNS
    headings = {"waiting": "Wait" if short else "Waiting", "running": "Run" if short else "Running", "completed": "Done" if short else "Completed", "failed": "Fail" if short else "Failed"}  # fmt: skip
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 1))
    figures = sum(3 + widest([text, *(f"{one[name]:,}" for one in found)]) for name, text in headings.items())
    table.add_column("Type", no_wrap=bool(found), max_width=max(TYPE_LETTERS, columns - figures - 3) if found else None)
    for text in headings.values():
        table.add_column(text, no_wrap=True)
    for one in found:
        failed = f"[red]{one['failed']:,}[/]" if one["failed"] else "0"
        table.add_row(
            escape(one["job_type"]), f"{one['waiting']:,}", f"{one['running']:,}", f"{one['completed']:,}", failed
        )
    if not found:
        table.add_row("[dim]No job is open, and none ended.[/]")
    return table


def _runners(runners: list[dict[str, Any]], columns: int) -> Table:
    short = columns < NARROW_COLUMNS
    headings = ("Runner", "State", "Slots") if short else ("Runner", "State", "Slots", "", "Capabilities")
    table = Table(*headings, box=None, header_style="dim", padding=(0, 2, 0, 1))
    for one in sorted(runners, key=lambda one: (one["name"], one["runner_id"])):
        state = (
            f"[green]{one['state'].lower()}[/]"
            if one["state"] == "REGISTERED"
            else f"[yellow]{one['state'].lower()}[/]"
        )
        share = one["in_flight"] / max(1, one["slots"])
        used = f"{one['in_flight']}/{one['slots']}"
        more = () if short else (f"[cyan]{bar(share)}[/]", used, escape(", ".join(one["capabilities"])))
        table.add_row(escape(one["runner_id"]), state, *(more or (used,)))
    if not runners:
        table.add_row("[yellow]No runner is there.[/] controlplane runner package.module:runner starts one.")
    return table


def _trouble(controls: dict[str, Any]) -> str:
    lines = [] if controls["admission"]["open"] else [f"admission closed: {controls['admission']['reason']}"]
    lines += [f"breaker {one['state'].lower()}: {subject}, {one['reason']}" for subject, one in controls["breakers"].items() if one["state"] != "CLOSED"]  # fmt: skip
    lines += [f"paused: {subject} {reason}" for subject, reason in controls["pauses"].items()]
    return "\n".join(map(escape, lines))


def top(
    once: Annotated[bool, typer.Option("--once", help="One picture, then end.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, max=60, help="Seconds between pictures.")] = 2.0,
    window: Annotated[int, typer.Option(min=10, max=86_400, help="Seconds that rates and times are taken over.")] = 60,
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Watch queue, rates, times and runners in the terminal, until Ctrl-C."""
    from controlplane.cli import show

    if once or as_json or not show.console.is_terminal:
        found = ask(gateway, as_json, lambda client: look(client, window, show.console.width))
        show.output(found, as_json, lambda one: show.console.print(frame(one, address_of(gateway), show.console.width)))
        return
    try:
        _watch(gateway, interval, window)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _watch(gateway: str | None, interval: float, window: int) -> None:
    """Draw again and again; an outage is shown and waited out, for that is when people look."""
    from rich.live import Live

    from controlplane.cli import show
    from controlplane.client import ControlPlaneError

    with client_of(gateway) as client, Live(console=show.console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                picture: Any = frame(look(client, window, show.console.width), address_of(gateway), show.console.width)
            except ControlPlaneError as error:
                picture = Panel(escape(str(error)), title="no answer; asking again", border_style="red")
            live.update(picture, refresh=True)
            time.sleep(interval)


def add_to(app: typer.Typer) -> None:
    """Give the application this command."""
    app.command(rich_help_panel=PANEL, epilog=examples("controlplane top", "controlplane top --once --window 300"))(top)
