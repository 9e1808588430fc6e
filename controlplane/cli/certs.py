"""`controlplane certs`: the authority of an installation and one identity per service."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from controlplane.cli.asking import DataDir, Json, examples, fail

app = typer.Typer(
    help="Make an authority and one identity per service, list them, renew them while everything runs.", no_args_is_help=True,
    epilog=examples(
        "controlplane certs make --host kafka-1.example --host gateway.example", "controlplane certs list", "controlplane certs renew gateway",
        "controlplane certs issue alice --pkcs12 alice.p12",
    ),
)  # fmt: skip

Folder = Annotated[
    Path | None,
    typer.Option("--folder", help="Folder of the certificates; default: CONTROLPLANE_CERTIFICATES_DIR, or certificates in the data folder."),
]  # fmt: skip
Hosts = Annotated[
    list[str] | None,
    typer.Option("--host", help="A name or address that the services are reached at; may be repeated."),
]
Names = Annotated[list[str] | None, typer.Argument(help="Identities; default: one per service, the broker's and the administrator's.")]  # fmt: skip


def _folder(folder: Path | None, data_dir: Path | None) -> Path:
    from controlplane.settings import settings

    chosen = settings()
    return folder or chosen.certificates_dir or (data_dir or chosen.data_dir) / "certificates"


def _ensure(place: Path, as_json: bool, **what: Any) -> list[Any]:
    from controlplane.security.certificates import CertificateInvalid, ensure_certificates

    try:
        return ensure_certificates(place, **what)
    except (CertificateInvalid, OSError) as error:
        fail(str(error), as_json=as_json, code=2)


@app.command("make")
def make(
    names: Names = None, hosts: Hosts = None, folder: Folder = None, data_dir: DataDir = None, as_json: Json = False
) -> None:
    """Make what is missing and renew what is due: doing it again changes nothing else."""
    from controlplane.security.certificates import LOCAL_HOSTS, PRINCIPALS

    place = _folder(folder, data_dir)
    reports = _ensure(place, as_json, names=names or PRINCIPALS, hosts=(*LOCAL_HOSTS, *(hosts or ())))
    _told(place, reports, as_json)


@app.command("renew")
def renew(
    names: Names = None, hosts: Hosts = None, folder: Folder = None, data_dir: DataDir = None, as_json: Json = False
) -> None:
    """Replace identities now, whenever they end; running services take theirs for their next connection, the broker of a stack here is told."""
    from controlplane.security.certificates import BROKER, IDENTITY_DAYS, LOCAL_HOSTS, PRINCIPALS

    place = _folder(folder, data_dir)
    chosen = tuple(names or PRINCIPALS)
    if missing := [name for name in chosen if not (place / f"{name}.pem").exists()]:
        fail(f"Expected an identity of {', '.join(missing)} in {place}, but there is none; `certs make` makes it.", as_json=as_json, code=2)  # fmt: skip
    reports = _ensure(
        place, as_json, names=chosen, hosts=(*LOCAL_HOSTS, *(hosts or ())), renew_within_days=IDENTITY_DAYS
    )
    if BROKER in chosen:
        _tell_the_broker(place, data_dir, as_json)
    _told(place, reports, as_json)


@app.command("issue")
def issue(
    name: Annotated[str, typer.Argument(help="Who it is: lower-case letters, digits, dots and dashes.")],
    pkcs12: Annotated[Path | None, typer.Option("--pkcs12", help="Also write it for a browser; its password is printed.")] = None,
    folder: Folder = None, data_dir: DataDir = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Make the identity of a person or program that asks and serves nothing."""
    from controlplane.security.identities import packed, random_password

    place = _folder(folder, data_dir)
    reports = _ensure(place, as_json, names=[name], hosts=())
    if pkcs12 is None:
        _told(place, reports, as_json)
        return
    password = random_password()
    try:
        packed_bytes = packed(place, name, password)
        pkcs12.touch(mode=0o600)
        pkcs12.write_bytes(packed_bytes)
    except OSError as error:
        fail(f"Expected to write {pkcs12}, but: {error}.", as_json=as_json, code=2)
    if not as_json:
        print(f"{pkcs12} holds the identity of {name}; its password is {password}")
    _told(place, reports, as_json, password=password)


