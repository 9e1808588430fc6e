"""Commands that say something: assertions, their retraction, what holds for a predicate, how far a source is trusted."""

import json
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from controlplane.cli import truth
from controlplane.cli.asking import Gateway, Json, Reason, examples, request, tell

MOST_ROWS: Final = 10_000
Source = Annotated[str | None, typer.Option(help="Who says so; by default whoever asks.")]


def value_of(text: str) -> Any:
    """Return a value as JSON if it is some, otherwise the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def assert_(
    subject: str,
    predicate: str,
    value: Annotated[str, typer.Argument(help="JSON, or text; with --kind REFERENCE another subject.")],
    confidence: Annotated[float, typer.Option(min=0, max=1)] = 1.0,
    source: Source = None,
    unit: str | None = None,
    kind: Annotated[str | None, typer.Option(help="STRING, NUMBER, BOOLEAN, INSTANT, REFERENCE or JSON.")] = None,
    valid_from: Annotated[str | None, typer.Option(help="RFC 3339; by default from the log time on.")] = None,
    valid_to: Annotated[str | None, typer.Option(help="RFC 3339, not included; by default open.")] = None,
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Assert something of a subject; what is true then follows from all assertions by the predicate's rule."""
    from controlplane.events.identity import random_id

    body = {
        "subject": subject, "predicate": predicate, "value": value if kind in {"STRING", "REFERENCE", "INSTANT"} else value_of(value),
        "confidence": confidence, "source": source, "unit": unit, "kind": kind, "valid_from": valid_from, "valid_to": valid_to,
        "assertion_id": random_id(),
    }  # fmt: skip
    answer = request(gateway, as_json, "POST", "/v1/assertions", body)
    tell(answer, as_json, f"Asserted as {answer['event_id']}")


def retract(
    assertion_id: str,
    subject: Annotated[str, typer.Argument(help="What it is about.")],
    source: Source = None,
    reason: Reason = "",
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Take an assertion back; it stays in the history."""
    body = {"subject": subject, "source": source, "reason": reason}
    answer = request(gateway, as_json, "POST", f"/v1/assertions/{quote(assertion_id)}/retract", body)
    tell(answer, as_json, f"Retracted {assertion_id}")


def declare(
    predicate: str,
    cardinality: Annotated[str, typer.Option(help="SINGLE, MULTIPLE or UNDECLARED.")] = "UNDECLARED",
    rule: Annotated[str, typer.Option(help="BAYES, NOISY_OR, LATEST, MOST_TRUSTED or DEFAULT.")] = "DEFAULT",
    kind: Annotated[str | None, typer.Option(help="Type of its values; by default any.")] = None,
    unit: str | None = None,
    description: str = "",
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Declare how the competing assertions of a predicate are fused."""
    body = {"predicate": predicate, "cardinality": cardinality, "rule": rule, "value_kind": kind, "unit": unit, "description": description}  # fmt: skip
    tell(request(gateway, as_json, "POST", "/v1/predicates", body), as_json, f"Declared {predicate}")


def trust(
    source: str,
    reliability: Annotated[float, typer.Argument(min=0, max=1, help="Weight of its votes.")],
    reason: Reason = "",
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Declare how far a source is trusted; answers as of an earlier moment keep the weight of that moment."""
    body = {"source": source, "reliability": reliability, "reason": reason}
    tell(request(gateway, as_json, "POST", "/v1/sources", body), as_json, f"{source} is trusted {reliability:g}")


def sql(
    text: Annotated[str, typer.Argument(help="One SELECT over the projected tables, in DuckDB's SQL.")],
    limit: Annotated[
        int, typer.Option(min=1, max=MOST_ROWS, help="At most so many rows; --csv of more ends with 1.")
    ] = 1000,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Ask the projection in SQL, read-only."""
    import csv
    import sys

    from rich.markup import escape
    from rich.table import Table

    from controlplane.cli import show
    from controlplane.cli.asking import fail

    if as_csv and as_json:
        fail("Expected one of --csv and --json, but found both.", code=2)
    answer = request(gateway, as_json, "POST", "/v1/sql", {"sql": text, "limit_rows": limit})
    if as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(answer["columns"])
        writer.writerows(answer["rows"])
        if answer["truncated"]:
            sys.stdout.flush()
            fail(f"Expected all rows, but there are more than the {limit:,} of --limit (at most {MOST_ROWS:,}).")
        return

    def shown(found: dict[str, Any]) -> None:
        table = Table(*found["columns"], box=None, header_style="dim")
        for row in found["rows"]:
            table.add_row(
                *("" if cell is None else escape(cell if isinstance(cell, str) else json.dumps(cell)) for cell in row)
            )
        show.console.print(table)
        if found["truncated"]:
            show.console.print("[yellow]There are more rows.[/]")

    show.output(answer, as_json, shown)


def add_to(app: typer.Typer) -> None:
    """Give the group `truth` its commands that say something, and the application `sql`."""
    truth.app.command("assert", epilog=examples("controlplane truth assert tower:eiffel height 330 --unit m --confidence 0.9 --source survey"))(assert_)  # fmt: skip
    truth.app.command(epilog=examples("controlplane truth retract ASSERTION tower:eiffel --source survey"))(retract)
    truth.app.command(epilog=examples("controlplane truth declare height --cardinality SINGLE --unit m"))(declare)
    truth.app.command(epilog=examples("controlplane truth trust survey 0.8 --reason 'checked by hand'"))(trust)
    app.command(rich_help_panel=truth.PANEL, epilog=examples('controlplane sql "SELECT phase, count(*) FROM jobs GROUP BY ALL"'))(sql)  # fmt: skip
