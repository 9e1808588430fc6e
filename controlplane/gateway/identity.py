"""Identities at the edge: a client certificate or a bearer token says who asks; both are checked here, without asking anybody.

A file names them (`CONTROLPLANE_IDENTITIES`, TOML): certificates by their common name, and issuers of tokens (OpenID Connect, RFC 7519) by
their keys (RFC 7517), which lie beside the file and are read again when they change. Without a file everybody may do everything.

    [[certificate]]
    name = "billing"
    tenant = "acme"
    roles = ["submit"]

    [[issuer]]
    issuer = "https://login.example.org/"
    audience = "controlplane"
    keys = "keys.json"
"""

import logging
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final

import jwt
from jwt.exceptions import PyJWKError, PyJWTError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Receive, Scope, Send

from controlplane.api.problems import Refused, problem_response, refused
from controlplane.events.header import EVERY_TENANT
from controlplane.events.identity import TENANT
from controlplane.gateway.callers import CALLER, OPEN, Caller, Role, authorise
from controlplane.security.serving import peer_name

ALGORITHMS: Final = ("EdDSA", "ES256", "ES384", "RS256", "RS384", "PS256")
"""Signatures that need a private key: whoever can check a token cannot make one."""
COOKIE: Final = "controlplane_session"
LEEWAY_SECONDS: Final = 30.0
TOKEN_LIMIT_CHARACTERS: Final = 8192
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})

logger = logging.getLogger(__name__)


class IdentitiesInvalid(ValueError):
    """Expected a file of identities that can be read, but it cannot."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _judged_tenant(name: object) -> str:
    """Return the name of a tenant, or `*`.

    Raises:
        ValueError: it is neither: what belongs to two tenants could have one name.
    """
    if name == EVERY_TENANT or (isinstance(name, str) and TENANT.fullmatch(name)):
        return str(name)
    raise ValueError(
        f"expected a tenant of 1 to 128 letters, digits and ._@+- that begins with a letter or digit, or * for all, but found {str(name)[:128]!r}"
    )


Tenant = Annotated[str, BeforeValidator(_judged_tenant)]


class CertificateEntry(_Entry):
    """What the holder of a client certificate may do."""

    name: str = Field(min_length=1, description="Common name of the certificate's subject.")
    tenant: Tenant = Field(description="Its tenant; * for all.")
    roles: frozenset[Role] = frozenset()


class IssuerEntry(_Entry):
    """Whose tokens count, and how to read them."""

    issuer: str
    audience: str
    keys: Path = Field(description="JSON Web Key Set, relative to the file.")
    name_claim: str = "sub"
    tenant_claim: str = "tenant"
    roles_claim: str = "roles"


class IdentitiesFile(_Entry):
    """Who is known."""

    certificate: tuple[CertificateEntry, ...] = ()
    issuer: tuple[IssuerEntry, ...] = ()


class _Keys:
    """The keys of an issuer, read again when their file changes."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kept = self._load()

    def _load(self) -> tuple[int, jwt.PyJWKSet]:
        return self._file.stat().st_mtime_ns, jwt.PyJWKSet.from_json(self._file.read_text())

    def read(self) -> jwt.PyJWKSet:
        """Return the keys in force.

        Raises:
            OSError, PyJWTError: the file was changed and cannot be read.
        """
        if self._file.stat().st_mtime_ns != self._kept[0]:
            self._kept = self._load()
        return self._kept[1]


class Identities:
    """Tells who makes a request."""

    def __init__(self, file: Path) -> None:
        """Read the file of identities.

        Raises:
            IdentitiesInvalid: it, or the keys of an issuer, cannot be read.
        """
        try:
            entries = IdentitiesFile.model_validate(tomllib.loads(file.read_text()))
            self._issuers = [(entry, _Keys(file.parent / entry.keys)) for entry in entries.issuer]
        except (OSError, tomllib.TOMLDecodeError, ValidationError, PyJWTError, ValueError) as error:
            raise IdentitiesInvalid(f"Expected identities in {file}, but: {error}") from error
        self._certificates = {
            entry.name: Caller(name=entry.name, tenant=entry.tenant, roles=entry.roles) for entry in entries.certificate
        }

    def of_certificate(self, name: str) -> Caller | None:
        """Return who holds a certificate with this common name, if that is known."""
        return self._certificates.get(name)

    def of_token(self, token: str) -> Caller:
        """Return who a token says its bearer is.

        Raises:
            Refused: it is not signed by an issuer that counts, is for somebody else, is over, or says no tenant.
        """
        fault = "it is of no issuer that is configured"
        try:
            claimed = jwt.decode(token, options={"verify_signature": False}).get("iss")
            for entry, keys in self._issuers:
                if entry.issuer == claimed:
                    return _caller(entry, _checked(token, entry, keys.read()))
        except (PyJWTError, OSError, ValueError) as error:
            fault = "it is no JSON Web Token" if type(error) is jwt.DecodeError else str(error)
        text = f"Expected a bearer token that counts here, but: {fault}."
        raise refused("unauthorized", text[:500], field="authorization")


