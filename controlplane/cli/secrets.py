"""`controlplane secrets`: what is encrypted, and how it is forgotten."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from controlplane.cli.asking import Gateway, Json, Reason, examples, request

app = typer.Typer(
    help="Payloads and results that are encrypted: read them, and forget their keys.", no_args_is_help=True,
    epilog=examples(
        "controlplane submit letter.write --payload @letter.json --secret customer-17", "controlplane secrets open JOB",
        'controlplane secrets forget customer-17 --tenant acme --reason "asked to be forgotten"',
    ),
)  # fmt: skip


@app.command("open")
def open_(
    job_id: Annotated[str, typer.Argument(help="The job.")], gateway: Gateway = None, as_json: Json = False
) -> None:
    """Show what a job was given and what it returned, in the clear."""
    from controlplane.cli import show

    found = request(gateway, as_json, "GET", f"/v1/jobs/{quote(job_id)}/opened")
    show.output(found, as_json, lambda one: show.console.print_json(data=one))


@app.command()
def forget(
    name: Annotated[str, typer.Argument(help="The name, as it was given with --secret.")],
    tenant: Annotated[str | None, typer.Option(help="Whose it is; by default that of whoever asks.")] = None,
    reason: Reason = "", gateway: Gateway = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Destroy a key: everything that it encrypted is unreadable for ever, also on the log and in every backup of it."""
    from rich.markup import escape

    from controlplane.cli import show

    body = {"reason": reason} | ({} if tenant is None else {"tenant": tenant})
    answer = request(gateway, as_json, "POST", f"/v1/secrets/{quote(name)}/forget", body)

    def told(one: dict[str, Any]) -> None:
        key_id = escape(one["key_id"])
        said = f"Forgot {key_id}" if one["existed"] else f"There was no key {key_id} to forget: it was never made, or forgotten before; no job can use the name from now on"  # fmt: skip
        show.console.print(f"{said}, on the log at {one['position']}.", soft_wrap=True)

    show.output(answer, as_json, told)
