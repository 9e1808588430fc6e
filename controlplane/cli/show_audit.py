"""What people see of audits: verdicts, files that were written, and what differs."""

from typing import Any

from rich.markup import escape
from rich.table import Table

from controlplane.api.audits import AuditDiff, JobChange
from controlplane.cli.plots import change
from controlplane.cli.show import console


def verdict(found: Any) -> None:
    """Show what an audit found."""
    table = Table("Table", "Rows", "Digest", "Folded again", box=None, header_style="dim")
    for one in found.tables:
        same = (
            "[green]equal[/]"
            if one["agrees"]
            else f"[red]{one['digest_replayed'][:16]}… ({one['rows_replayed']:,} rows)[/]"
        )
        table.add_row(one["table"], f"{one['rows_live']:,}", f"{one['digest_live'][:16]}…", same)
    console.print(table)
    rate = found.records / found.seconds if found.seconds else 0
    words = (
        "[green]The projection is what the log says.[/]"
        if found.agrees
        else "[red]The projection differs from the log.[/]"
    )
    console.print(f"{words} {found.records:,} records folded again in {found.seconds:.1f} s ({rate:,.0f}/s).")
    if found.archived_records:
        console.print(
            f"[dim]{found.archived_records:,} records are no longer in the log: they are from the archive, whose files are what its manifest says.[/]"
        )
    if found.snapshot_records:
        console.print(
            f"[dim]On from a snapshot of {found.snapshot_records:,} records, which is what its manifest says.[/]"
        )
    for one in found.findings:
        console.print(f"[red]{one.kind}[/] {escape(one.message)} [dim]{escape(', '.join(one.positions))}[/]")
    console.print(f"[dim]fingerprint {found.fingerprint}[/]")


def world(found: dict[str, Any]) -> None:
    """Show what was written."""
    table = Table("Table", "Rows", box=None, header_style="dim")
    for name, rows in found["tables"].items():
        table.add_row(name, f"{rows:,}")
    if found["truths"] is not None:
        table.add_row("truths", f"{found['truths']:,}")
    console.print(table)
    console.print(
        f"{found['records']:,} records in {escape(found['file'])}, in {found['seconds']:.1f} s. [dim]fingerprint {found['fingerprint']}[/]"
    )


def difference(found: AuditDiff) -> None:
    """Show how two projections differ."""
    table = Table(
        "Table", "Rows before", "after", "Only before", "Only after", "For example", box=None, header_style="dim"
    )
    for one in found.tables:
        if one.only_before or one.only_after:
            numbers = (one.rows_before, one.rows_after, one.only_before, one.only_after)
            table.add_row(one.table, *(f"{number:,}" for number in numbers), escape(", ".join(one.positions[:2])))
    console.print(table if table.row_count else "[green]No row differs.[/]")
    for job in found.jobs:
        console.print(f"[cyan]job[/] [bold]{escape(job.job_id)}[/] {_job(job, 'before')} -> {_job(job, 'after')}")
    for truth in found.truths:
        change(truth)
    if not found.complete:
        console.print("[dim]More jobs or truths differ: raise --limit.[/]")


def _job(found: JobChange, side: str) -> str:
    one = found.before if side == "before" else found.after
    return "[dim]unknown[/]" if one is None else f"{one.phase.lower()} ({len(one.attempts)} attempts)"
