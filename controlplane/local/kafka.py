"""Apache Kafka in KRaft mode: its settings as a pure function of a node and its cluster, its command, its readiness."""

import base64
import os
import socket
import ssl
import struct
import uuid
from pathlib import Path
from typing import Final

import msgspec

from controlplane.local.java import FORMAT_WITHIN_SECONDS, Java, run_to_end
from controlplane.security.certificates import ADMIN, BROKER

HEAP_MIB: Final = 512
# A broker that was killed may register again only when its old session has ended: this bounds its way back.
BROKER_SESSION_MS: Final = 2_000
BROKER_HEARTBEAT_MS: Final = 500
MESSAGE_LIMIT_BYTES: Final = 1_048_588  # One MiB of records and the header of a batch.
FLUSH_INTERVAL_MS: Final = 1_000
SEGMENT_BYTES: Final = 256 * 2**20
FOR_EVER: Final = -1
PROBE_SECONDS: Final = 1.0
assert BROKER_SESSION_MS >= 4 * BROKER_HEARTBEAT_MS  # A busy machine does not fence its own broker.


def random_uuid() -> str:
    """Return a new id in the form that Kafka gives to clusters and folders."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):  # Its tools would take that for an option.
            return text


class NodeTls(msgspec.Struct, frozen=True, kw_only=True):
    """The PEM files of one broker: its PKCS#8 key followed by its certificate chain, and the CA that it trusts."""

    keystore: Path
    truststore: Path


def node_tls(certificates: Path) -> NodeTls:
    """Return the files of a broker in a folder of certificates."""
    return NodeTls(keystore=certificates / f"{BROKER}.pem", truststore=certificates / "ca.pem")


class KafkaNode(msgspec.Struct, frozen=True, kw_only=True):
    """One broker that is also a controller."""

    node_id: int
    client_port: int
    controller_port: int
    folder: Path
    host: str = "127.0.0.1"
    directory_id: str = msgspec.field(default_factory=random_uuid)
    tls: NodeTls | None = None

    @property
    def protocol(self) -> str:
        """The security protocol of its listeners."""
        return "SSL" if self.tls else "PLAINTEXT"

    @property
    def client_address(self) -> str:
        """Where clients reach it."""
        return f"{self.host}:{self.client_port}"

    @property
    def controller_address(self) -> str:
        """Where the other nodes reach its controller."""
        return f"{self.host}:{self.controller_port}"


class KafkaCluster(msgspec.Struct, frozen=True, kw_only=True):
    """The nodes that together are one Kafka, and what is the same for all of them."""

    nodes: tuple[KafkaNode, ...]
    cluster_id: str = msgspec.field(default_factory=random_uuid)
    super_users: tuple[str, ...] = (BROKER, ADMIN)

    @property
    def bootstrap(self) -> str:
        """The addresses that a client begins with."""
        return ",".join(node.client_address for node in self.nodes)

    @property
    def replicas(self) -> int:
        """How many copies the broker's own topics have."""
        return min(3, len(self.nodes))


def server_properties(node: KafkaNode, cluster: KafkaCluster) -> str:
    """Return the broker's properties file for this node of this cluster."""
    settings = _membership(node, cluster) | _topics(cluster) | _groups() | _size()
    if node.tls:
        settings |= _security(node.tls, cluster)
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _membership(node: KafkaNode, cluster: KafkaCluster) -> dict[str, object]:
    listeners = f"{node.protocol}://{node.client_address}"
    return {
        "process.roles": "broker,controller",
        "node.id": node.node_id,
        "controller.quorum.bootstrap.servers": ",".join(each.controller_address for each in cluster.nodes),
        "listeners": f"{listeners},CONTROLLER://{node.controller_address}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": f"{node.protocol}:{node.protocol},CONTROLLER:{node.protocol}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": node.protocol,
        "log.dirs": node.folder / "data",
        "broker.session.timeout.ms": BROKER_SESSION_MS,
        "broker.heartbeat.interval.ms": BROKER_HEARTBEAT_MS,
        # Without it an idle broker writes two no-op records to its disk every second.
        "metadata.max.idle.interval.ms": 0,
    }


