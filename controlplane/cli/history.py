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
    app.command("rebuild", rich_help_panel=PANEL, epilog=examples("controlplane rebuild"))(rebuild)


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


def rebuild(
    wait: Annotated[float, typer.Option(min=0.0, help="Seconds to wait for TruthCore to switch.")] = 30.0,
    as_json: Json = False,
) -> None:
    """Fold the whole log into a new projection beside the one that answers, then have TruthCore switch; goes on after a crash.

    Runs on TruthCore's machine: the new file stands beside the old one.
    """
    import duckdb

    from controlplane.cli import show
    from controlplane.cli.audit import log_connection, with_progress
    from controlplane.log.connection import LogUnavailable, LogUnconfigured
    from controlplane.settings import settings
    from controlplane.truthcore_projector.rebuilding import ready_file, rebuild_beside
    from controlplane.truthcore_projector.shards import shard_of

    chosen = settings()
    file = chosen.truthcore_database or chosen.data_dir / "truthcore.duckdb"
    if shard_of(chosen.truthcore_shard).of > 1:
        fail(
            f"Expected a TruthCore of the whole log, but this is shard {chosen.truthcore_shard}.",
            as_json=as_json,
            code=2,
        )
    if not file.parent.is_dir():
        fail(f"Expected TruthCore's folder, but there is no {file.parent}.", as_json=as_json, code=2)
    try:
        connection = log_connection()
        records = with_progress("rebuilding", as_json, lambda told: rebuild_beside(connection, file, told))
    except (LogUnavailable, LogUnconfigured, duckdb.IOException) as error:
        fail(str(error), as_json=as_json)
    give_up_at = time.monotonic() + wait
    while ready_file(file).exists() and time.monotonic() < give_up_at:
        time.sleep(0.1)
    said = {"records": records, "file": str(file), "switched": not ready_file(file).exists()}
    show.output(said, as_json, _print_rebuilt)


def _print_rebuilt(said: dict[str, Any]) -> None:
    from controlplane.cli import show

    how = "TruthCore answers from it" if said["switched"] else "TruthCore switches to it when it runs"
    show.console.print(f"[bold]{said['records']:,}[/] records folded into a new {said['file']}; {how}.")
