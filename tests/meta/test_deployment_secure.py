"""compose.secure.yaml: valid, and agreeing with the file that it is laid over and with the code."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from controlplane.local.kafka import KafkaCluster, KafkaNode, node_tls, server_properties
from controlplane.security.certificates import PRINCIPALS, ensure_certificates
from controlplane.settings import Settings
from tests.meta.repository import text
from tests.meta.test_deployment import compose, compose_specification


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
            assert {str(settings.tls.ca), str(settings.tls.certificate), str(settings.content_master_key)} <= mounted, (
                name
            )
            (identity,) = (one["source"] for one in service["secrets"] if one["target"] == "identity.pem")
            assert identity == ("admin" if name == "access-rules" else re.split(r"-", name)[0]), name


def test_prometheus_asks_the_same_with_security_on() -> None:
    plain, secure = (
        yaml.safe_load(text(f"deploy/prometheus/{name}"))["scrape_configs"]
        for name in ("prometheus.yml", "prometheus.secure.yml")
    )
    assert [
        {key: value for key, value in one.items() if key not in {"scheme", "tls_config"}} for one in secure
    ] == plain
    assert {one["scheme"] for one in secure} == {"https"}