def _topics(cluster: KafkaCluster) -> dict[str, object]:
    replicas = cluster.replicas
    return {
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": max(1, replicas - 1),
        "log.message.timestamp.type": "LogAppendTime",
        "log.retention.ms": FOR_EVER,
        "log.retention.bytes": FOR_EVER,
        "message.max.bytes": MESSAGE_LIMIT_BYTES,
        # After a kill the broker reads the newest segment of each partition again: this bounds how long that takes.
        "log.segment.bytes": SEGMENT_BYTES,
        # What a broker acknowledged survives its own death; this bounds what the machine's death can take.
        "log.flush.interval.ms": FLUSH_INTERVAL_MS,
        "log.flush.scheduler.interval.ms": FLUSH_INTERVAL_MS,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": max(1, replicas - 1),
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": max(1, replicas - 1),
        "share.coordinator.state.topic.num.partitions": 4,
    }


def _groups() -> dict[str, object]:
    return {
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1_000,
        # A group that paused for a month still knows where it was.
        "offsets.retention.minutes": 2**31 - 1,
    }


def _size() -> dict[str, object]:
    return {
        "num.network.threads": 2,
        "num.io.threads": 4,
        "num.recovery.threads.per.data.dir": 4,
        "log.cleaner.dedupe.buffer.size": 4 * 2**20,
    }


def _security(tls: NodeTls, cluster: KafkaCluster) -> dict[str, object]:
    return {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": tls.keystore,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": tls.truststore,
        "ssl.client.auth": "required",
        "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": ";".join(f"User:{name}" for name in cluster.super_users),
        "allow.everyone.if.no.acl.found": "false",
    }


def jvm_flags(node: KafkaNode) -> tuple[str, ...]:
    """Return the flags of the broker's Java runtime.

    The first compiler tier alone starts quicker, takes 50 MB less, and was as fast at 200-byte records; but the ciphers
    of TLS are quick only in the last tier.
    """
    tiers = () if node.tls else ("-XX:TieredStopAtLevel=1",)
    return (
        "-Xms64m",
        f"-Xmx{HEAP_MIB}m",
        "-XX:+UseSerialGC",
        *tiers,
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        "-Djava.awt.headless=true",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.log.kafka.server=info",
        "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.storage.internals.log=info",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
    )


def format_arguments(node: KafkaNode, cluster: KafkaCluster, properties: Path) -> tuple[str, ...]:
    """Return the arguments with which the storage tool makes an empty node of this cluster."""
    controllers = ",".join(f"{each.node_id}@{each.controller_address}:{each.directory_id}" for each in cluster.nodes)
    return (
        "format",
        "--cluster-id",
        cluster.cluster_id,
        "--config",
        str(properties),
        "--initial-controllers",
        controllers,
        "--ignore-formatted",
    )


def prepare_node(java: Java, node: KafkaNode, cluster: KafkaCluster) -> tuple[str, ...]:
    """Write the node's files, formatting its data folder when it is new, and return the command that runs it.

    Raises:
        MissingDependency: the storage tool failed; the message quotes it.
    """
    node.folder.mkdir(parents=True, exist_ok=True)
    properties = node.folder / "server.properties"
    properties.write_text(server_properties(node, cluster), encoding="utf-8")
    flags = jvm_flags(node)
    if not (node.folder / "data" / "meta.properties").exists():
        arguments = format_arguments(node, cluster, properties)
        run_to_end(java.command(flags, "kafka.tools.StorageTool", *arguments), FORMAT_WITHIN_SECONDS)
    return java.command(flags, "kafka.Kafka", str(properties))


def why_not_serving(node: KafkaNode) -> str | None:
    """Ask the broker which API versions it has; return None when it answers, else what was found instead.

    A broker handles requests only after it has caught up with its metadata and is allowed to lead partitions, so an
    answer means that topics can be made and records written.
    """
    request = struct.pack(">hhih", 18, 0, 7, -1)  # ApiVersions version 0, correlation 7, no client id
    try:
        with _connected(node) as connection:
            connection.settimeout(PROBE_SECONDS)
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = connection.recv(10)
    except OSError as error:
        return f"{node.client_address} says: {error}"
    if len(answer) < 10 or struct.unpack(">iih", answer)[1:] != (7, 0):
        return f"{node.client_address} answers {answer!r}"
    return None


def _connected(node: KafkaNode) -> socket.socket:
    plain = socket.create_connection((node.host, node.client_port), PROBE_SECONDS)
    if node.tls is None:
        return plain
    context = ssl.create_default_context(cafile=os.fspath(node.tls.truststore))
    context.check_hostname = False  # It asks its own broker, which it knows by address.
    context.load_cert_chain(node.tls.keystore)
    with plain:  # From here the secured socket owns the connection; this one is closed if there is none.
        return context.wrap_socket(plain)
