"""`controlplane audit`: the projection held against the log, and the log against its signed checkpoints."""

import typer

from controlplane.cli import checkpoints
from controlplane.cli.asking import Gateway, Json, ask

app = typer.Typer(
    help="Hold the projection against the log, and the log against what was signed.", no_args_is_help=True
)
app.add_typer(checkpoints.app, name="checkpoints")
app.command("prove")(checkpoints.prove)


@app.command("verify")
def verify(gateway: Gateway = None, as_json: Json = False) -> None:
    """Fold the whole log again and compare the digest of every table with the live projection."""
    from controlplane.cli import show
    from controlplane.cli.audit import verify_live

    verdict = ask(gateway, as_json, lambda client: verify_live(client, quiet=as_json))
    show.output(verdict, as_json, show.verdict)
    raise typer.Exit(0 if verdict.agrees else 1)
