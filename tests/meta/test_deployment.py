"""The deployment files: valid by their schemas, and agreeing with the code that they deploy."""

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from controlplane.cli.stack import COPIED_SECONDS
from controlplane.local.kafka import KafkaCluster, KafkaNode, server_properties
from controlplane.runner import Runner
from controlplane.settings import Settings
from tests.meta.repository import ROOT, files, text

KUBERNETES_VERSIONS: Final = ("1.30", "1.33")
PREFIX: Final = "CONTROLPLANE_"


@cache
def compose() -> dict[str, Any]:
    """Return compose.yaml with its anchors resolved and its variables at their defaults."""
    content = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text("compose.yaml"))
    return dict(yaml.safe_load(content))


@cache
def manifests() -> tuple[dict[str, Any], ...]:
    """Return all objects of deploy/kubernetes."""
    names = [name for name in files() if name.startswith("deploy/kubernetes/") and name.endswith(".yaml")]
    return tuple(document for name in names for document in yaml.safe_load_all(text(name)))


def own_services() -> dict[str, dict[str, Any]]:
    """Return the services of compose.yaml that are ours."""
    return {name: service for name, service in compose()["services"].items() if service["image"] == "controlplane"}


def compose_specification() -> dict[str, Any]:
    """Return the schema of compose files."""
    package = find_spec("check_jsonschema")  # Only for the schema that it ships; its code is not needed.
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
    return dict(json.loads(path.read_text()))


def test_compose_is_valid_by_the_specification() -> None:
    jsonschema.Draft202012Validator(compose_specification()).validate(compose())


def test_compose_has_what_production_needs() -> None:
    services = compose()["services"]
    assert sum(name.startswith("kafka") for name in services) == 3
    assert sum(name.startswith("truthcore") for name in services) == 3
    assert services["jobforge"]["deploy"]["replicas"] == 2
    assert {"redis", "gateway", "prometheus", "grafana"} <= set(services)
    assert [name for name, service in own_services().items() if "healthcheck" not in service] == []


def test_probes_ask_where_the_services_answer() -> None:
    ports = {name: "8401" if name.startswith("truthcore") else "8402" for name in own_services()} | {"gateway": "8400"}
    for name, service in own_services().items():
        assert service["healthcheck"]["test"] == ["CMD", "python", "-m", "controlplane.telemetry.probe", ports[name]], (
            name
        )


