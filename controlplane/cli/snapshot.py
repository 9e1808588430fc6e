"""`controlplane snapshot`: put a copy of a TruthCore's file where new ones find it."""

from typing import Annotated, Any

import typer

from controlplane.cli.asking import Json, fail

PANEL = "Run it"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=PANEL)(snapshot)


def snapshot(
    url: Annotated[str, typer.Argument(help="fsspec URL of a folder, for example file:///var/lib/snapshots.")],
    truthcore: Annotated[
        str | None,
        typer.Option(help="URL of the TruthCore to copy; by default the first of CONTROLPLANE_TRUTHCORE_URLS."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy a TruthCore's file, with its positions and digests, into a folder; CONTROLPLANE_TRUTHCORE_SNAPSHOT begins a new one there."""
    import httpx

    from controlplane.cli import show
    from controlplane.cli.finding import found_settings
    from controlplane.tls import client_context
    from controlplane.truthcore_projector.snapshots import REQUEST_SECONDS, SnapshotInvalid, from_peer, publish

    chosen = found_settings()
    place = (truthcore or chosen.truthcore_urls.partition(",")[0]).rstrip("/")
    try:
        with httpx.Client(timeout=REQUEST_SECONDS, verify=client_context(chosen.tls) if chosen.tls else True) as client:
            source = from_peer(client, place)
            file = publish(source, url)
    except (httpx.HTTPError, SnapshotInvalid, OSError, ImportError, ValueError) as error:
        fail(f"Expected a snapshot of {place} in {url}, but: {error}", as_json=as_json)
    manifest = source[0]
    records = sum(n for some in manifest.positions.values() for n in some.values())

    def told(_: Any) -> None:
        show.console.print(f"{file}: {records:,} records, {manifest.size_bytes:,} bytes, of {manifest.made_by}.")

    show.output({"file": file, "records": records, **manifest.model_dump(mode="json")}, as_json, told)
