"""`controlplane secrets`: what is encrypted, and how it is forgotten."""

from typing import Annotated

import typer

from controlplane.cli.asking import Gateway, Json, Reason, examples, request, tell

app = typer.Typer(
    help="Payloads and results that are encrypted: read them, and forget their keys.", no_args_is_help=True,
    epilog=examples(
        "controlplane submit letter.write --payload @letter.json --secret customer-17", "controlplane secrets open JOB",
        'controlplane secrets forget customer-17 --reason "asked to be forgotten"',
    ),
)  # fmt: skip


@app.command("open")
def open_(
    job_id: Annotated[str, typer.Argument(help="The job.")], gateway: Gateway = None, as_json: Json = False
) -> None:
    """Show what a job was given and what it returned, in the clear."""
    from urllib.parse import quote

    from controlplane.cli import show

    found = request(gateway, as_json, "GET", f"/v1/jobs/{quote(job_id)}/opened")
    show.output(found, as_json, show.console.print_json)


@app.command()
def forget(
    name: Annotated[str, typer.Argument(help="The name, as it was given with --secret.")], reason: Reason = "",
    gateway: Gateway = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Destroy a key: everything that it encrypted is unreadable for ever, also on the log and in every backup of it."""
    answer = request(gateway, as_json, "POST", f"/v1/secrets/{name}/forget", {"reason": reason})
    tell(answer, as_json, f"Forgot {name}")
