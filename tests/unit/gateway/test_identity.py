"""Who may do what at the gateway: every path under a rule, and nobody in who is not known."""

import base64
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from controlplane.api.problems import Refused
from controlplane.cli import tokens
from controlplane.gateway import identity
from controlplane.gateway.callers import ANYBODY, CALLER, OPEN, OTHERS, Caller, Role, authorise, rule_of
from controlplane.gateway.identity import Doorkeeper, Identities, IdentitiesInvalid
from controlplane.gateway.service import create_app
from controlplane.security.serving import PEER
from controlplane.settings import Settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("identities")
    file = tokens.make(made)
    file.write_text(file.read_text() + '[[certificate]]\nname = "billing"\ntenant = "acme"\nroles = ["submit"]\n')
    return made


@pytest.fixture
def identities(folder: Path) -> Identities:
    return Identities(folder / tokens.IDENTITIES_FILE)


def token(folder: Path, name: str = "ada", tenant: str = "acme", *roles: str, hours: float = 1.0) -> str:
    return tokens.signed(folder, name, tenant, list(roles), hours)


def test_every_path_under_v1_has_a_rule_of_its_own() -> None:
    paths = [
        (method.upper(), path)
        for path, methods in create_app(Settings()).openapi()["paths"].items()
        if path.startswith("/v1/") and not OPEN.fullmatch(path)
        for method in methods
    ]
    assert len(paths) > 20
    assert [path for path in paths if rule_of(*path) is OTHERS] == []


@pytest.mark.parametrize(
    ("method", "path", "needs"),
    [
        ("GET", "/v1/jobs/j", Role.READ),
        ("POST", "/v1/jobs", Role.SUBMIT),
        ("POST", "/v1/jobs/a/b/cancel", Role.SUBMIT),
        ("POST", "/v1/assertions", Role.SUBMIT),
        ("POST", "/v1/bulk", Role.OPERATE),
        ("DELETE", "/v1/schedules/s", Role.OPERATE),
        ("POST", "/v1/sql", Role.AUDIT),
        ("GET", "/v1/digest", Role.AUDIT),
        ("PUT", "/v1/limits/type:a", Role.ADMINISTER),
        ("PATCH", "/v1/jobs", Role.ADMINISTER),
        ("GET", "/v1/", Role.READ),
    ],
)
def test_what_a_request_needs(method: str, path: str, needs: Role) -> None:
    assert rule_of(method, path).role is needs
    without = Caller(name="ada", tenant="*", roles=frozenset(Role) - {needs, Role.ADMINISTER})
    if needs is not Role.READ:
        with pytest.raises(Refused) as refusal:
            authorise(without, method, path)
        assert (refusal.value.error.code, refusal.value.error.expected) == ("forbidden", needs.value)
    authorise(Caller(name="ada", tenant="*", roles=frozenset({needs})), method, path)
    authorise(ANYBODY, method, path)


def test_what_holds_for_all_tenants_is_not_one_tenants_to_change() -> None:
    with pytest.raises(Refused, match="answers for all tenants"):
        authorise(Caller(name="ada", tenant="acme", roles=frozenset(Role)), "PUT", "/v1/limits/type:a")


def test_nobody_writes_for_another_tenant_or_speaks_for_another() -> None:
    ada = Caller(name="ada", tenant="acme", roles=frozenset({Role.SUBMIT}))
    assert (ada.tenant_for(None), ada.tenant_for("acme"), ada.source_for(None)) == ("acme", "acme", "ada")
    with pytest.raises(Refused, match="your own tenant acme"):
        ada.tenant_for("umbrella")
    with pytest.raises(Refused, match="speak for yourself"):
        ada.source_for("eve")
    assert (ANYBODY.tenant_for("umbrella"), ANYBODY.tenant_for(None)) == ("umbrella", "default")