def _checked(token: str, entry: IssuerEntry, keys: jwt.PyJWKSet) -> dict[str, Any]:
    wanted = jwt.get_unverified_header(token).get("kid")
    usable = [key for key in keys.keys if wanted is None or key.key_id == wanted]
    if len(usable) != 1:
        raise PyJWKError(f"its key {wanted!r} is not among the issuer's")
    claims: dict[str, Any] = jwt.decode(
        token, usable[0], algorithms=list(ALGORITHMS), audience=entry.audience, issuer=entry.issuer, leeway=LEEWAY_SECONDS,
        options={"require": ["exp", "iss", "aud", entry.name_claim, entry.tenant_claim]},
    )  # fmt: skip
    return claims


def _caller(entry: IssuerEntry, claims: dict[str, Any]) -> Caller:
    granted = claims.get(entry.roles_claim, [])
    words = granted.split() if isinstance(granted, str) else granted
    known = frozenset(Role(word) for word in words if word in set(Role))  # Others are another application's.
    tenant = _judged_tenant(claims[entry.tenant_claim])
    return Caller(name=str(claims[entry.name_claim]), tenant=tenant, roles=known)


class Doorkeeper:
    """Lets in whom the rules let in, and says to the application who that is (ASGI middleware)."""

    def __init__(self, app: ASGIApp, identities: Identities | None) -> None:
        """Guard an application; without identities everybody may do everything."""
        self._app = app
        self._identities = identities

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request as its caller, or refuse it."""
        if self._identities is None or scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            caller = self._admitted(self._identities, scope)
        except Refused as refusal:
            response = problem_response(refusal.error, refusal.status, scope["path"])
            if refusal.error.code == "unauthorized":
                response.headers["www-authenticate"] = 'Bearer realm="controlplane"'
            await response(scope, receive, send)
            return
        token = CALLER.set(caller)
        try:
            await self._app(scope, receive, send)
        finally:
            CALLER.reset(token)

    def _admitted(self, identities: Identities, scope: Scope) -> Caller:
        path, method = scope["path"], scope["method"]
        if OPEN.fullmatch(path):
            return STRANGER
        caller = self._caller(identities, scope)
        authorise(caller, method, path)
        return caller

    def _caller(self, identities: Identities, scope: Scope) -> Caller:
        headers = Headers(scope=scope)
        if (given := headers.get("authorization")) is not None:
            kind, _, token = given.partition(" ")
            if kind.lower() != "bearer" or not 0 < len(token) <= TOKEN_LIMIT_CHARACTERS:
                text = "Expected `Authorization: Bearer TOKEN`, but found something else."
                raise refused("unauthorized", text, field="authorization")
            return identities.of_token(token.strip())
        if (kept := cookie_parser(headers.get("cookie", "")).get(COOKIE)) is not None:
            if scope["method"] not in _SAFE and headers.get("sec-fetch-site") != "same-origin":
                text = "Expected a request of the console itself, but it came from another page."
                raise refused("forbidden", text, field="sec-fetch-site", expected="same-origin")
            return identities.of_token(kept)
        if (name := peer_name(scope)) is not None:
            if (caller := identities.of_certificate(name)) is not None:
                return caller
            text = f"Expected a certificate of somebody who is known here, but found {name[:200]}."
            raise refused("unauthorized", text, field="certificate", found=name)
        text = "Expected a bearer token or a client certificate, but found neither."
        raise refused("unauthorized", text, field="authorization")


STRANGER: Final = Caller(name="anonymous", tenant="", roles=frozenset(), known=False)
"""Whoever sees what everybody may see."""
