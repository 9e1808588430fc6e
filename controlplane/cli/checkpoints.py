"""Signed checkpoints: the log held to them, the last ones kept elsewhere, and proofs of single records for others."""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeVar

import typer

app = typer.Typer(help="Signed checkpoints of the log: verify it, keep them elsewhere.", no_args_is_help=True)
T = TypeVar("T")
FOUND_SHOWN: Final = 20

Keys = Annotated[
    Path | None, typer.Option("--key", help="PEM file of the notary's public keys; default: that of the data folder.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document for programs.")]


def _fail(message: str, *, as_json: bool, code: int = 1) -> NoReturn:
    if as_json:
        print(json.dumps({"error": {"message": message}}))
    else:
        print(f"controlplane: {message}", file=sys.stderr)
    raise typer.Exit(code)


def _ask(as_json: bool, key: Path | None, work: Callable[[Any, Any], Coroutine[Any, Any, T]]) -> T:
    """Do what needs the log and the trusted keys; what is expected and not found ends the command with words."""
    from controlplane.cli.audit import log_connection
    from controlplane.log.connection import LogUnavailable, LogUnconfigured
    from controlplane.notary.keys import KeyInvalid, public_keys, public_keys_file
    from controlplane.notary.ledger import LedgerInvalid
    from controlplane.notary.prove import NotProvable
    from controlplane.security.checkpoint import NoteInvalid
    from controlplane.settings import settings

    try:
        return asyncio.run(work(log_connection(), public_keys(key or public_keys_file(settings()))))
    except (LogUnconfigured, KeyInvalid) as error:
        _fail(str(error), as_json=as_json, code=2)
    except (LogUnavailable, LedgerInvalid, NoteInvalid, NotProvable) as error:
        _fail(str(error), as_json=as_json)


@app.command("verify")
def verify(
    anchors: Annotated[
        Path | None, typer.Option("--anchors", help="Checkpoints that `export` wrote and that were kept elsewhere.")
    ] = None,
    key: Keys = None,
    as_json: Json = False,
) -> None:
    """Read the whole log and hold every record to the signed checkpoints; 1 if one was changed, removed, inserted or moved."""
    from controlplane.cli import show
    from controlplane.notary.verify import verify_log

    kept = _read_anchors(anchors, as_json) if anchors else []
    verdict = _ask(as_json, key, lambda connection, keys: verify_log(connection, keys, kept))
    show.output(verdict, as_json, _show)
    raise typer.Exit(0 if verdict.intact else 1)


@app.command("export")
def export(
    file: Annotated[Path | None, typer.Argument(help="File to write; default: standard output.")] = None,
    key: Keys = None,
) -> None:
    """Write the last checkpoint of every partition, to be kept where nobody who runs the log can reach it."""
    import msgspec

    from controlplane.notary.verify import latest_anchors

    found = _ask(False, key, latest_anchors)
    lines = "".join(msgspec.json.encode(one).decode() + "\n" for one in found)
    if file is None:
        sys.stdout.write(lines)
        return
    try:
        file.write_text(lines)
    except OSError as error:
        _fail(f"Expected to write {file}, but: {error}.", as_json=False, code=2)
    print(f"Wrote the last checkpoints of {len(found)} partitions to {file}.")


def prove(
    event: Annotated[str, typer.Argument(help="An event id, or topic/partition/offset.")],
    output: Annotated[Path | None, typer.Option("--output", help="File to write; default: standard output.")] = None,
    key: Keys = None,
    gateway: Annotated[
        str | None, typer.Option("--gateway", help="URL of the gateway.", envvar="CONTROLPLANE_GATEWAY_URL")
    ] = None,
) -> None:
    """Write the proof that a record is in the tree that the notary signed; tools/verify_inclusion.py checks it anywhere."""
    from controlplane.notary.prove import prove as prove_record

    place = _place(event, gateway)
    proof = _ask(False, key, lambda connection, keys: prove_record(connection, place, keys))
    text = json.dumps(proof, indent=1) + "\n"
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text)
    except OSError as error:
        _fail(f"Expected to write {output}, but: {error}.", as_json=False, code=2)
    print(f"Wrote the proof of {place.topic}/{place.partition}/{place.offset} to {output}.")


def _place(reference: str, gateway: str | None) -> Any:
    """Return the position of a record, named by itself or by its event id."""
    from controlplane.cli.asking import client_of
    from controlplane.client import ControlPlaneError
    from controlplane.log.positions import PositionInvalid, parse_position

    if "/" in reference:
        try:
            return parse_position(reference)
        except PositionInvalid as error:
            _fail(str(error), as_json=False, code=2)
    try:
        with client_of(gateway) as client:
            chain = client.why(event=reference).chain
    except ControlPlaneError as error:
        _fail(str(error), as_json=False)
    for one in chain:
        if one.event_id == reference:
            return parse_position(one.position)
    _fail(f"Expected an event with the id {reference}, but there is none.", as_json=False)


def _read_anchors(file: Path, as_json: bool) -> list[Any]:
    import msgspec

    from controlplane.notary.verify import Anchor

    try:
        return [msgspec.json.decode(line, type=Anchor) for line in file.read_bytes().splitlines()]
    except (OSError, msgspec.MsgspecError) as error:
        _fail(f"Expected checkpoints as `export` writes them in {file}, but: {error}.", as_json=as_json, code=2)


def _show(verdict: Any) -> None:
    from rich.markup import escape

    from controlplane.cli import show

    word = "[green]as signed[/]" if verdict.intact else "[red]not as signed[/]"
    show.console.print(
        f"The log is {word}: {verdict.records:,} records in {verdict.partitions} partitions, {verdict.checkpoints:,} checkpoints on the log"
        + (f", {verdict.anchors} kept elsewhere." if verdict.anchors else ".")
    )
    for one in verdict.findings[:FOUND_SHOWN]:
        show.console.print(
            f"  {escape(one.origin)} offsets {one.from_offset} to {one.to_offset - 1}: {escape(one.reason)}"
        )
    if len(verdict.findings) > FOUND_SHOWN:
        show.console.print(f"  and {len(verdict.findings) - FOUND_SHOWN} more; --json shows all.")
    if verdict.unsigned_records:
        since = datetime.fromtimestamp(verdict.unsigned_since_milliseconds / 1000, UTC)
        show.console.print(
            f"{verdict.unsigned_records:,} records are not signed yet, the oldest of {since:%Y-%m-%d %H:%M:%S} UTC."
        )