def test_every_truthcore_has_a_name_of_its_own() -> None:
    named = {
        name: service["environment"].get(f"{PREFIX}TRUTHCORE_NAME")
        for name, service in own_services().items() if name.startswith("truthcore")
    }  # fmt: skip
    assert named == {name: name for name in named}
    (replicas,) = (workload for workload in workloads() if workload["metadata"]["name"] == "truthcore")
    variables = {one["name"]: one for one in replicas["spec"]["template"]["spec"]["containers"][0].get("env", ())}
    assert variables[f"{PREFIX}TRUTHCORE_NAME"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_a_replica_that_copies_another_is_not_ended_for_being_slow() -> None:
    """It answers nothing until it has its file, and one that is ended begins again."""
    (settings,) = (one["data"] for one in manifests() if one["kind"] == "ConfigMap")
    assert settings[f"{PREFIX}TRUTHCORE_SNAPSHOT"] == "peers"
    (replicas,) = (workload for workload in workloads() if workload["metadata"]["name"] == "truthcore")
    probe = replicas["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= COPIED_SECONDS


def allowed(direction: str, name: str) -> set[tuple[str, int]]:
    """Return to whom a workload may speak, or who may speak to it, with the port: a workload, a namespace, or anybody."""
    found = set()
    for policy in (one["spec"] for one in manifests() if one["kind"] == "NetworkPolicy"):
        if policy["podSelector"] not in ({}, {"matchLabels": {"app.kubernetes.io/name": name}}):
            continue
        for rule in policy.get(direction, []):
            peers = rule.get("to" if direction == "egress" else "from") or [
                {"anybody": {"matchLabels": {"": "anybody"}}}
            ]
            for peer in peers:
                (selector,) = peer.values()
                (label,) = selector["matchLabels"].items()
                who = "clients" if label == ("controlplane/client", "true") else label[1]
                found |= {(who, port["port"]) for port in rule["ports"]}
    return found


def test_everybody_may_speak_to_whom_the_flow_needs_and_to_nobody_else() -> None:
    (settings,) = (one["data"] for one in manifests() if one["kind"] == "ConfigMap")
    kafka = int(settings[f"{PREFIX}KAFKA_BOOTSTRAP"].rpartition(":")[2])
    truthcores = {int(url.rpartition(":")[2]) for url in settings[f"{PREFIX}TRUTHCORE_URLS"].split(",")}
    assert truthcores == {8401}
    everybody = {("kube-system", 53), ("anybody", kafka)}
    outwards = {"gateway": {("truthcore", 8401)}, "truthcore": {("truthcore", 8401)}, "jobforge": {("anybody", 6379)}}
    inwards = {"gateway": {("clients", 8400)}, "truthcore": {("gateway", 8401), ("truthcore", 8401)}}
    asked = {("monitoring", port) for port in (8400, 8401, 8402)}
    for workload in workloads():
        name = workload["metadata"]["name"]
        assert allowed("egress", name) == everybody | outwards.get(name, set()), name
        assert allowed("ingress", name) == asked | inwards.get(name, set()), name
        (port,) = workload["spec"]["template"]["spec"]["containers"][0]["ports"]
        assert ("monitoring", port["containerPort"]) in asked, name


def test_truthcore_is_reached_by_the_gateway_its_peers_and_prometheus_alone() -> None:
    reaching = [
        peer
        for policy in manifests()
        if policy["kind"] == "NetworkPolicy"
        and policy["spec"]["podSelector"] in ({}, {"matchLabels": {"app.kubernetes.io/name": "truthcore"}})
        for rule in policy["spec"].get("ingress", [])
        for peer in rule["from"]
    ]
    assert sorted(str(next(iter(next(iter(peer.values()))["matchLabels"].values()))) for peer in reaching) == [
        "gateway", "monitoring", "truthcore",
    ]  # fmt: skip


def test_nothing_is_reachable_from_other_hosts() -> None:
    ports = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("broker", ["kafka-1", "kafka-2", "kafka-3"])
def test_the_brokers_keep_the_promises_that_the_embedded_one_keeps(broker: str, tmp_path: Path) -> None:
    nodes = tuple(
        KafkaNode(node_id=number, client_port=9092, controller_port=9093, folder=tmp_path) for number in (1, 2, 3)
    )
    properties = server_properties(nodes[0], KafkaCluster(nodes=nodes))
    embedded = dict(line.split("=", 1) for line in properties.splitlines())
    written = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in compose()["services"][broker]["environment"].items()
        if name.startswith("KAFKA_")
    }
    promises = {
        name
        for name in embedded
        if name.startswith(("auto.", "default.", "min.", "log.message.", "log.retention.", "message.", "group."))
        or name.endswith((".replication.factor", ".min.isr", "retention.minutes"))
    }
    assert {name: written.get(name) for name in promises} == {name: embedded[name] for name in promises}


def test_every_variable_is_a_setting_of_the_code() -> None:
    deployed = [
        name for name in files() if name in {"compose.yaml", "compose.secure.yaml"} or name.startswith("deploy/")
    ]
    named = {
        (file, variable)
        for file in deployed
        for variable in re.findall(rf"\b{PREFIX}([A-Z][A-Z_]*[A-Z])\b", text(file))
    }
    assert {variable for _, variable in named} >= {"KAFKA_BOOTSTRAP", "REDIS_URL", "TRUTHCORE_URLS"}
    assert sorted(f"{file}: {v}" for file, v in named if v.lower() not in Settings.model_fields) == []


def environments() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each service of compose.yaml, and the settings of Kubernetes, with their environment."""
    for name, service in own_services().items():
        yield name, service["environment"]
    for manifest in manifests():
        if manifest["kind"] == "ConfigMap":
            yield manifest["metadata"]["name"], manifest["data"]


def test_every_environment_is_accepted_by_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    image = dict(re.findall(rf"({PREFIX}[A-Z_]+)=(\S+)", text("deploy/Dockerfile")))
    assert image
    for _, environment in environments():
        with monkeypatch.context() as patch:
            for name, value in (image | environment).items():
                patch.setenv(name, value)
            settings = Settings()
        assert settings.kafka_bootstrap
        assert settings.kafka_replication == 3
        assert settings.gateway_host == settings.truthcore_host == settings.health_host == "0.0.0.0"  # noqa: S104


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_manifests_are_valid_by_the_schemas_of_kubernetes(version: str) -> None:
    checked = 0
    for manifest in manifests():
        if not manifest["apiVersion"].startswith(("keda.sh/", "kustomize.config.k8s.io/")):
            kubernetes_validate.validate(manifest, version, strict=True)
            checked += 1
    assert checked >= 15


def test_a_wrong_manifest_is_refused() -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "Service", "spec": {"prots": []}}, "1.33", strict=True
        )


def test_kustomization_names_every_file() -> None:
    (kustomization,) = (manifest for manifest in manifests() if manifest["kind"] == "Kustomization")
    folder = ROOT / "deploy" / "kubernetes"
    assert sorted(kustomization["resources"]) == sorted(
        path.name for path in folder.glob("*.yaml") if path.name != "kustomization.yaml"
    )


def workloads() -> list[dict[str, Any]]:
    """Return what runs our image."""
    return [manifest for manifest in manifests() if manifest["kind"] in {"Deployment", "StatefulSet"}]


def test_every_workload_is_probed_confined_and_protected_from_disruption() -> None:
    protected = {
        manifest["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"]
        for manifest in manifests()
        if manifest["kind"] == "PodDisruptionBudget"
    }
    assert {workload["metadata"]["name"] for workload in workloads()} == protected
    for workload in workloads():
        pod = workload["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert {"startupProbe", "livenessProbe", "readinessProbe", "resources"} <= set(container)
        assert pod["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        claimed = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        assert mounted == {volume["name"] for volume in pod["volumes"]} | claimed


def deployed_commands() -> dict[str, list[str]]:
    """Return what each service of compose.yaml and each workload of Kubernetes runs."""
    composed = {f"compose {name}": service["command"] for name, service in own_services().items()}
    clustered = {
        f"kubernetes {workload['metadata']['name']}": workload["spec"]["template"]["spec"]["containers"][0]["args"]
        for workload in workloads()
    }
    return composed | clustered


def test_what_is_deployed_can_be_run() -> None:
    packages = {
        "jobforge": "jobforge_agent",
        "truthcore": "truthcore_projector",
        "gateway": "gateway",
        "notary": "notary",
    }
    for where, (command, argument) in deployed_commands().items():
        if command == "service":
            assert callable(import_module(f"controlplane.{packages[argument]}.service").run), where
        else:
            module, _, name = argument.partition(":")
            assert command == "runner", where
            assert isinstance(getattr(import_module(module), name), Runner), where


class Strict(BaseModel):
    """A part of KEDA's ScaledObject; what is not named here is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ScaleTarget(Strict):
    """What is scaled."""

    name: str


class PrometheusMetadata(Strict):
    """KEDA's Prometheus scaler; its numbers are strings."""

    serverAddress: str = Field(pattern="^https?://")  # noqa: N815 -- KEDA's names
    query: str
    threshold: str = Field(pattern=r"^\d+(\.\d+)?$")
    activationThreshold: str = Field(pattern=r"^\d+(\.\d+)?$")  # noqa: N815


class Trigger(Strict):
    """One reason to scale."""

    type: str = Field(pattern="^prometheus$")
    metadata: PrometheusMetadata


class Fallback(Strict):
    """How many there are while the metric cannot be read."""

    failureThreshold: int = Field(gt=0)  # noqa: N815
    replicas: int = Field(gt=0)


class ScaledObjectSpec(Strict):
    """https://keda.sh/docs/latest/reference/scaledobject-spec/"""

    scaleTargetRef: ScaleTarget  # noqa: N815
    minReplicaCount: int = Field(ge=1)  # noqa: N815
    maxReplicaCount: int = Field(ge=1)  # noqa: N815
    pollingInterval: int  # noqa: N815
    cooldownPeriod: int  # noqa: N815
    fallback: Fallback
    advanced: dict[str, Any]
    triggers: list[Trigger]


def test_runners_are_scaled_by_what_exists() -> None:
    (scaled,) = (manifest for manifest in manifests() if manifest["kind"] == "ScaledObject")
    spec = ScaledObjectSpec.model_validate(scaled["spec"])
    assert spec.scaleTargetRef.name in {workload["metadata"]["name"] for workload in workloads()}
    assert spec.minReplicaCount <= spec.fallback.replicas <= spec.maxReplicaCount
    behavior = spec.advanced["horizontalPodAutoscalerConfig"]["behavior"]
    autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "x"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"},
            "maxReplicas": spec.maxReplicaCount,
            "behavior": behavior,
        },
    }
    kubernetes_validate.validate(autoscaler, KUBERNETES_VERSIONS[-1], strict=True)


def test_the_image_is_built_from_files_that_exist_and_runs_as_nobody() -> None:
    dockerfile = text("deploy/Dockerfile")
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert [source for source in copied if not (ROOT / source).exists()] == []
    let_through = {line[1:] for line in text("deploy/Dockerfile.dockerignore").splitlines() if line.startswith("!")}
    assert set(copied) == let_through
    assert re.search(r"^USER 65532:65532$", dockerfile, re.MULTILINE)
    assert re.search(r"^ARG PYTHON=3\.\d+\.\d+-slim-\w+$", dockerfile, re.MULTILINE), "Expected one exact base image."
    assert dockerfile.count("--require-hashes") == 2


def test_metrics_are_collected_from_every_service_of_ours() -> None:
    scraped = text("deploy/prometheus/prometheus.yml")
    assert [name for name in own_services() if not re.search(rf"\b{name}\b", scraped)] == []


def test_alert_rules_say_what_they_mean() -> None:
    groups = yaml.safe_load(text("deploy/prometheus/alerts.yml"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert rules
    for rule in rules:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"].endswith(".")
