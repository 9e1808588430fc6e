"""The audit against a running stack, with progress for people."""

import asyncio
from contextlib import nullcontext
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from controlplane.local.stack import find_running
from controlplane.log.connection import LogConnection
from controlplane.settings import settings
from controlplane.truthcore_projector.replay import Verdict, verify


def log_connection() -> LogConnection:
    """Return the connection that the settings name, or that of the stack that runs in the data folder."""
    chosen = settings()
    if chosen.kafka_bootstrap is None and (running := find_running(chosen.data_dir)):
        chosen = chosen.model_copy(update={"kafka_bootstrap": running.kafka_bootstrap})
    return LogConnection.from_settings(chosen)


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
