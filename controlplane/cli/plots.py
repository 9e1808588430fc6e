"""What people see of truth over time: a series of intervals with a plot, and what changed."""

from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json
from rich.markup import escape
from rich.table import Table

from controlplane.api.models import TruthView
from controlplane.api.truths import (
    LearnedAnswer,
    TruthChange,
    TruthChangeTold,
    TruthDiffAnswer,
    TruthHistoryAnswer,
    TruthInterval,
)
from controlplane.cli.show import console

PLOT_COLUMNS = 100
PLOT_ROWS = 16
TICKS = "%Y-%m-%d %H:%M:%S"
COLOURS = {"appeared": "green", "vanished": "red", "changed": "yellow"}


def _when(moment: datetime | None) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else "still"


def _value(value: Any, unit: str | None) -> str:
    text = f"{len(value)} values" if isinstance(value, list) and len(value) > 3 else to_json(value).decode()
    return f"{text} {unit}" if unit else text


def history(answer: TruthHistoryAnswer) -> None:
    """Show a truth's intervals, and plot its numbers, or how sure it was where the values are no numbers."""
    table = Table("From", "Until", "Value", "Sure", "Says", box=None, header_style="dim")
    for one in answer.intervals:
        value = "[dim]nothing[/]" if one.rule is None else escape(_value(one.value, one.unit))
        sure = "-" if one.rule is None else f"{one.confidence:.1%}" + (" [red]conflict[/]" if one.conflict else "")
        table.add_row(_when(one.since), _when(one.until), value, sure, escape(", ".join(one.sources)))
    console.print(table)
    if len(answer.intervals) > 1:
        console.print(plot(answer.intervals, f"{answer.subject} {answer.predicate}"), markup=False, soft_wrap=True)
    if not answer.complete:
        console.print("[yellow]Older assertions than the newest 5,000 are not in this series.[/]")
    if answer.next_cursor:
        console.print(f"[dim]More from {answer.next_cursor} on.[/]")


def plot(intervals: list[TruthInterval], title: str) -> str:
    """Return a step plot of the values, or of the confidence where they are no numbers, as text."""
    from plotext import figure, uncolorize

    numeric = all(
        isinstance(one.value, int | float) and not isinstance(one.value, bool) for one in intervals if one.rule
    )
    end = intervals[-1].until or max(datetime.now(UTC), intervals[-1].since)
    runs: list[list[tuple[datetime, float]]] = [[]]
    for one in intervals:
        if one.rule is None:
            runs.append([])  # Where nothing was true there is no line.
            continue
        height = float(one.value) if numeric else one.confidence
        runs[-1] += [(one.since, height), (one.until or end, height)]
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(PLOT_COLUMNS, PLOT_ROWS)
    figure.title(f"{title}: {'value' if numeric else 'how sure'} (UTC)")
    figure.date("x").activate(form=TICKS)
    for run in filter(None, runs):
        signal = figure.signal([moment for moment, _ in run], [height for _, height in run])
        figure.draw(signal.lines(True))
    return str(uncolorize(str(figure.build())))


def difference(answer: TruthDiffAnswer) -> None:
    """Show what changed, one line for each truth."""
    if not answer.changes:
        console.print("Nothing changed.")
    for one in answer.changes:
        change(one)
    if answer.next_cursor:
        console.print("[dim]There is more: raise --limit, or choose subjects.[/]")


def change(one: TruthChange) -> None:
    """Show what became of one truth."""
    colour = COLOURS.get(one.change, "cyan")
    console.print(
        f"[{colour}]{one.change:>9}[/]  [bold]{escape(one.subject)}[/] {escape(one.predicate)}  "
        f"{_side(one.before)} -> {_side(one.after)}"
    )


def told(one: TruthChangeTold) -> None:
    """Show one change of the feed: when, what, and with which record."""
    console.print(f"[dim]{one.at:%Y-%m-%d %H:%M:%S}  {one.cause}[/]", end="")
    change(one)


def _side(view: TruthView | None) -> str:
    return "[dim]nothing[/]" if view is None else f"{escape(_value(view.value, view.unit))} ({view.confidence:.1%})"


def learned(answer: LearnedAnswer, published: list[str]) -> None:
    """Show what was learned of each source, beside what is in force."""
    table = Table("Source", "Learned", "In force", "Votes", box=None, header_style="dim")
    for one in sorted(answer.sources, key=lambda one: one.reliability, reverse=True):
        force = "1 (undeclared)" if one.declared is None else f"{one.declared:.3f}"
        table.add_row(escape(one.source), f"{one.reliability:.3f}", force, f"{one.votes:,}")
    console.print(table if answer.sources else "No two sources speak about the same truth.")
    end = "settled" if answer.settled else "[yellow]not settled[/]"
    console.print(
        f"{answer.method} over {answer.votes:,} votes about {answer.truths:,} truths, {end} after {answer.rounds} rounds."
    )
    words = (
        f"{len(published)} declared: they count from now on." if published else "Nothing was declared; --publish does."
    )
    console.print(f"[dim]{words}[/]")
