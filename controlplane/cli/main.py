"""The command: groups of commands, each a module that imports what it needs when it runs, so that `--help` is quick."""

import typer

from controlplane.cli import (
    acl,
    asserting,
    auditing,
    benching,
    certs,
    controls,
    events,
    history,
    jobs,
    letters,
    lineage,
    scaffold,
    scheduling,
    secrets,
    serving,
    snapshot,
    tokens,
    top,
    truth,
    whatif,
)
from controlplane.cli.asking import examples

app = typer.Typer(
    help="Run jobs on a message log, and know what happened, why, and what is therefore true.",
    no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode="rich",
    epilog=examples(
        "controlplane up", "controlplane runner my_package.my_module:runner", "controlplane submit image.thumbnail --payload @photo.json --wait",
        "controlplane top", "controlplane events tail --topic truth", "controlplane why JOB", "controlplane --install-completion",
    ),
)  # fmt: skip

serving.add_to(app)
scaffold.add_to(app, serving.PANEL)
snapshot.add_to(app)
jobs.add_to(app)
scheduling.add_to(app)
app.add_typer(truth.app, name="truth", rich_help_panel=truth.PANEL)
lineage.add_to(app)
asserting.add_to(app)
app.add_typer(events.app, name="events", rich_help_panel=truth.PANEL)
top.add_to(app)
controls.add_to(app)
app.add_typer(letters.app, name="deadletters", rich_help_panel=controls.PANEL)
app.add_typer(certs.app, name="certs", rich_help_panel="Secure it")
app.add_typer(acl.app, name="acl", rich_help_panel="Secure it")
app.add_typer(secrets.app, name="secrets", rich_help_panel="Secure it")
app.add_typer(tokens.app, name="tokens", rich_help_panel="Secure it")
app.add_typer(auditing.app, name="audit", rich_help_panel="Prove and measure")
whatif.add_to(app)
history.add_to(app)
app.add_typer(benching.app, name="bench", rich_help_panel="Prove and measure")


def run() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    run()
