"""The audit against a running stack, with progress for people."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from controlplane.cli.finding import found_settings
from controlplane.events.catalog import Service
from controlplane.log.connection import LogConnection
from controlplane.truthcore_projector.fold import Progress as Told
from controlplane.truthcore_projector.replay import Verdict, verify

T = TypeVar("T")


def log_connection() -> LogConnection:
    """Return the connection that the settings name, or that of the stack that runs in the data folder."""
    return LogConnection.from_settings(found_settings(Service.AUDITOR))


def with_progress(words: str, quiet: bool, work: Callable[[Told], Coroutine[Any, Any, T]]) -> T:
    """Return what a coroutine comes to, with a bar, its rate and the time left while it runs."""
    bar = Progress(
        TextColumn(words), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), transient=True
    )  # fmt: skip
    with nullcontext() if quiet else bar:
        task = bar.add_task("fold", total=None, rate="")

        def progress(done: int, total: int, seconds: float) -> None:
            bar.update(task, completed=done, total=total, rate=f"{done / max(seconds, 1e-9):,.0f}/s")

        return asyncio.run(work(progress))


def verify_live(
    client: Any, *, quiet: bool, connection: LogConnection | None = None, snapshot: Path | None = None, fingerprint: str | None = None,
    keep: Path | None = None, archive: Path | None = None,
) -> Verdict:  # fmt: skip
    """Fold the log again up to what the live projection reflects now, and compare."""
    live = client.digest()
    place = connection or log_connection()
    return with_progress(
        "folding the log again", quiet,
        lambda told: verify(place, live, told, snapshot=snapshot, fingerprint=fingerprint, keep=keep, archive=archive),
    )  # fmt: skip