def test_a_token_says_who_asks(identities: Identities, folder: Path) -> None:
    ada = identities.of_token(token(folder, "ada", "acme", "submit", "audit", "something else"))
    assert ada == Caller(name="ada", tenant="acme", roles=frozenset({Role.SUBMIT, Role.AUDIT}))


def resigned(folder: Path, **changes: Any) -> str:
    """Return a token with other claims, rightly signed; None takes a claim away."""
    claims = jwt.decode(token(folder), options={"verify_signature": False}) | changes
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, (folder / tokens.KEY_FILE).read_text(), algorithm="EdDSA", headers={"kid": "1"})


def signed_by_hand(claims: dict[str, Any], secret: bytes) -> str:
    """Return a token signed with HMAC and any secret; the library refuses to make one with a public key."""
    parts = (json.dumps({"alg": "HS256", "kid": "1"}), json.dumps(claims))
    body = b".".join(base64.urlsafe_b64encode(part.encode()).rstrip(b"=") for part in parts)
    signature = base64.urlsafe_b64encode(hmac.digest(secret, body, "sha256")).rstrip(b"=")
    return f"{body.decode()}.{signature.decode()}"


def forged(folder: Path) -> dict[str, str]:
    """Return tokens that must not count, each with what is wrong with it."""
    claims = jwt.decode(token(folder), options={"verify_signature": False})
    public = json.dumps(json.loads((folder / "keys.json").read_text())["keys"][0])
    head, body, signature = token(folder).split(".")
    other = jwt.encode(claims, "0123456789abcdef0123456789abcdef", algorithm="HS256", headers={"kid": "1"})
    confused = signed_by_hand(claims, public.encode())
    return {
        "over": token(folder, hours=-1),
        "another audience": resigned(folder, aud="somebody else"),
        "another issuer": resigned(folder, iss="https://evil.example"),
        "no tenant": resigned(folder, tenant=None),
        "no end": resigned(folder, exp=None),
        "unsigned": jwt.encode(claims, "", algorithm="none"),
        "a secret of one's own": other,
        "the public key as secret": confused,
        "another body": f"{head}.{body[:-4]}AAAA.{signature}",
        "nonsense": "nonsense",
        "empty": "..",
    }


@pytest.mark.parametrize("fault", ["over", "another audience", "another issuer", "no tenant", "no end", "unsigned", "a secret of one's own", "the public key as secret", "another body", "nonsense", "empty"])  # fmt: skip
def test_what_is_not_signed_for_here_does_not_count(identities: Identities, folder: Path, fault: str) -> None:
    with pytest.raises(Refused) as refusal:
        identities.of_token(forged(folder)[fault])
    assert refusal.value.error.code == "unauthorized"


def test_new_keys_count_without_a_restart(tmp_path: Path) -> None:
    identities = Identities(tokens.make(tmp_path))
    old = token(tmp_path)
    assert identities.of_token(old).name == "ada"
    (tmp_path / tokens.KEY_FILE).unlink()
    tokens.make(tmp_path)
    assert identities.of_token(token(tmp_path)).name == "ada"
    with pytest.raises(Refused):
        identities.of_token(old)


STRANGE = ("acme/eu", "acme:eu", "acme,umbrella", "", "**", "/acme", "acme\n", ["acme", "umbrella"], 5, "a" * 129)
"""Names in which one tenant's would end and another's key begin, or which would be several; and none at all."""


@pytest.mark.parametrize("tenant", STRANGE, ids=repr)
def test_the_name_of_a_tenant_is_one_name(identities: Identities, folder: Path, tmp_path: Path, tenant: Any) -> None:
    with pytest.raises(Refused, match="expected a tenant of 1 to 128 letters") as refusal:
        identities.of_token(resigned(folder, tenant=tenant))
    assert refusal.value.error.code == "unauthorized"
    file = tmp_path / "identities.toml"
    file.write_text(f'[[certificate]]\nname = "billing"\ntenant = {json.dumps(tenant)}\n')
    with pytest.raises(IdentitiesInvalid, match="expected a tenant of 1 to 128 letters"):
        Identities(file)


