"""The commands. Each imports what it needs when it runs, so that `--help` is quick."""

import json
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from controlplane.cli import checkpoints, lineage, truth
from controlplane.cli.asking import DataDir, Gateway, Json, ask, client_of, fail

__all__ = ["DataDir", "Gateway", "Json", "app", "ask", "client_of", "fail", "payload_of", "run"]

app = typer.Typer(
    help="Run jobs on a message log, and know what happened, why, and what is therefore true.",
    no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode="rich",
)  # fmt: skip
audit_app = typer.Typer(help="Hold the projection against the log.", no_args_is_help=True)
bench_app = typer.Typer(help="Measure this machine, and hold the result to the log.", no_args_is_help=True)
app.add_typer(truth.app, name="truth")
app.add_typer(audit_app, name="audit")
app.add_typer(bench_app, name="bench")
lineage.add_to(app)
audit_app.add_typer(checkpoints.app, name="checkpoints")
audit_app.command("prove")(checkpoints.prove)


@app.command()
def up(data_dir: DataDir = None, agents: Annotated[int, typer.Option(min=1, help="JobForge processes.")] = 1) -> None:
    """Start everything on this machine: broker, store, JobForge, TruthCore, gateway and console. Ctrl-C stops it."""
    from controlplane.cli.stack import SystemStack
    from controlplane.local.errors import EmbeddedStackError
    from controlplane.settings import settings

    folder = data_dir or settings().data_dir
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"Starting in {folder} (the first time, Kafka is downloaded: about 45 MB).")
    try:
        with SystemStack(settings(), folder, agents=agents) as stack:
            print(f"\n  console   {stack.gateway_url}/console/\n  HTTP      {stack.gateway_url}/docs")
            print(f"  Kafka     {stack.kafka_bootstrap}\n  logs      {folder / 'logs'}\n")
            print(
                "Start a runner in another terminal:  controlplane runner package.module:runner\nCtrl-C stops everything."
            )
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        print("Stopped.")
    except EmbeddedStackError as error:
        fail(str(error))


@app.command()
def service(name: Annotated[str, typer.Argument(help="jobforge, truthcore, gateway or notary")]) -> None:
    """Run one service in the foreground; settings are CONTROLPLANE_* variables."""
    import importlib

    from pydantic import ValidationError

    from controlplane.log.connection import LogUnconfigured
    from controlplane.settings import settings

    modules = {
        "jobforge": "jobforge_agent",
        "truthcore": "truthcore_projector",
        "gateway": "gateway",
        "notary": "notary",
    }
    if name not in modules:
        fail(f"Expected one of {', '.join(modules)}, but found {name}.", code=2)
    try:
        importlib.import_module(f"controlplane.{modules[name]}.service").run(settings())
    except (LogUnconfigured, ValidationError) as error:
        fail(str(error), code=2)


@app.command()
def runner(
    place: Annotated[str, typer.Argument(help="package.module:runner")],
    slots: Annotated[int | None, typer.Option(min=1, help="Attempts at once, instead of what the runner says.")] = None,
) -> None:
    """Run a runner process: your handlers, on the stack that runs here or on the one that the settings name."""
    from controlplane.local.stack import find_running
    from controlplane.log.connection import LogUnavailable, LogUnconfigured
    from controlplane.runner.service import CapabilityInvalid, RunnerMissing, run
    from controlplane.settings import settings

    chosen = settings()
    if chosen.kafka_bootstrap is None and (running := find_running(chosen.data_dir)):
        chosen = chosen.model_copy(update={"kafka_bootstrap": running.kafka_bootstrap})
    try:
        run(chosen, place, slots=slots)
    except (RunnerMissing, CapabilityInvalid, LogUnconfigured, LogUnavailable) as error:
        fail(str(error), code=2)


