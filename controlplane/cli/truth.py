"""`controlplane truth`: what is true, since when, and what changed."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from controlplane.cli.asking import AsOf, Gateway, Json, ask

PANEL = "Truth and why"
REASON_LETTERS = 1_000


class ShowsByDefault(TyperGroup):
    """A group whose first word may be a subject: `truth SUBJECT` is `truth show SUBJECT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `show` before what is no command of the group."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=ShowsByDefault, no_args_is_help=True,
    help="What is true, since when, and what changed; `truth SUBJECT [PREDICATE]` is `truth show`.",
)  # fmt: skip

ValidAt = Annotated[str | None, typer.Option(help="The moment in the world (RFC 3339).")]


@app.command()
def show(
    subject: Annotated[str, typer.Argument(help="Subject; * stands for anything, for example 'module:json*'.")],
    predicate: Annotated[str, typer.Argument(help="Property; * stands for anything.")] = "*",
    value: Annotated[str | None, typer.Option(help="Only truths with this value; * stands for anything.")] = None,
    source: Annotated[str | None, typer.Option(help="Only truths with a vote of this source.")] = None,
    conflict: Annotated[bool | None, typer.Option(help="Only truths that are contradicted, or that are not.")] = None,
    min_confidence: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    as_of: AsOf = None,
    valid_at: ValidAt = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Show what is true, how sure, by which rule, and who says so."""
    from controlplane.cli import show as shown

    query: dict[str, Any] = {
        "value": value, "source": source, "conflict": conflict, "min_confidence": min_confidence, "as_of": as_of, "valid_at": valid_at,
    }  # fmt: skip
    found = ask(gateway, as_json, lambda client: client.truths(subject, predicate, limit=limit, **query))
    shown.output(found, as_json, shown.truths)


@app.command()
def history(
    subject: str, predicate: str,
    axis: Annotated[str, typer.Option(help="believed: over what the log knew; valid: over the world's time.")] = "believed",
    as_of: AsOf = None,
    valid_at: ValidAt = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 200,
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Show one truth as a series of intervals, with a plot of its value or of how sure it was."""
    from controlplane.api.truths import TruthHistoryAnswer
    from controlplane.cli import show as shown
    from controlplane.cli.plots import history as plotted

    query = {
        "subject": subject,
        "predicate": predicate,
        "axis": axis,
        "as_of": as_of,
        "valid_at": valid_at,
        "limit": limit,
    }
    answer = ask(gateway, as_json, lambda client: client.request("GET", "/v1/truths/history", query=query))
    shown.output(TruthHistoryAnswer.model_validate(answer), as_json, plotted)


@app.command()
def watch(
    subject: Annotated[str, typer.Argument(help="Subject; * stands for anything.")] = "*",
    predicate: Annotated[str, typer.Argument(help="Property; * stands for anything.")] = "*",
    min_confidence: Annotated[
        float | None, typer.Option(min=0, max=1, help="Only truths that were or are so sure.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Begin behind a time (RFC 3339) or positions; by default, now.")
    ] = None,
    after: Annotated[str | None, typer.Option(help="Begin behind the `place` of a change that --json printed.")] = None,
    until_idle: Annotated[bool, typer.Option(help="End when all is told that there is.")] = False,
    gateway: Gateway = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document a line.")] = False,
) -> None:
    """Show each change of what is true as it comes, with what it was before; Ctrl-C ends it. `--after` a `place` of --json misses nothing."""
    from controlplane.cli.plots import told

    def work(client: Any) -> None:
        idle = (lambda place: True) if until_idle else None
        for one in client.truth_changes(
            subject, predicate, min_confidence=min_confidence, since=since, after=after, idle=idle
        ):
            if as_json:
                print(one.model_dump_json(), flush=True)
            else:
                told(one)

    try:
        ask(gateway, as_json, work)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@app.command()
def diff(
    begin: Annotated[str, typer.Argument(metavar="FROM", help="What the log knew before: a time or positions.")],
    end: Annotated[str | None, typer.Argument(metavar="[TO]", help="And after; by default, all.")] = None,
    subject: Annotated[str, typer.Option(help="* stands for anything.")] = "*",
    predicate: Annotated[str, typer.Option(help="* stands for anything.")] = "*",
    valid_at: ValidAt = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Show what changed in the truth between two moments; exit code 0 whether or not anything did."""
    from controlplane.api.truths import TruthDiffAnswer
    from controlplane.cli import show as shown
    from controlplane.cli.plots import difference

    query = {"from": begin, "to": end, "subject": subject, "predicate": predicate, "valid_at": valid_at, "limit": limit}
    answer = ask(gateway, as_json, lambda client: client.request("GET", "/v1/truths/diff", query=query))
    shown.output(TruthDiffAnswer.model_validate(answer), as_json, difference)


@app.command()
def learn(
    predicate: Annotated[str, typer.Option(help="Only these properties; * stands for anything.")] = "*",
    subject: Annotated[str, typer.Option(help="Only these subjects; * stands for anything.")] = "*",
    method: Annotated[str, typer.Option(help="accu (Dong et al. 2009) or truthfinder (Yin et al. 2007).")] = "accu",
    publish: Annotated[bool, typer.Option("--publish", help="Declare what was learned, as events on the log: only then it counts.")] = False,
    min_votes: Annotated[int, typer.Option(min=1, help="Publish only what rests on so many votes.")] = 10,
    as_of: AsOf = None,
    valid_at: ValidAt = None,
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Learn from their agreement how reliable sources are; with --publish, declare it."""
    from controlplane.api.truths import LearnedAnswer
    from controlplane.cli import show as shown
    from controlplane.cli.plots import learned

    query = {"method": method, "subject": subject, "predicate": predicate, "as_of": as_of, "valid_at": valid_at}

    def work(client: Any) -> tuple[LearnedAnswer, list[str]]:
        found = LearnedAnswer.model_validate(client.request("GET", "/v1/truths/learned", query=query))
        reason = (
            f"learned by {method} from {found.votes:,} votes about {found.truths:,} truths (subject {subject}, predicate {predicate}),"
            f" as of {found.as_of}, valid at {found.valid_at.isoformat()}"
        )
        chosen = [one for one in found.sources if publish and one.votes >= min_votes]
        return found, [
            client.declare_source(one.source, one.reliability, reason[:REASON_LETTERS]).position for one in chosen
        ]

    found, positions = ask(gateway, as_json, work)
    answer = {**found.model_dump(mode="json"), "published": positions}
    shown.output(answer, as_json, lambda _: learned(found, positions))
