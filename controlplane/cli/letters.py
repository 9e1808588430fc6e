"""`controlplane deadletters`: records that a service refused."""

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from controlplane.cli.asking import Gateway, Json, Reason, ask, request, tell

app = typer.Typer(help="Records that a service refused: look, send them again, give them up.", no_args_is_help=True)

Letter = Annotated[str, typer.Argument(help="partition/offset, as `deadletters list` shows it.")]


@app.command("list")
def letters_list(gateway: Gateway = None, as_json: Json = False) -> None:
    """List the dead letters: where each stands, what it was, why it was refused."""
    from controlplane.cli import show

    def render(found: list[Any]) -> None:
        table = Table("Letter", "Record", "Refused by", "Why", box=None, header_style="dim")
        for one in found:
            place, event = one.position.split("/", 1)[1], one.event
            record = "/".join(str(event["position"][part]) for part in ("topic", "partition", "offset"))
            table.add_row(place, record, event["consumer"], escape(event["error"]["message"]))
        show.console.print(table)

    show.output(ask(gateway, as_json, lambda client: list(client.dead_letters())), as_json, render)


@app.command("redrive")
def letters_redrive(letter: Letter, reason: Reason = "", gateway: Gateway = None, as_json: Json = False) -> None:
    """Send the record of a dead letter again."""
    tell(
        request(gateway, as_json, "POST", f"/v1/deadletters/{letter}/redrive", {"reason": reason}),
        as_json,
        "Sent again",
    )


@app.command("purge")
def letters_purge(letter: Letter, reason: Reason = "", gateway: Gateway = None, as_json: Json = False) -> None:
    """Give a dead letter up: it is no longer listed; the log keeps it."""
    tell(request(gateway, as_json, "POST", f"/v1/deadletters/{letter}/purge", {"reason": reason}), as_json, "Given up")