@app.command("list")
def list_identities(folder: Folder = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """List the identities of a folder: until when each holds, who signed it, where it may serve; 1 if one has ended."""
    from rich.table import Table

    from controlplane.cli import show
    from controlplane.security.certificates import CertificateInvalid
    from controlplane.security.identities import identities

    place, now = _folder(folder, data_dir), datetime.now(UTC)
    try:
        found = identities(place)
    except (CertificateInvalid, OSError) as error:
        fail(str(error), as_json=as_json, code=2)
    if not found:
        fail(f"Expected identities in {place}, but there are none; `certs make` makes them.", as_json=as_json, code=2)

    def render(rows: list[Any]) -> None:
        table = Table("Identity", "Ends", "Days left", "Serves at", "Signed by", box=None, header_style="dim")
        for one in rows:
            days = (one.expires - now).days
            left = f"[red]{days}[/]" if days < 0 else str(days)
            table.add_row(
                one.name,
                f"{one.expires:%Y-%m-%d %H:%M}",
                left,
                ", ".join(one.hosts) or "-",
                one.authority.removeprefix("controlplane authority "),
            )
        show.console.print(table)

    show.output(found, as_json, render)
    raise typer.Exit(1 if any(one.expires <= now for one in found) else 0)


authority_app = typer.Typer(help="Replace the authority in three steps, with everything running.", no_args_is_help=True)
app.add_typer(authority_app, name="authority")


@authority_app.command("announce")
def announce(folder: Folder = None, data_dir: DataDir = None) -> None:
    """Step 1: make the next authority and have it trusted beside the present one."""
    from controlplane.security.certificates import announce_authority

    _step(folder, data_dir, announce_authority)
    print("The next authority is trusted. Once every process has ca.pem: `certs authority adopt`, then `certs renew`.")


@authority_app.command("adopt")
def adopt(folder: Folder = None, data_dir: DataDir = None) -> None:
    """Step 2: the next authority signs from now on; `certs renew` gives everybody an identity of it."""
    from controlplane.security.certificates import adopt_authority

    _step(folder, data_dir, adopt_authority)
    print("The next authority signs. `certs renew` gives everybody an identity of it; then `certs authority retire`.")


@authority_app.command("retire")
def retire(folder: Folder = None, data_dir: DataDir = None) -> None:
    """Step 3: trust only the authority that signs."""
    from controlplane.security.certificates import retire_authorities

    dropped = _step(folder, data_dir, retire_authorities)
    print(f"{dropped} authorities are no longer trusted.")


def _step(folder: Path | None, data_dir: Path | None, step: Any) -> Any:
    from controlplane.security.certificates import CertificateInvalid

    place = _folder(folder, data_dir)
    try:
        done = step(place)
    except (CertificateInvalid, OSError) as error:
        fail(str(error), code=2)
    _tell_the_broker(place, data_dir, as_json=False)
    return done


def _tell_the_broker(place: Path, data_dir: Path | None, as_json: bool) -> None:
    """Have the broker of the stack that runs with these certificates read them again; services look by themselves."""
    from controlplane.local.kafka import node_tls
    from controlplane.local.stack import find_running
    from controlplane.log.connection import LogConnection, LogUnavailable
    from controlplane.log.renewal import reload_certificates
    from controlplane.security.certificates import ADMIN, tls_files
    from controlplane.settings import settings

    running = find_running(data_dir or settings().data_dir)
    if running is None or running.certificates is None or running.kafka_bootstrap is None:
        return
    if running.certificates.resolve() != place.resolve():
        return
    files = node_tls(running.certificates)
    connection = LogConnection(bootstrap=running.kafka_bootstrap, tls=tls_files(running.certificates, ADMIN))
    try:
        asyncio.run(reload_certificates(connection, 1, str(files.keystore), str(files.truststore)))
    except LogUnavailable as error:
        fail(f"The files are new, but the broker goes on with the old ones: {error}", as_json=as_json)


def _told(place: Path, reports: list[Any], as_json: bool, **more: str) -> None:
    from controlplane.cli import show

    def render(found: dict[str, Any]) -> None:
        for one in found["identities"]:
            show.console.print(f"{one.outcome:8} {one.name:10} until {one.expires:%Y-%m-%d %H:%M} UTC")
        show.console.print(f"in {place}; ca.pem is what everybody trusts, authority.pem is what must stay secret.")

    show.output({"folder": str(place), "identities": reports, **more}, as_json, render)
