"""The demo: profile Python's own standard library with two runners of different opinions, and audit what came of it."""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from controlplane.api.models import TruthView
from controlplane.cli import show, show_audit
from controlplane.cli.audit import verify_live
from controlplane.cli.stack import SystemStack
from controlplane.client import Client, ControlPlaneError
from controlplane.demo.modules import Module, modules
from controlplane.local.errors import EmbeddedStackError
from controlplane.settings import settings

JOB_TYPES: Final = ("python.parse", "python.scan")
GIVE_UP_SECONDS: Final = 180.0
SHOWN: Final = ("module:json", "module:argparse", "module:dataclasses")


def run_demo(data_dir: Path | None, *, as_json: bool) -> int:
    """Run the demo in a folder of its own; returns the exit code: 0 only if nothing was lost and the audit agrees."""
    with contextlib.ExitStack() as stack:
        folder = data_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="controlplane-demo-")))
        say = _silent if as_json else show.console.print
        say(
            "Starting Kafka, Valkey, JobForge, TruthCore and the gateway (the first time, Kafka is downloaded: about 45 MB)."
        )
        try:
            system = stack.enter_context(SystemStack(settings(), folder, free_ports=True))
        except EmbeddedStackError as error:
            show.console.print(f"[red]{error}[/]")
            return 1
        say(f"Up. Console: {system.gateway_url}/console/")
        system.add_runner("parser", "controlplane.demo.parser:runner")
        system.add_runner("scanner", "controlplane.demo.scanner:runner")
        client = stack.enter_context(system.client())
        return _demonstrate(system, client, as_json=as_json)


def _silent(*_: object) -> None:
    """Say nothing: a program reads the one document at the end."""


def _demonstrate(system: SystemStack, client: Client, *, as_json: bool) -> int:
    _wait_for_runners(client)
    for predicate in ("lines", "functions", "classes"):
        client.declare_predicate(predicate, cardinality="SINGLE")
    position = client.declare_predicate("imports", cardinality="MULTIPLE").position
    found = list(modules())
    started = time.perf_counter()
    _submit(client, found)
    counts = _watch(client, len(found) * len(JOB_TYPES), quiet=as_json)
    seconds = time.perf_counter() - started
    lost = len(found) * len(JOB_TYPES) - sum(counts.values())
    report = _report(client, counts, lost, seconds)
    truths = _truths(client, position)
    conflict = _conflict(client)
    causes = client.why(job="parse-json.decoder")
    verdict = verify_live(client, quiet=as_json, connection=system.connection())
    if as_json:
        conclusion = {"audit_agrees": verdict.agrees, "truths": [one.model_dump(mode="json") for one in truths]}
        print(json.dumps(report | conclusion))
    else:
        _tell(report, truths, conflict, causes, verdict)
    return 0 if lost == 0 and verdict.agrees and counts.get("COMPLETED", 0) > 0 and truths and conflict else 1


def _wait_for_runners(client: Client) -> None:
    give_up_at = time.monotonic() + GIVE_UP_SECONDS
    while len([one for one in client.runners().runners if one.state == "REGISTERED"]) < len(JOB_TYPES):
        if time.monotonic() > give_up_at:
            raise ControlPlaneError({"message": "Expected both runners to register, but they did not."})
        time.sleep(0.1)
    time.sleep(0.5)  # JobForge reads the same registrations as TruthCore; a moment more is all that it needs.


def _submit(client: Client, found: list[Module]) -> None:
    """Submit one job per file and runner, in bulk, under ids that say what they are."""
    for start in range(0, len(found), 250):
        lines = [
            json.dumps({"job_type": job_type, "job_id": f"{job_type[7:]}-{one.name}", "payload": one.model_dump()})
            for one in found[start : start + 250]
            for job_type in JOB_TYPES
        ]
        for answer in _bulk(client, lines):
            if "code" in answer:
                raise ControlPlaneError(answer)


def _bulk(client: Client, lines: list[str]) -> Iterator[dict[str, Any]]:
    answer = client.post_lines("/v1/jobs/bulk", lines)
    yield from (json.loads(line) for line in answer.split("\n") if line)


def _watch(client: Client, total: int, *, quiet: bool) -> dict[str, int]:
    """Show the jobs conclude; returns how many ended in each phase."""
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    tasks = [bar.add_task(name, total=total // len(JOB_TYPES)) for name in JOB_TYPES]
    give_up_at = time.monotonic() + GIVE_UP_SECONDS
    query = "SELECT job_type, phase, count(*) FROM jobs WHERE concluded_at IS NOT NULL GROUP BY ALL"
    with contextlib.nullcontext() if quiet else Live(bar, console=show.console, refresh_per_second=8):
        while True:
            rows = client.sql(query).rows
            for name, task in zip(JOB_TYPES, tasks, strict=True):
                bar.update(task, completed=sum(row[2] for row in rows if row[0] == name))
            counts: dict[str, int] = {}
            for _, phase, count in rows:
                counts[phase] = counts.get(phase, 0) + count
            if sum(counts.values()) >= total or time.monotonic() > give_up_at:
                return counts
            time.sleep(0.1)


def _report(client: Client, counts: dict[str, int], lost: int, seconds: float) -> dict[str, Any]:
    query = "SELECT (epoch_us(concluded_at) - epoch_us(submitted_at)) / 1000 FROM jobs WHERE concluded_at IS NOT NULL"
    waits = sorted(float(row[0]) for row in client.sql(query, limit_rows=10_000).rows)
    cuts = quantiles(waits, n=100) if len(waits) > 1 else [0.0] * 99
    latency = {"p50": round(cuts[49], 1), "p95": round(cuts[94], 1), "p99": round(cuts[98], 1)}
    total = sum(counts.values())
    return {
        "jobs": total, "by_phase": counts, "lost": lost, "seconds": round(seconds, 2),
        "jobs_per_s": round(total / seconds, 1), "latency_ms": latency, "cores": os.cpu_count(),
    }  # fmt: skip


def _truths(client: Client, position: str) -> list[TruthView]:
    found: list[TruthView] = []
    for subject in SHOWN:
        found += client.truths(subject, "functions", min_position=position) + client.truths(subject, "lines")
    return found[:5]


def _conflict(client: Client) -> TruthView | None:
    return next((one for one in client.truths("module:*", "functions", limit=1000) if one.conflict), None)


def _tell(
    report: dict[str, Any], truths: list[TruthView], conflict: TruthView | None, causes: Any, verdict: Any
) -> None:
    say = show.console.print
    say(
        f"\n[bold]{report['jobs']:,} jobs[/] in {report['seconds']} s: {report['jobs_per_s']:,} jobs/s, lost {report['lost']}."
    )
    latency = report["latency_ms"]
    say(
        f"From submission to conclusion, queueing included: p50 {latency['p50']} ms, p95 {latency['p95']} ms, p99 {latency['p99']} ms."
    )
    say("\n[bold]Five truths, and who says so[/]")
    show.truths(truths)
    if conflict is not None:
        say("\n[bold]A conflict, and how it was decided[/]")
        show.truths([conflict])
        say(
            f"[dim]{conflict.rule.lower()}: each vote weighs what its source's reliability and confidence say; the rest goes to the others.[/]"
        )
    say("\n[bold]Why: everything that followed from one submission[/]")
    show.causation(causes)
    say("\n[bold]Audit[/]")
    show_audit.verdict(verdict)
