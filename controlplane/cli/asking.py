"""What commands share that ask a gateway: their options, the client, and how a refusal ends a command."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.markup import escape

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document for programs.")]
Gateway = Annotated[
    str | None, typer.Option("--gateway", help="URL of the gateway.", envvar="CONTROLPLANE_GATEWAY_URL")
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of the embedded stack.", envvar="CONTROLPLANE_DATA_DIR")
]


Reason = Annotated[str, typer.Option(help="Why, for the log.")]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of", help="As the log knew it: a time (RFC 3339), or positions topic/partition/offset, comma-separated."
    ),
]


def fail(message: str, *, as_json: bool = False, code: int = 1, problem: dict[str, Any] | None = None) -> NoReturn:
    """End the command with what was expected and what was found."""
    if as_json:
        print(json.dumps({"error": problem or {"message": message}}))
    else:
        print(f"controlplane: {message}", file=sys.stderr)
    raise typer.Exit(code)


def examples(*lines: str) -> str:
    """Return the end of a command's help: command lines to learn from."""
    return "\n\n".join(["[bold]Examples[/]", *(f"[dim]$[/] [cyan]{escape(line)}[/]" for line in lines)])


def address_of(gateway: str | None) -> str:
    """Return the URL of the gateway that a command asks."""
    from controlplane.cli.finding import found_settings

    return gateway or found_settings().gateway_url


def without_answer(address: str) -> str:
    """Return what is said when nobody answers: what was expected, and how to come to it."""
    return (
        f"Expected a gateway at {address}, but nothing answers there.\n"
        "  Start the whole system on this machine:  controlplane up\n"
        "  Or name another gateway:                 --gateway URL, or CONTROLPLANE_GATEWAY_URL"
    )


def client_of(gateway: str | None) -> Any:
    """Return a client of the gateway, with the certificate of the settings or that of the stack that runs in the data folder."""
    from controlplane.cli.finding import found_settings
    from controlplane.client import Client

    chosen = found_settings()
    token = chosen.token.get_secret_value() if chosen.token else None
    try:
        return Client(gateway or chosen.gateway_url, token=token, tls=chosen.tls)
    except OSError as error:
        fail(
            f"Expected the certificate in {chosen.tls_certificate} and its authority to be readable, but: {error}.",
            code=2,
        )


def ask(gateway: str | None, as_json: bool, work: Callable[[Any], T]) -> T:
    """Ask the gateway; a refusal, or what does not come in time, ends the command with its words and exit code 1."""
    from controlplane.client import ControlPlaneError

    with client_of(gateway) as client:
        try:
            return work(client)
        except ControlPlaneError as error:
            if error.code == "no_answer" and not as_json:
                fail(without_answer(address_of(gateway)), code=3)
            fail(str(error), as_json=as_json, problem=error.problem, code=3 if error.code == "no_answer" else 1)
        except TimeoutError as error:
            fail(str(error), as_json=as_json)


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


def request(gateway: str | None, as_json: bool, method: str, path: str, body: Any = None) -> Any:
    """Return what the gateway answers at a path, as plain values."""
    return ask(gateway, as_json, lambda client: client.request(method, path, body=body))


def tell(answer: Any, as_json: bool, text: str) -> None:
    """Say what was asked for and where it stands on the log."""
    from controlplane.cli import show

    show.output(answer, as_json, lambda one: show.console.print(f"{text}, on the log at {one['position']}."))
