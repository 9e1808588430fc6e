"""`controlplane whatif`: recorded work under another routing policy, in simulated time."""

import asyncio
import re
import time
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from controlplane.cli.asking import Json, fail

PLOT_COLUMNS: Final = 100
PLOT_ROWS: Final = 16
ROWS_SHOWN: Final = 15
_AGO: Final = re.compile(r"-?(\d+)(s|m|h|d)")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def moment_of(text: str, now: datetime) -> datetime:
    """Return the moment that a text names: RFC 3339, or so long ago (`-15m`).

    Raises:
        ValueError: it names none.
    """
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(
            f"Expected a time (RFC 3339) or how long ago, for example -15m, but found {text!r}."
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def whatif(
    policy: Annotated[str, typer.Option(help="module:function of the other policy; modules of this folder are found.")],
    begin: Annotated[str, typer.Option("--from", help="RFC 3339, or how long ago: -15m, -2h.")] = "-1h",
    end: Annotated[str, typer.Option("--to", help="The same; by default now.")] = "-0s",
    recorded_policy: Annotated[
        str | None, typer.Option(help="The policy that was in force; by default that of the settings.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Replay the jobs and runners of a time range under another routing policy, and show what would have changed."""
    from controlplane.cli import show
    from controlplane.jobforge_agent.loading import PolicyMissing, load_policy
    from controlplane.jobforge_agent.whatif.reading import TooMuchRecorded
    from controlplane.log.connection import LogUnavailable, LogUnconfigured
    from controlplane.settings import settings

    now = datetime.now(UTC)
    try:
        since, until = moment_of(begin, now), moment_of(end, now)
        if since >= until:
            fail(f"Expected --from before --to, but found {since} and {until}.", as_json=as_json, code=2)
        ours = load_policy(recorded_policy or settings().routing_policy)
        theirs = load_policy(policy)
        found = asyncio.run(_compared(since, until, ours, theirs, quiet=as_json))
    except (PolicyMissing, TooMuchRecorded, LogUnavailable, LogUnconfigured, ValueError) as error:
        fail(str(error), as_json=as_json, code=2)
    if found.jobs == 0:
        fail(f"Expected jobs between {since} and {until}, but the log has none.", as_json=as_json)
    show.output(found, as_json, _show)


async def _compared(since: datetime, until: datetime, ours: Any, theirs: Any, *, quiet: bool) -> Any:
    from controlplane.cli.audit import log_connection
    from controlplane.cli.show import console
    from controlplane.jobforge_agent.whatif.compare import compare
    from controlplane.jobforge_agent.whatif.reading import recorded
    from controlplane.jobforge_agent.whatif.replay import replay
    from controlplane.log.reader import LogReader
    from controlplane.log.topics import partition_counts
    from controlplane.settings import settings

    connection = log_connection()
    with nullcontext() if quiet else console.status("Reading the log") as status:
        counts = await partition_counts(connection)
        async with LogReader(connection, client_id="controlplane-whatif") as reader:
            begin, end = (int(one.timestamp() * 1_000_000) for one in (since, until))
            scenario = await recorded(reader, counts, begin, end, lease_seconds=settings().lease_seconds)
        if status is not None:
            status.update(f"Replaying {len(scenario.jobs):,} jobs under both policies")
        started = time.perf_counter()
        answer = compare(scenario, replay(scenario, ours), replay(scenario, theirs))
    if not quiet:
        console.print(f"[dim]Replayed twice in {time.perf_counter() - started:.1f} s.[/]")
    return answer


def _show(found: Any) -> None:
    from rich.markup import escape
    from rich.table import Table

    from controlplane.cli.show import console

    console.print(
        f"{found.jobs:,} jobs, {found.decisions:,} decisions: [bold]{found.differing:,}[/] go to another runner."
        f" All is done after {found.seconds_recorded:,.1f} s as recorded, {found.seconds_other:,.1f} s with the other policy."
    )
    faithful = found.fidelity
    console.print(
        f"[dim]The replay as recorded agrees with what happened in {faithful.same_runner:.0%} of {faithful.first_attempts:,} first"
        f" attempts; jobs waited {faithful.recorded_mean_wait_seconds:.2f} s on average, {faithful.replayed_mean_wait_seconds:.2f} s"
        " in the replay.[/]"
    )
    waits = Table("Waits (s)", "Tenant", "Jobs", "Mean", "Median", "95 %", "Longest", box=None, header_style="dim")
    for one in found.waits[:ROWS_SHOWN]:
        ours, theirs = one.recorded, one.other
        changes = [_change(getattr(ours, name), getattr(theirs, name)) for name in ("mean", "p50", "p95", "longest")]
        waits.add_row(escape(one.priority_class), escape(one.tenant), f"{ours.jobs:,}", *changes)
    console.print(waits)
    used = Table("Runner", "Used as recorded", "Used", box=None, header_style="dim")
    for one in found.utilisation:
        used.add_row(escape(one.runner), f"{one.recorded:.1%}", f"{one.other:.1%}")
    console.print(used)
    if found.differences:
        other = Table("Job", "Attempt", "Went to", "Would go to", "Why", box=None, header_style="dim")
        for one in found.differences[:ROWS_SHOWN]:
            names = (one.recorded_runner or "nobody", one.other_runner or "nobody", one.other_reason)
            other.add_row(escape(one.job_id), str(one.attempt_number), *map(escape, names))
        console.print(other)
    if found.refused_by_rules:
        console.print(
            f"[yellow]{found.refused_by_rules:,} assignments of the other policy broke a limit or the slots.[/]"
        )
    console.print(plot(found), markup=False, soft_wrap=True)


def _change(before: float, after: float) -> str:
    colour = "green" if after < before * 0.99 else "red" if after > before * 1.01 else "white"
    return f"{before:,.2f} -> [{colour}]{after:,.2f}[/]"


def plot(found: Any) -> str:
    """Return how many jobs wait over time under both policies, as text."""
    from plotext import figure, uncolorize

    figure.clear()
    figure.theme("colorless")
    figure.plot_size(PLOT_COLUMNS, PLOT_ROWS)
    figure.title("jobs that wait, by seconds since the beginning")
    for label, points in (("as recorded", found.depth_recorded), ("other policy", found.depth_other)):
        signal = figure.signal([at for at, _ in points], [waiting for _, waiting in points])
        figure.draw(signal.lines(True).label(label))
    return str(uncolorize(str(figure.build())))


def add_to(app: typer.Typer) -> None:
    """Give the application this command."""
    app.command(rich_help_panel="Prove and measure")(whatif)