@pytest.mark.parametrize("tenant", ["*", "acme", "5", "acme.example@eu_1+x-y", "a" * 128])
def test_what_a_tenant_may_be_called(identities: Identities, folder: Path, tenant: str) -> None:
    assert identities.of_token(resigned(folder, tenant=tenant)).tenant == tenant


@pytest.mark.parametrize("text", ["[[certificate]]\nname = 5", "nonsense", "[[issuer]]\nissuer='a'\naudience='b'\nkeys='none.json'", "[[certificate]]\nname='a'\ntenant='b'\nroles=['king']"])  # fmt: skip
def test_a_file_that_cannot_be_read_is_refused_at_the_start(tmp_path: Path, text: str) -> None:
    file = tmp_path / "identities.toml"
    file.write_text(text)
    with pytest.raises(IdentitiesInvalid, match=r"identities\.toml"):
        Identities(file)


def who() -> FastAPI:
    """Return an application that says who asks it."""
    app = FastAPI()

    async def answer() -> dict[str, str]:
        return {"name": CALLER.get().name, "tenant": CALLER.get().tenant}

    app.add_api_route("/v1/jobs", answer, methods=["GET", "POST"])
    app.add_api_route("/health", answer)
    return app


@pytest.fixture
def web(identities: Identities) -> Iterator[TestClient]:
    with TestClient(Doorkeeper(who(), identities)) as client:
        yield client


def test_the_door(web: TestClient, folder: Path) -> None:
    bearer = {"authorization": f"Bearer {token(folder, 'ada', 'acme', 'submit')}"}
    assert web.get("/v1/jobs", headers=bearer).json() == {"name": "ada", "tenant": "acme"}
    assert web.post("/v1/jobs", headers=bearer).status_code == 200
    assert web.get("/health").json()["name"] == "anonymous"
    nobody = web.get("/v1/jobs")
    assert (nobody.status_code, nobody.json()["code"]) == (401, "unauthorized")
    assert nobody.headers["www-authenticate"].startswith("Bearer")
    assert web.get("/v1/jobs", headers={"authorization": "Basic abc"}).status_code == 401
    reader = {"authorization": f"Bearer {token(folder)}"}
    assert web.post("/v1/jobs", headers=reader).json()["expected"] == "submit"


def test_a_cookie_counts_for_the_console_and_not_for_other_pages(web: TestClient, folder: Path) -> None:
    web.cookies.set(identity.COOKIE, token(folder, "ada", "acme", "submit"))
    assert web.get("/v1/jobs").json()["name"] == "ada"
    for headers, status in (
        ({}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
    ):
        assert web.post("/v1/jobs", headers=headers).status_code == status


@pytest.mark.parametrize(("name", "status"), [("billing", 200), ("eve", 401), (None, 401)])  # fmt: skip
async def test_a_certificate_counts_by_its_common_name(identities: Identities, name: str | None, status: int) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http", "path": "/v1/jobs", "raw_path": b"/v1/jobs", "method": "GET", "headers": [], "query_string": b"",
        "state": {PEER: name}, "scheme": "https", "server": ("x", 1), "root_path": "",
    }  # fmt: skip
    await Doorkeeper(who(), identities)(scope, receive, send)
    assert sent[0]["status"] == status


def test_tokens_end(folder: Path) -> None:
    claims = jwt.decode(token(folder, hours=2), options={"verify_signature": False})
    assert 7000 < claims["exp"] - time.time() < 7300


@pytest.mark.parametrize("tenant", ["acme/eu", "acme,umbrella", ""])
def test_no_token_is_issued_for_a_tenant_that_no_gateway_takes(folder: Path, tenant: str) -> None:
    data = ["--data-dir", str(folder.parent)]
    found = CliRunner().invoke(tokens.app, ["issue", "ada", "--tenant", tenant, *data])
    assert (found.exit_code, "Expected a tenant of letters" in found.output) == (2, True)
