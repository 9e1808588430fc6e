"""Commands about the whole history: as Parquet for other engines, out of the database where it is old detail, and folded anew beside it."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from controlplane.cli.asking import Json, examples, fail

PANEL = "Prove and measure"
MOMENTS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S.%f%z"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this group."""
    epilog = examples("controlplane export history", "controlplane export /lake/controlplane --follow --every 30")
    app.command("export", rich_help_panel=PANEL, epilog=epilog)(export)
    epilog = examples("controlplane archive --before 2026-01-01T00:00:00Z")
    app.command("archive", rich_help_panel=PANEL, epilog=epilog)(archive)
    app.command("rebuild", rich_help_panel=PANEL, epilog=examples("controlplane rebuild"))(rebuild)


def export(
    folder: Annotated[Path, typer.Argument(help="Where the Parquet is: TABLE/day=YYYY-MM-DD/*.parquet.")],
    follow: Annotated[bool, typer.Option("--follow", help="Go on until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=1.0, help="With --follow: seconds between two looks at the log.")] = 60.0,
    as_json: Json = False,
) -> None:
    """Write the history of everything as Parquet for other engines; goes on where an earlier export ended, each record once.

    With --follow it also waits while the log is away.
    """
    from controlplane.cli import show
    from controlplane.cli.audit import log_connection, with_progress
    from controlplane.log.connection import LogUnavailable, LogUnconfigured
    from controlplane.log.reader import PositionGone
    from controlplane.truthcore_projector.export import Export, ExportBusy, ExportInvalid, export_to_end

    try:
        connection, target = log_connection(), Export(folder)
        try:
            while True:
                try:
                    records = with_progress(
                        "exporting", as_json or follow, lambda told: export_to_end(connection, target, told)
                    )
                except LogUnavailable as error:
                    if not follow or isinstance(error, PositionGone):
                        raise
                    typer.echo(f"Waits for the log: {error}", err=True)
                    records = 0
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


def archive(
    before: Annotated[datetime, typer.Option(formats=MOMENTS, help="Detail that was appended before this time; UTC if it says nothing else.")],
    truthcore: Annotated[str | None, typer.Option(help="URL of one TruthCore; by default all of CONTROLPLANE_TRUTHCORE_URLS.")] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Move old progress, log lines and heartbeats out of TruthCore's database into Parquet beside it; every answer stays what it was."""
    import httpx

    from controlplane.api.snapshots import ArchiveAnswer
    from controlplane.cli import show
    from controlplane.cli.finding import found_settings
    from controlplane.tls import client_context
    from controlplane.truthcore_projector.snapshots import REQUEST_SECONDS

    chosen = found_settings()
    urls = [url.strip().rstrip("/") for url in (truthcore or chosen.truthcore_urls).split(",")]
    moment = before if before.tzinfo else before.replace(tzinfo=UTC)
    said: list[dict[str, Any]] = []
    with httpx.Client(timeout=REQUEST_SECONDS, verify=client_context(chosen.tls) if chosen.tls else True) as client:
        for url in urls:
            try:
                answer = client.post(f"{url}/v1/archive", json={"before": moment.isoformat()}).raise_for_status()
                said.append(
                    {"truthcore": url, **ArchiveAnswer.model_validate_json(answer.content).model_dump(mode="json")}
                )
            except (httpx.HTTPError, ValueError) as error:
                fail(f"Expected {url} to archive, but: {error}", as_json=as_json)
    show.output({"archived": said}, as_json, _print_archived)


def _print_archived(said: dict[str, Any]) -> None:
    from controlplane.cli import show

    for one in said["archived"]:
        size = sum(file["size_bytes"] for file in one["files"])
        show.console.print(
            f"{one['truthcore']}: [bold]{one['rows']:,}[/] rows in {len(one['files'])} files, {size:,} bytes, in {one['folder']}."
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
    from controlplane.truthcore_projector.archive import ArchiveDamaged
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
    if not file.exists() and (shards := sorted(file.parent.glob(f"{file.stem}*-of-*{file.suffix}"))):
        fail(f"Expected a TruthCore of the whole log, but {shards[0]} is of one in shards.", as_json=as_json, code=2)
    if not file.parent.is_dir():
        fail(f"Expected TruthCore's folder, but there is no {file.parent}.", as_json=as_json, code=2)
    try:
        connection = log_connection()
        records = with_progress("rebuilding", as_json, lambda told: rebuild_beside(connection, file, told))
    except (LogUnavailable, LogUnconfigured, ArchiveDamaged, duckdb.IOException) as error:
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
