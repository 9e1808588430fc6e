"""Commands about the whole history: as Parquet for other engines, and folded anew beside the projection that answers."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from controlplane.cli.asking import Json, examples, fail

PANEL = "Prove and measure"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this group."""
    epilog = examples("controlplane export history", "controlplane export /lake/controlplane --follow --every 30")
    app.command("export", rich_help_panel=PANEL, epilog=epilog)(export)


def export(
    folder: Annotated[Path, typer.Argument(help="Where the Parquet is: TABLE/day=YYYY-MM-DD/*.parquet.")],
    follow: Annotated[bool, typer.Option("--follow", help="Go on until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=1.0, help="With --follow: seconds between two looks at the log.")] = 60.0,
    as_json: Json = False,
) -> None:
    """Write the history of everything as Parquet for other engines; goes on where an earlier export ended, each record once."""
    from controlplane.cli import show
    from controlplane.cli.audit import log_connection, with_progress
    from controlplane.log.connection import LogUnavailable, LogUnconfigured
    from controlplane.truthcore_projector.export import Export, ExportBusy, ExportInvalid, export_to_end

    try:
        connection, target = log_connection(), Export(folder)
        try:
            while True:
                records = with_progress(
                    "exporting", as_json or follow, lambda told: export_to_end(connection, target, told)
                )
                said = {"records": records, "reflects": sum(target.positions().values()), "folder": str(folder)}
                if records or not follow:
                    show.output(said, as_json, _print)
                if not follow:
                    return
                time.sleep(every)
        finally:
            target.close()
    except KeyboardInterrupt:
        show.console.print("Stopped.")
    except (LogUnavailable, LogUnconfigured, ExportBusy, ExportInvalid) as error:
        fail(str(error), as_json=as_json)


def _print(said: dict[str, Any]) -> None:
    from controlplane.cli import show

    show.console.print(
        f"[bold]{said['records']:,}[/] records more in {said['folder']}, {said['reflects']:,} in all: one folder per table."
    )
