"""`controlplane audit`: the projection held against the log, the world as of then, trails for people, and what differs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from controlplane.cli import checkpoints
from controlplane.cli.asking import AsOf, Gateway, Json, ask, examples, fail

app = typer.Typer(
    help="Hold the projection against the log, and the log against what was signed.", no_args_is_help=True
)
app.add_typer(checkpoints.app, name="checkpoints")
app.command("prove")(checkpoints.prove)

Moment = "a time (RFC 3339), positions topic/partition/offset separated by commas, or a projection file"


@app.command(
    "verify",
    epilog=examples(
        "controlplane audit verify",
        "controlplane audit verify --keep monday.duckdb",
        "controlplane audit verify --snapshot monday.duckdb --keep tuesday.duckdb",
    ),
)
def verify(
    snapshot: Annotated[Path | None, typer.Option(help="Go on from this file of an earlier audit, once it is held to its manifest.")] = None,
    fingerprint: Annotated[str | None, typer.Option(help="Hold the manifest of the snapshot to this fingerprint.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep what was folded in this file: the snapshot of the next audit.")] = None,
    archive: Annotated[Path | None, typer.Option(help="Take what the log no longer has from this archive of a TruthCore.")] = None,
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Fold the log again, compare the digest of every table with the live projection, and report broken guarantees; 1 if anything is wrong."""
    from controlplane.cli import show_audit
    from controlplane.cli.audit import verify_live
    from controlplane.cli.show import output
    from controlplane.log.connection import LogUnavailable
    from controlplane.truthcore_projector.archive import ArchiveDamaged
    from controlplane.truthcore_projector.worlds import WorldInvalid

    if keep is not None and keep.exists():
        fail(f"Expected no file at {keep}, but there is one.", as_json=as_json, code=2)
    try:
        verdict = ask(
            gateway, as_json,
            lambda client: verify_live(client, quiet=as_json, snapshot=snapshot, fingerprint=fingerprint, keep=keep, archive=archive),
        )  # fmt: skip
    except (WorldInvalid, ArchiveDamaged, LogUnavailable) as error:
        fail(str(error), as_json=as_json)
    output(verdict, as_json, show_audit.verdict)
    raise typer.Exit(0 if verdict.agrees and not verdict.findings else 1)


@app.command("replay", epilog=examples("controlplane audit replay --until 2026-01-31T12:00:00Z --out then.duckdb"))
def replay(
    out: Annotated[Path, typer.Option(help="The DuckDB file to write; it may not exist.")],
    until: Annotated[str | None, typer.Option(help="A time (RFC 3339), or positions topic/partition/offset separated by commas, each included; by default, all.")] = None,
    archive: Annotated[Path | None, typer.Option(help="Take what the log no longer has from this archive of a TruthCore.")] = None,
    truths: Annotated[bool, typer.Option(help="Also derive the truths as of then, as a table.")] = True,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Write the world as of then into a file: the documented tables and views, and the truths, to query with DuckDB."""
    import asyncio

    from controlplane.cli import show_audit
    from controlplane.cli.audit import log_connection, with_progress
    from controlplane.cli.show import output
    from controlplane.log.connection import LogUnavailable, LogUnconfigured
    from controlplane.truthcore_projector.archive import ArchiveDamaged
    from controlplane.truthcore_projector.moments import as_of_text
    from controlplane.truthcore_projector.worlds import ends_at, write_world
    from controlplane.truthcore_projector.worlds_truths import write_truths

    if out.exists():
        fail(f"Expected no file at {out}, but there is one.", as_json=as_json, code=2)
    try:
        as_of = as_of_text(until) if until else None
        connection = log_connection()
        ends = asyncio.run(ends_at(connection, as_of))
        world = with_progress(
            "folding the log", as_json, lambda told: write_world(connection, ends, out, told, archive)
        )
    except (ValueError, LogUnconfigured, LogUnavailable, ArchiveDamaged) as error:
        fail(str(error), as_json=as_json)
    derived = None
    if truths:
        derived = with_progress(
            "deriving truths", as_json, lambda told: asyncio.to_thread(write_truths, out, as_of, told)
        )
    answer = {
        "file": str(out), "records": world.records, "seconds": world.seconds, "truths": derived, "fingerprint": world.manifest.fingerprint,
        "tables": {name: rows for name, rows, _ in world.manifest.tables},
    }  # fmt: skip
    output(answer, as_json, show_audit.world)


@app.command(
    "trail",
    epilog=examples(
        "controlplane audit trail JOB --out job.html",
        "controlplane audit trail image:9 --as-of 2026-01-31T12:00:00Z --json",
    ),
)
def trail(
    reference: Annotated[str, typer.Argument(metavar="JOB|SUBJECT", help="A job id, or else a subject.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file to write; by default trail-NAME.html.")] = None,
    as_of: AsOf = None,
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Write a report for a person: timeline, causes, lineage, truths and records in one HTML file that needs nothing else; --json for programs."""
    import re

    from controlplane.cli import show
    from controlplane.cli.trail import gather
    from controlplane.cli.trail_page import page

    found = ask(gateway, as_json, lambda client: gather(client, reference, as_of))
    if as_json:
        print(found.model_dump_json())
        return
    file = out or Path(f"trail-{re.sub('[^A-Za-z0-9._-]+', '-', reference)[:80]}.html")
    file.write_text(page(found), encoding="utf-8")
    show.console.print(
        f"{len(found.events):,} records and {len(found.truths):,} truths of {found.kind} {reference} in {file}",
        markup=False,
    )


@app.command(
    "diff",
    epilog=examples(
        "controlplane audit diff 2026-01-31T12:00:00Z", "controlplane audit diff monday.duckdb tuesday.duckdb"
    ),
)
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help=f"Before: {Moment}.")],
    after: Annotated[str | None, typer.Argument(metavar="[B]", help="After: of the same kind; by default, all that is known.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Jobs and truths to tell, at most.")] = 100,
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Show how two moments or two projection files differ: rows by table, jobs and truths; exit code 1 if two files differ."""
    from controlplane.api.audits import AuditDiffAnswer
    from controlplane.cli import show, show_audit

    files = [one for one in (before, after) if one is not None and Path(one).is_file()]
    if not files:
        query: dict[str, Any] = {"from": before, "to": after, "limit": limit}
        answer = ask(gateway, as_json, lambda client: client.request("GET", "/v1/audit/diff", query=query))
        show.output(AuditDiffAnswer.model_validate(answer), as_json, show_audit.difference)
        return
    if len(files) == 1:
        fail(f"Expected two projection files, but only {files[0]} is one.", as_json=as_json, code=2)
    import duckdb

    from controlplane.truthcore_projector.comparison import of_files

    try:
        found = of_files(Path(files[0]), Path(files[1]), limit)
    except duckdb.Error as error:
        fail(f"Expected two projections, but: {str(error)[:500]}", as_json=as_json, code=2)
    show.output(found, as_json, show_audit.difference)
    raise typer.Exit(1 if any(one.only_before or one.only_after for one in found.tables) else 0)
