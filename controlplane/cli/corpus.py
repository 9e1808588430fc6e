"""The corpus demo: a store of a million truths about installed packages, and the questions that it answers."""

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from controlplane.api.lineage import ImpactAnswer
from controlplane.api.truths import TruthHistoryAnswer
from controlplane.cli import plots, show, trees
from controlplane.cli.stack import SystemStack
from controlplane.client import Client
from controlplane.demo.corpus import SCANNER, packages
from controlplane.demo.corpus_writer import Written, write_corpus
from controlplane.local.errors import EmbeddedStackError
from controlplane.log.connection import LogConnection
from controlplane.settings import settings

GIVE_UP_SECONDS: Final = 1_800.0
PAGE: Final = 5


def run_corpus(names: list[str], truths: int | None, data_dir: Path | None, *, as_json: bool) -> int:
    """Write the corpus into a stack of its own and ask the questions; returns the exit code: 0 only if each has an answer."""
    try:
        chosen = packages(names)
    except LookupError as error:
        show.console.print(f"[red]{escape(str(error))}[/]")
        return 2
    with contextlib.ExitStack() as stack:
        folder = data_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="controlplane-corpus-")))
        try:
            system = stack.enter_context(SystemStack(settings(), folder, free_ports=True))
        except EmbeddedStackError as error:
            show.console.print(f"[red]{error}[/]")
            return 1
        started = time.perf_counter()
        written = _write(system.connection(), chosen, truths, quiet=as_json)
        wrote = time.perf_counter() - started
        with Client(system.gateway_url, timeout=120) as client:
            _wait(client, written)
            report = {
                "packages": written.packages, "modules": written.modules, "assertions": written.assertions, "truths": written.truths,
                "written_s": round(wrote, 1), "known_s": round(time.perf_counter() - started, 1),
            }  # fmt: skip
            if not as_json:
                show.console.print(
                    f"\n[bold]{written.truths:,} truths[/] from {written.assertions:,} assertions about {written.modules:,} modules of"
                    f" {written.packages:,} packages: written in {wrote:.0f} s, known after {report['known_s']:.0f} s."
                )
            answers = {name: _asked(name, ask, client, quiet=as_json) for name, ask in questions(client).items()}
    if as_json:
        print(json.dumps(report | {"questions": answers}))
    return 0 if all(one["found"] for one in answers.values()) else 1


def _write(connection: LogConnection, chosen: list[Any], truths: int | None, *, quiet: bool) -> Written:
    bar = Progress(
        TextColumn("writing what is said of"), BarColumn(), MofNCompleteColumn(), TextColumn("packages"), TimeRemainingColumn(),
        TextColumn("{task.fields[name]}"), transient=True,
    )  # fmt: skip
    with nullcontext() if quiet else bar:
        task = bar.add_task("write", total=len(chosen), name="")
        return asyncio.run(
            write_corpus(
                connection,
                chosen,
                truths=truths,
                progress=lambda done, _, name: bar.update(task, completed=done, name=name),
            )
        )


def _wait(client: Client, written: Written) -> None:
    """Wait until the projection reflects what was written."""
    give_up_at = time.monotonic() + GIVE_UP_SECONDS
    while client.sql("SELECT 1").reflects.lag_records:
        if time.monotonic() > give_up_at:
            raise TimeoutError("Expected the projection to reach the end of the log, but it did not.")
        time.sleep(0.5)
    client.sql("SELECT 1", min_position=written.positions)


Question = Callable[[], tuple[int, Callable[[], None]]]
"""Returns how much was found, and what shows it."""


def questions(client: Client) -> dict[str, Question]:
    """Return the documented questions, by what they ask in words."""

    def truths(subject: str, predicate: str, limit: int = PAGE, **query: Any) -> Question:
        def ask() -> tuple[int, Callable[[], None]]:
            found = client.truths(subject, predicate, limit=limit, **query)
            return len(found), lambda: show.truths(list(found))

        return ask

    def importers() -> tuple[int, Callable[[], None]]:
        found = client.truths("*", "imports", value="module:json", limit=200)
        names = sorted(one.subject.removeprefix("module:") for one in found)
        return len(names), lambda: show.console.print(f"{len(names)}: {', '.join(names[:12])} …", markup=False)

    def defined() -> tuple[int, Callable[[], None]]:
        (found,) = client.truths(some, "defines")
        names = [str(one) for one in found.value]
        return len(names), lambda: show.console.print(f"{len(names)}: {', '.join(names[:6])} …", markup=False)

    def history() -> tuple[int, Callable[[], None]]:
        (one,) = client.truths("module:*", "functions", conflict=True, limit=1)
        query = {"subject": one.subject, "predicate": "functions"}
        found = TruthHistoryAnswer.model_validate(client.request("GET", "/v1/truths/history", query=query))
        return len(found.intervals), lambda: plots.history(found)

    def distrust() -> tuple[int, Callable[[], None]]:
        query = {"source": SCANNER, "limit": PAGE}
        found = ImpactAnswer.model_validate(client.request("GET", "/v1/impact", query=query))
        return len(found.truths), lambda: trees.impact(found)

    def most_imported() -> tuple[int, Callable[[], None]]:
        found = client.sql(
            "SELECT text AS module, count(DISTINCT subject) AS importers FROM assertions WHERE predicate = 'imports'"
            " GROUP BY text ORDER BY importers DESC, module LIMIT 5"
        )
        return len(found.rows), lambda: show.console.print(
            ", ".join(f"{name.removeprefix('module:')} ({count:,})" for name, count in found.rows), markup=False
        )

    largest = "SELECT subject FROM assertions WHERE predicate = 'defines' GROUP BY subject ORDER BY count(*) DESC, subject LIMIT 1"
    ((some,),) = client.sql(largest).rows
    return {
        "Who imports json?": importers,
        f"What does {some.removeprefix('module:')} define?": defined,
        "Which functions take ten arguments?": truths("function:*", "arguments", value="10"),
        "Where do the scanners contradict each other?": truths("module:*", "functions", conflict=True),
        "What was believed of such a module, record by record?": history,
        "What would change if the pattern scanner was not believed?": distrust,
        "The first of everything that is known:": truths("*", "*"),
        "What is imported most?": most_imported,
    }


def _asked(name: str, ask: Question, client: Client, *, quiet: bool) -> dict[str, Any]:
    started = time.perf_counter()
    found, shown = ask()
    milliseconds = (time.perf_counter() - started) * 1000
    if not quiet:
        show.console.print(f"\n[bold]{escape(name)}[/]  [dim]{milliseconds:,.0f} ms[/]")
        shown()
    return {"found": found, "ms": round(milliseconds, 1)}
