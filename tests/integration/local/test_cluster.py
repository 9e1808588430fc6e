"""The same settings, grown by configuration alone: client certificates and permissions, and three brokers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from controlplane.local.java import java_environment
from controlplane.local.kafka import KafkaCluster, KafkaNode, NodeTls, prepare_node, why_not_serving
from controlplane.local.ports import choose_port
from controlplane.local.process import NEVER, Probe
from controlplane.local.supervisor import Supervisor
from controlplane.local.training import ready_java

Settings = dict[str, str | int | float | bool]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with Supervisor(log_folder=tmp_path / "logs") as supervisor:
        yield supervisor
        for child in supervisor.children.values():
            child.kill()  # The last node of a cluster that stops in order waits for a majority that is gone.


def cluster_of(size: int, folder: Path, tls: NodeTls | None = None) -> KafkaCluster:
    ports: list[int] = []
    while len(ports) < 2 * size:
        ports.append(choose_port(None, ports))
    nodes = tuple(
        KafkaNode(
            node_id=number,
            client_port=ports.pop(),
            controller_port=ports.pop(),
            folder=folder / f"node-{number}",
            tls=tls,
        )
        for number in range(1, size + 1)
    )
    return KafkaCluster(nodes=nodes)


def serving(node: KafkaNode) -> Probe:
    return lambda: why_not_serving(node)


def start(supervisor: Supervisor, cluster: KafkaCluster) -> None:
    java = ready_java()
    for node in cluster.nodes:
        supervisor.add(
            f"kafka-{node.node_id}",
            prepare_node(java, node, cluster),
            whole_environment=java_environment(),
            ready=serving(node),
            restart=NEVER,
        )
    supervisor.wait_ready()


def issue(authority: trustme.CA, name: str, folder: Path) -> Path:
    """Write the PKCS#8 key and the certificate chain of a service into one file."""
    issued = authority.issue_cert("127.0.0.1", common_name=name)
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
    path = folder / f"{name}.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + chain)
    return path


def outcome_of_write(settings: Settings, topic: str, values: list[bytes]) -> set[str]:
    """Write and return the names of the errors, or "written"."""
    outcomes: list[str] = []
    producer = Producer(settings | {"message.timeout.ms": 20_000})
    for value in values:
        producer.produce(
            topic, value, on_delivery=lambda error, _message: outcomes.append(error.name() if error else "written")
        )
    assert producer.flush(30) == 0
    assert len(outcomes) == len(values)
    return set(outcomes)


def test_only_services_with_a_certificate_and_permission_may_write(supervisor: Supervisor, tmp_path: Path) -> None:
    authority = trustme.CA()
    truststore = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(truststore))
    cluster = cluster_of(1, tmp_path, NodeTls(keystore=issue(authority, "broker", tmp_path), truststore=truststore))
    start(supervisor, cluster)

    def client(name: str) -> Settings:
        own = str(issue(authority, name, tmp_path))
        return {
            "bootstrap.servers": cluster.bootstrap,
            "security.protocol": "ssl",
            "ssl.ca.location": str(truststore),
            "ssl.certificate.location": own,
            "ssl.key.location": own,
        }

    admin = AdminClient(client("broker"))
    admin.create_topics([NewTopic("routing", 1, 1)])["routing"].result(20)
    may_write = AclBinding(
        ResourceType.TOPIC,
        "routing",
        ResourcePatternType.LITERAL,
        "User:jobforge",
        "*",
        AclOperation.WRITE,
        AclPermissionType.ALLOW,
    )
    admin.create_acls([may_write])[may_write].result(20)
    assert outcome_of_write(client("jobforge"), "routing", [b"x"]) == {"written"}
    refusals = outcome_of_write(client("runner"), "routing", [b"x"])
    assert refusals == {"TOPIC_AUTHORIZATION_FAILED"}
    errors: list[KafkaError] = []
    plain = Producer({"bootstrap.servers": cluster.bootstrap, "error_cb": errors.append, "message.timeout.ms": 1_000})
    plain.produce("routing", b"x")
    plain.flush(20)
    assert errors, "a client without TLS was let in"


def test_three_brokers_go_on_without_one(supervisor: Supervisor, tmp_path: Path) -> None:
    cluster = cluster_of(3, tmp_path)
    start(supervisor, cluster)
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    admin.create_topics([NewTopic("kept", 3, 3)])["kept"].result(20)
    settings: Settings = {"bootstrap.servers": cluster.bootstrap, "acks": "all"}
    assert outcome_of_write(settings, "kept", [b"before"] * 30) == {"written"}
    supervisor["kafka-1"].kill()
    assert outcome_of_write(settings, "kept", [b"while"] * 30) == {"written"}
    supervisor["kafka-1"].start()
    assert outcome_of_write(settings, "kept", [b"after"] * 30) == {"written"}
