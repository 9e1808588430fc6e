"""compose.secure.yaml: valid, and agreeing with the file that it is laid over and with the code."""

import re
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from controlplane.cli.tokens import make
from controlplane.local.kafka import KafkaCluster, KafkaNode, node_tls, server_properties
from controlplane.security.certificates import PRINCIPALS, ensure_certificates
from controlplane.settings import Settings
from tests.meta.repository import files_named, text
from tests.meta.test_deployment import compose, compose_specification, manifests, workloads


@cache
def overlay() -> dict[str, Any]:
    """Return compose.secure.yaml with its anchors resolved."""
    return dict(yaml.safe_load(text("compose.secure.yaml")))


@cache
def secured() -> dict[str, Any]:
    """Return both files as Docker merges what matters here: mappings by key, lists one after the other, everything else by the second."""
    return dict(merged(compose(), overlay()))


def merged(first: Any, second: Any) -> Any:
    """Return the second merged into the first."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first | {name: merged(first.get(name), one) for name, one in second.items()}
    if (
        isinstance(first, list)
        and isinstance(second, list)
        and first
        and first[0] not in {"CMD", "CMD-SHELL", "service", "valkey-server"}
    ):
        return [*first, *second]
    return second


@pytest.mark.parametrize("document", [overlay, secured], ids=["alone", "laid over"])
def test_it_is_valid_by_the_specification(document: Callable[[], dict[str, Any]]) -> None:
    jsonschema.Draft202012Validator(compose_specification()).validate(document())


@pytest.mark.parametrize("document", [compose, secured], ids=["plain", "secure"])
def test_everything_is_confined_and_bounded(document: Callable[[], dict[str, Any]]) -> None:
    for name, service in document()["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert "healthcheck" in service or name == "access-rules", name
        assert service.get("read_only") or name.startswith("kafka"), name


def test_the_secure_brokers_are_those_that_the_embedded_one_is_when_secured(tmp_path: Path) -> None:
    node = KafkaNode(
        node_id=1, client_port=9092, controller_port=9093, folder=tmp_path, tls=node_tls(Path("/run/secrets"))
    )
    embedded = dict(line.split("=", 1) for line in server_properties(node, KafkaCluster(nodes=(node,))).splitlines())
    promises = {
        name: value for name, value in embedded.items() if name.startswith(("ssl.", "authorizer.", "super.", "allow."))
    }
    assert len(promises) >= 8
    for broker in ("kafka-1", "kafka-2", "kafka-3"):
        environment = {
            name.removeprefix("KAFKA_").lower().replace("_", "."): value.replace("$$", "$")
            for name, value in secured()["services"][broker]["environment"].items()
        }
        assert {name: environment.get(name) for name in promises} == promises
        assert "PLAINTEXT" not in str(environment)
        assert environment["listener.security.protocol.map"] == "SECURE:SSL,CONTROLLER:SSL"


def test_the_secure_files_are_those_that_the_commands_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_certificates(tmp_path, (*PRINCIPALS, "prometheus", "redis"))
    made = {path.name for path in tmp_path.iterdir()}
    named = {Path(one["file"]) for one in overlay()["secrets"].values()}
    assert {path.name for path in named if path.parent.name == "certificates"} <= made
    assert {path.parts[0] for path in named} == {"secrets"}
    assert "/secrets/" in text(".gitignore").splitlines()
    for name, service in secured()["services"].items():
        mounted = {f"/run/secrets/{one['target']}" for one in service.get("secrets", [])}
        if service["image"] == "controlplane":
            with monkeypatch.context() as patch:
                for variable, value in service["environment"].items():
                    patch.setenv(variable, value)
                settings = Settings()
            assert settings.tls is not None
            named_by_settings = {
                settings.tls.ca,
                settings.tls.certificate,
                settings.content_master_key,
                settings.identities,
            }
            assert {str(one) for one in named_by_settings if one is not None} <= mounted, name
            (identity,) = (one["source"] for one in service["secrets"] if one["target"] == "identity.pem")
            assert identity == ("admin" if name == "access-rules" else re.split(r"-", name)[0]), name


def recipe() -> str:
    """Return the commands that compose.secure.yaml says to give once."""
    return "\n".join(line.lstrip("# ") for line in text("compose.secure.yaml").splitlines() if line.startswith("#   "))


def given(name: str) -> set[str]:
    """Return the files and folders of the host that a service gets to see, with security on."""
    service = secured()["services"][name]
    secrets = {overlay()["secrets"][one["source"]]["file"] for one in service.get("secrets", [])}
    volumes = {one.partition(":")[0] for one in service.get("volumes", []) if one.startswith(".")}
    return {one.removeprefix("./") for one in secrets | volumes}


def test_whoever_checks_tokens_cannot_make_them(tmp_path: Path) -> None:
    file = make(tmp_path / "identities")
    made = {f"secrets/identities/{path.name}" for path in file.parent.iterdir()}
    signs = {"secrets/identities/signing-key.pem", "secrets/certificates/authority.pem"}
    assert "secrets/identities/signing-key.pem" in made
    for name in secured()["services"]:
        for one in given(name):
            assert not any(key == one or key.startswith(f"{one.rstrip('/')}/") for key in signs), f"{name}: {one}"
    assert given("gateway") & made == made - signs
    assert [name for name in secured()["services"] if given(name) & made] == ["gateway"]
    (identities,) = (one for one in secured()["services"]["gateway"]["secrets"] if one["source"] == "identities")
    entries = tomllib.loads(file.read_text())["issuer"]
    beside = {Path("/run/secrets", identities["target"]).parent / entry["keys"] for entry in entries}
    assert beside <= {Path("/run/secrets", one["target"]) for one in secured()["services"]["gateway"]["secrets"]}
    opened = recipe().index("chmod -R g+rX secrets")
    closed = recipe().index("chmod 600 ")
    assert opened < closed, "Expected what signs to be closed again behind what opens the folder to the containers."
    assert set(recipe()[closed:].splitlines()[0].split()[2:]) == signs


def opens_contents(arguments: list[str]) -> bool:
    """Say whether a command is one of those that open the content store."""
    package = arguments[1] if arguments[0] == "service" else arguments[0]
    package = {"jobforge": "jobforge_agent", "truthcore": "truthcore_projector"}.get(package, package)
    return package in {
        name.split("/")[1] for name in files_named(".py")
        if name.startswith("controlplane/") and "ContentStore.from_settings(" in text(name)
    }  # fmt: skip


@pytest.mark.parametrize("document", [compose, secured], ids=["plain", "secure"])
def test_only_who_opens_contents_is_given_the_key(document: Callable[[], dict[str, Any]]) -> None:
    having = set()
    for name, service in document()["services"].items():
        if service["image"] == "controlplane":
            variable = "CONTROLPLANE_CONTENT_MASTER_KEY" in service["environment"]
            shared = "contents:/contents" in service.get("volumes", [])
            secret = "master-key" in {one["source"] for one in service.get("secrets", [])}
            assert variable == shared == opens_contents(service["command"]), name
            assert secret == (variable and document is secured), name
            having |= {name} if variable else set()
    assert having == {"gateway", "runner-parser", "runner-scanner"}


def test_in_kubernetes_each_gets_its_own_secrets_only() -> None:
    for workload in workloads():
        name, pod = workload["metadata"]["name"], workload["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        secrets = {one["secret"]["secretName"] for one in pod["volumes"] if "secret" in one}
        secrets |= {one["secretRef"]["name"] for one in container["envFrom"] if "secretRef" in one}
        variables = {one["name"] for one in container.get("env", [])}
        opens = opens_contents(container["args"])
        assert ("content-master-key" in secrets) == ("CONTROLPLANE_CONTENT_MASTER_KEY" in variables) == opens, name
        own = {"gateway": {"identities"}, "jobforge": {"redis"}, "notary": {"notary-key"}}.get(name, set())
        assert secrets == {f"kafka-identity-{name}"} | own | ({"content-master-key"} if opens else set()), name
    (settings,) = (one["data"] for one in manifests() if one["kind"] == "ConfigMap")
    assert not {name for name in settings if name.endswith(("_MASTER_KEY", "_REDIS_URL", "_TOKEN", "_IDENTITIES"))}
    assert "signing-key" not in text("deploy/kubernetes/settings.yaml")


def test_prometheus_asks_the_same_with_security_on() -> None:
    plain, secure = (
        yaml.safe_load(text(f"deploy/prometheus/{name}"))["scrape_configs"]
        for name in ("prometheus.yml", "prometheus.secure.yml")
    )
    assert [
        {key: value for key, value in one.items() if key not in {"scheme", "tls_config"}} for one in secure
    ] == plain
    assert {one["scheme"] for one in secure} == {"https"}
