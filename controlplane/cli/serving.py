"""Commands that run something here: the whole system, one service, a runner, the demo."""

import signal
import sys
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from controlplane.cli.asking import DataDir, Json, fail

if TYPE_CHECKING:
    from controlplane.cli.stack import SystemStack

PANEL = "Run it"
LOOK_AT_CERTIFICATES_SECONDS: Final = 3600.0


def renew(stack: "SystemStack") -> None:
    """Renew the certificates of a stack that are due; what prevents it is said and tried again later."""
    from controlplane.log.connection import LogUnavailable

    try:
        for name in stack.embedded.renew_certificates():
            print(f"The certificate of {name} was renewed.")
    except (LogUnavailable, OSError) as error:
        print(f"controlplane: certificates are due, but: {error}", file=sys.stderr)


def up(
    data_dir: DataDir = None,
    agents: Annotated[int, typer.Option(min=1, help="JobForge processes.")] = 1,
    secure: Annotated[
        bool | None,
        typer.Option(
            "--secure/--plain",
            help="TLS with client certificates and least rights everywhere; default: CONTROLPLANE_SECURE.",
        ),
    ] = None,
    replicas: Annotated[
        int,
        typer.Option(
            min=1, max=16, help="TruthCore processes, each with a file of its own; of each shard, if there are any."
        ),
    ] = 1,
    shards: Annotated[
        int, typer.Option(min=1, max=16, help="Parts that the log is kept in, each by TruthCore processes of its own.")
    ] = 1,
) -> None:
    """Start everything on this machine: broker, store, JobForge, TruthCore, gateway and console. Ctrl-C stops it."""
    from controlplane.cli.stack import SystemStack
    from controlplane.local.errors import EmbeddedStackError
    from controlplane.settings import settings

    chosen = settings() if secure is None else settings().model_copy(update={"secure": secure})
    folder = data_dir or chosen.data_dir
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"Starting in {folder} (the first time, Kafka is downloaded: about 45 MB).")
    try:
        with SystemStack(chosen, folder, agents=agents, replicas=replicas, shards=shards) as stack:
            print(f"\n  console   {stack.gateway_url}/console/\n  HTTP      {stack.gateway_url}/docs")
            print(f"  Kafka     {stack.kafka_bootstrap}\n  logs      {folder / 'logs'}\n")
            if stack.certificates:
                print(f"  TLS       {stack.certificates} (the commands find their certificate there by themselves)\n")
            print(
                "Start a runner in another terminal:  controlplane runner package.module:runner\nCtrl-C stops everything."
            )
            while True:
                time.sleep(LOOK_AT_CERTIFICATES_SECONDS)
                renew(stack)
    except KeyboardInterrupt:
        print("Stopped.")
    except EmbeddedStackError as error:
        fail(str(error))


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


def runner(
    place: Annotated[str, typer.Argument(help="package.module:runner")],
    slots: Annotated[int | None, typer.Option(min=1, help="Attempts at once, instead of what the runner says.")] = None,
) -> None:
    """Run a runner process: your handlers, on the stack that runs here or on the one that the settings name."""
    from controlplane.cli.finding import Service, found_settings
    from controlplane.log.connection import LogUnavailable, LogUnconfigured
    from controlplane.runner.service import CapabilityInvalid, RunnerMissing, run

    try:
        run(found_settings(Service.RUNNER), place, slots=slots)
    except (RunnerMissing, CapabilityInvalid, LogUnconfigured, LogUnavailable) as error:
        fail(str(error), code=2)


demo_app = typer.Typer(help="Show what this does, on code that is installed here.", invoke_without_command=True)


@demo_app.callback()
def demo(context: typer.Context, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Profile Python's own standard library: over a thousand jobs, conflicting claims, causes, and an audit."""
    if context.invoked_subcommand is not None:
        return
    from controlplane.cli.demo import run_demo

    raise typer.Exit(run_demo(data_dir, as_json=as_json))


@demo_app.command()
def corpus(
    packages: Annotated[
        str, typer.Option(help="Names of installed packages, separated by commas; by default all.")
    ] = "",
    truths: Annotated[int | None, typer.Option(min=1, help="Stop at about so many truths.")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Know every module, class and function of installed packages, from two scanners that disagree, and ask questions about them."""
    from controlplane.cli.corpus import run_corpus

    names = [one.strip() for one in packages.split(",") if one.strip()]
    raise typer.Exit(run_corpus(names, truths, data_dir, as_json=as_json))


def add_to(app: typer.Typer) -> None:
    """Give the application these commands."""
    for command in (up, runner, service):
        app.command(rich_help_panel=PANEL)(command)
    app.add_typer(demo_app, name="demo", rich_help_panel=PANEL)
