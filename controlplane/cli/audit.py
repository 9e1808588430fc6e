"""The audit against a running stack, with progress for people."""

import asyncio
from contextlib import nullcontext
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from controlplane.cli.finding import found_settings
from controlplane.events.catalog import Service
from controlplane.log.connection import LogConnection
from controlplane.truthcore_projector.replay import Verdict, verify


def log_connection() -> LogConnection:
    """Return the connection that the settings name, or that of the stack that runs in the data folder."""
    return LogConnection.from_settings(found_settings(Service.AUDITOR))


def verify_live(client: Any, *, quiet: bool, connection: LogConnection | None = None) -> Verdict:
    """Fold the log again up to what the live projection reflects now, and compare."""
    live = client.digest()
    bar = Progress(
        TextColumn("folding the log again"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(), transient=True,
    )  # fmt: skip
    with nullcontext() if quiet else bar:
        task = bar.add_task("fold", total=None, rate="")

        def progress(done: int, total: int, seconds: float) -> None:
            bar.update(task, completed=done, total=total, rate=f"{done / max(seconds, 1e-9):,.0f}/s")

        return asyncio.run(verify(connection or log_connection(), live, progress))
