"""What commands share that ask a gateway: their options, the client, and how a refusal ends a command."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document for programs.")]
Gateway = Annotated[
    str | None, typer.Option("--gateway", help="URL of the gateway.", envvar="CONTROLPLANE_GATEWAY_URL")
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of the embedded stack.", envvar="CONTROLPLANE_DATA_DIR")
]


def fail(message: str, *, as_json: bool = False, code: int = 1, problem: dict[str, Any] | None = None) -> NoReturn:
    """End the command with what was expected and what was found."""
    if as_json:
        print(json.dumps({"error": problem or {"message": message}}))
    else:
        print(f"controlplane: {message}", file=sys.stderr)
    raise typer.Exit(code)


def gateway_url(gateway: str | None) -> str:
    """Return the URL that was given, or that of the stack that runs in the data folder, or that of the settings."""
    from controlplane.local.stack import find_running
    from controlplane.settings import settings

    if gateway:
        return gateway
    running = find_running(settings().data_dir)
    return running.addresses.get("gateway", settings().gateway_url) if running else settings().gateway_url


def client_of(gateway: str | None) -> Any:
    """Return a client of the gateway."""
    from controlplane.client import Client

    return Client(gateway_url(gateway))


def ask(gateway: str | None, as_json: bool, work: Callable[[Any], T]) -> T:
    """Ask the gateway; a refusal ends the command with its words and exit code 1."""
    from controlplane.client import ControlPlaneError

    with client_of(gateway) as client:
        try:
            return work(client)
        except ControlPlaneError as error:
            fail(str(error), as_json=as_json, problem=error.problem)
        except TimeoutError as error:
            fail(str(error), as_json=as_json, code=2)