@app.command()
def submit(
    job_type: Annotated[str, typer.Argument(help="What is to be done, for example image.thumbnail.")],
    payload: Annotated[str, typer.Option(help="JSON, or @file with JSON, or @- for standard input.")] = "null",
    job_id: Annotated[str | None, typer.Option(help="Your id: the same again is the same job.")] = None,
    priority: Annotated[int, typer.Option(min=0, max=9, help="9 is critical.")] = 5,
    wait: Annotated[bool, typer.Option(help="Wait for the conclusion and print the result.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 60.0,
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Submit a job."""
    from controlplane.cli import show

    value = payload_of(payload, as_json)

    def work(client: Any) -> None:
        handle = client.submit(job_type, value, job_id=job_id, priority=priority)
        if wait:
            job = handle.wait(timeout)
            show.output(job, as_json, show.job)
            raise typer.Exit(0 if job.phase == "COMPLETED" else 1)
        show.output({"job_id": handle.job_id, "position": handle.position}, as_json, show.submitted)

    ask(gateway, as_json, work)


def payload_of(text: str, as_json: bool) -> Any:
    """Return the JSON value that an option names: itself, @file, or @- for standard input."""
    try:
        if text == "@-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text()
        return json.loads(text)
    except (OSError, ValueError) as error:
        fail(f"Expected JSON as payload, but: {error}.", as_json=as_json, code=2)


@app.command()
def jobs(
    phase: Annotated[str | None, typer.Option(help="For example QUEUED, RUNNING, FAILED.")] = None,
    job_type: Annotated[str | None, typer.Option(help="Only this type.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 30,
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    from itertools import islice

    from controlplane.cli import show

    found = ask(
        gateway, as_json, lambda client: list(islice(client.jobs(phase=phase, job_type=job_type, limit=limit), limit))
    )
    show.output(found, as_json, show.jobs)


@app.command()
def job(job_id: str, gateway: Gateway = None, as_json: Json = False) -> None:
    """Show one job: its timeline, its attempts, its result, and why it waits."""
    from controlplane.cli import show

    show.output(ask(gateway, as_json, lambda client: client.job(job_id)), as_json, show.job)


@app.command()
def why(
    reference: Annotated[
        str, typer.Argument(help="A job id, an event id, an assertion id, or topic/partition/offset.")
    ],
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Show what led to a record, up to the submission, and what followed from it."""
    from controlplane.cli import show
    from controlplane.client import ControlPlaneError

    def work(client: Any) -> Any:
        try:
            return client.why(event=reference)
        except ControlPlaneError as error:
            if error.code != "not_found":
                raise
            return client.why(job=reference)

    show.output(ask(gateway, as_json, work), as_json, show.causation)


@app.command()
def runners(gateway: Gateway = None, as_json: Json = False) -> None:
    """List the runners."""
    from controlplane.cli import show

    show.output(ask(gateway, as_json, lambda client: client.runners().runners), as_json, show.runners)


@app.command()
def demo(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Profile Python's own standard library: over a thousand jobs, conflicting claims, causes, and an audit."""
    from controlplane.cli.demo import run_demo

    raise typer.Exit(run_demo(data_dir, as_json=as_json))


@audit_app.command("verify")
def audit_verify(gateway: Gateway = None, as_json: Json = False) -> None:
    """Fold the whole log again and compare the digest of every table with the live projection."""
    from controlplane.cli import show
    from controlplane.cli.audit import verify_live

    verdict = ask(gateway, as_json, lambda client: verify_live(client, quiet=as_json))
    show.output(verdict, as_json, show.verdict)
    raise typer.Exit(0 if verdict.agrees else 1)


@bench_app.command("e2e")
def bench_e2e(
    jobs: Annotated[int, typer.Option(min=1)] = 20_000,
    runners: Annotated[int, typer.Option(min=1)] = 2,
    agents: Annotated[int, typer.Option(min=1)] = 2,
    as_json: Json = False,
) -> None:
    """Run no-op jobs end to end; fails unless every job concluded exactly once and every step is on the log."""
    from controlplane.cli.bench import run_e2e

    raise typer.Exit(run_e2e(jobs, runners, agents, as_json=as_json))


@bench_app.command("replay")
def bench_replay(
    events: Annotated[int, typer.Option(min=1000)] = 500_000,
    written: Annotated[
        bool, typer.Option(help="Write the events straight to the log instead of running jobs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fold a log into complete projections; fails unless the digest equals the live projection's."""
    from controlplane.cli.bench_replay import run_replay

    raise typer.Exit(run_replay(events, written=written, as_json=as_json))


@bench_app.command("all")
def bench_all(jobs: int = 20_000, events: int = 500_000) -> None:
    """Measure both beside taskiq and Celery on the same machine, and print the ratios."""
    from controlplane.cli.bench import run_all

    raise typer.Exit(run_all(jobs, events))


def run() -> None:
    """Run the command."""
    from controlplane.cli import operate

    operate.add_to(app)
    app()


if __name__ == "__main__":
    run()
