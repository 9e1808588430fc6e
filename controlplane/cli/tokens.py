"""Tokens without an identity provider: a signing key of one's own, and tokens that say who somebody is."""

import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from controlplane.cli.asking import DataDir, Json, examples, fail

ISSUER: Final = "controlplane"
AUDIENCE: Final = "controlplane"
KEY_FILE: Final = "signing-key.pem"
IDENTITIES_FILE: Final = "identities.toml"
LONGEST_HOURS: Final = 24 * 366

_FILE: Final = f"""# Who may do what at the gateway: start it with CONTROLPLANE_IDENTITIES=THIS FILE.
# Tokens of `controlplane tokens issue`; an OpenID Connect provider is one more [[issuer]] with its own keys.
[[issuer]]
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
keys = "keys.json"

# [[certificate]]
# name = "billing"        # common name of a client certificate
# tenant = "acme"
# roles = ["submit"]      # submit, operate, audit, administer; who is listed may always read
"""

app = typer.Typer(
    help="Say who may ask what of the gateway, with tokens that you sign yourself.", no_args_is_help=True,
    epilog=examples(
        "controlplane tokens init", "controlplane tokens issue ada --tenant acme --role submit --role audit",
        "CONTROLPLANE_IDENTITIES=.controlplane/identities/identities.toml controlplane up",
    ),
)  # fmt: skip


def folder_of(data_dir: Path | None) -> Path:
    """Return where the key and the file of identities lie."""
    from controlplane.settings import settings

    return (data_dir or settings().data_dir) / "identities"


def make(folder: Path) -> Path:
    """Make a signing key, its public half for the gateway, and a file of identities; returns that file."""
    import json
    import os

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from jwt.algorithms import OKPAlgorithm

    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with os.fdopen(os.open(folder / KEY_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(private)
    public = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "1", "use": "sig", "alg": "EdDSA"}
    (folder / "keys.json").write_text(json.dumps({"keys": [public]}, indent=2) + "\n")
    identities = folder / IDENTITIES_FILE
    if not identities.exists():
        identities.write_text(_FILE)
    return identities


def signed(folder: Path, name: str, tenant: str, roles: list[str], hours: float) -> str:
    """Return a token that says who its bearer is, signed with the key of the folder."""
    import jwt

    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": name, "tenant": tenant, "roles": roles, "iat": now, "exp": now + int(hours * 3600),
    }  # fmt: skip
    return jwt.encode(claims, (folder / KEY_FILE).read_text(), algorithm="EdDSA", headers={"kid": "1"})


@app.command()
def init(data_dir: DataDir = None) -> None:
    """Make a signing key and a file of identities in the data folder."""
    try:
        identities = make(folder_of(data_dir))
    except FileExistsError as error:
        fail(f"Expected no signing key yet, but there is one: {error.filename}. Remove it to make all its tokens void.")
    print(f"Made {identities}. Start the gateway with it:\n  CONTROLPLANE_IDENTITIES={identities} controlplane up")


@app.command()
def issue(
    name: Annotated[str, typer.Argument(help="Who it is for; stands as actor on every event.")],
    tenant: Annotated[str, typer.Option(help="Whose jobs and truths are seen; * for all.")] = "default",
    role: Annotated[
        list[str] | None, typer.Option(help="submit, operate, audit or administer; repeatable. Reading needs none.")
    ] = None,
    hours: Annotated[float, typer.Option(min=0.01, max=LONGEST_HOURS, help="How long it counts.")] = 12.0,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Print a token; set it as CONTROLPLANE_TOKEN, or sign in to the console with it."""
    import json

    from controlplane.events.identity import TENANT

    folder, known = folder_of(data_dir), ("read", "submit", "operate", "audit", "administer")
    if strange := [one for one in role or [] if one not in known]:
        fail(f"Expected roles out of {', '.join(known)}, but found {', '.join(strange)}.", as_json=as_json, code=2)
    if not (tenant == "*" or TENANT.fullmatch(tenant)):
        text = f"Expected a tenant of letters, digits and ._@+-, or * for all, but found {tenant}."
        fail(text, as_json=as_json, code=2)
    try:
        token = signed(folder, name, tenant, role or [], hours)
    except FileNotFoundError:
        fail(
            f"Expected a signing key in {folder}, but there is none: controlplane tokens init", as_json=as_json, code=2
        )
    print(json.dumps({"token": token}) if as_json else token)
