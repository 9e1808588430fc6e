"""The broker's settings are a function of a node and its cluster."""

from pathlib import Path

import pytest

from controlplane.local.kafka import (
    KafkaCluster,
    KafkaNode,
    NodeTls,
    format_arguments,
    jvm_flags,
    random_uuid,
    server_properties,
    why_not_serving,
)
from controlplane.local.ports import choose_port


def node(number: int, *, tls: NodeTls | None = None) -> KafkaNode:
    return KafkaNode(
        node_id=number,
        client_port=9000 + number,
        controller_port=9100 + number,
        folder=Path(f"/data/{number}"),
        directory_id=f"directory-{number}",
        tls=tls,
    )


def settings(of: KafkaNode, cluster: KafkaCluster) -> dict[str, str]:
    lines = server_properties(of, cluster).splitlines()
    pairs = dict(line.split("=", 1) for line in lines)
    assert len(pairs) == len(lines), "a setting is written twice"
    return pairs


def test_one_node_is_a_whole_cluster() -> None:
    alone = node(1)
    found = settings(alone, KafkaCluster(nodes=(alone,)))
    expected = {
        "node.id": "1",
        "listeners": "PLAINTEXT://127.0.0.1:9001,CONTROLLER://127.0.0.1:9101",
        "advertised.listeners": "PLAINTEXT://127.0.0.1:9001",
        "controller.quorum.bootstrap.servers": "127.0.0.1:9101",
        "log.dirs": "/data/1/data",
        "default.replication.factor": "1",
        "min.insync.replicas": "1",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "share.coordinator.state.topic.replication.factor": "1",
    }
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("auto.create.topics.enable", "false"),
        ("log.message.timestamp.type", "LogAppendTime"),
        ("log.retention.ms", "-1"),
        ("log.retention.bytes", "-1"),
        ("offsets.retention.minutes", "2147483647"),
        ("message.max.bytes", "1048588"),
        ("group.initial.rebalance.delay.ms", "0"),
    ],
)
def test_promised_setting(name: str, value: str) -> None:
    alone = node(1)
    assert settings(alone, KafkaCluster(nodes=(alone,)))[name] == value


def test_three_nodes_know_each_other_and_copy_everything() -> None:
    nodes = (node(1), node(2), node(3))
    cluster = KafkaCluster(nodes=nodes, cluster_id="cluster")
    found = settings(nodes[1], cluster)
    assert found["controller.quorum.bootstrap.servers"] == "127.0.0.1:9101,127.0.0.1:9102,127.0.0.1:9103"
    assert found["listeners"] == "PLAINTEXT://127.0.0.1:9002,CONTROLLER://127.0.0.1:9102"
    assert found["default.replication.factor"] == "3"
    assert found["min.insync.replicas"] == "2"
    assert found["transaction.state.log.min.isr"] == "2"
    assert cluster.bootstrap == "127.0.0.1:9001,127.0.0.1:9002,127.0.0.1:9003"
    arguments = format_arguments(nodes[1], cluster, Path("server.properties"))
    assert arguments[arguments.index("--initial-controllers") + 1] == (
        "1@127.0.0.1:9101:directory-1,2@127.0.0.1:9102:directory-2,3@127.0.0.1:9103:directory-3"
    )


def test_tls_lets_in_only_named_clients() -> None:
    secured = node(1, tls=NodeTls(keystore=Path("broker.pem"), truststore=Path("ca.pem")))
    found = settings(secured, KafkaCluster(nodes=(secured,), super_users=("broker", "admin")))
    expected = {
        "listeners": "SSL://127.0.0.1:9001,CONTROLLER://127.0.0.1:9101",
        "listener.security.protocol.map": "SSL:SSL,CONTROLLER:SSL",
        "inter.broker.listener.name": "SSL",
        "ssl.client.auth": "required",
        "ssl.keystore.location": "broker.pem",
        "ssl.truststore.location": "ca.pem",
        "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/",
        "super.users": "User:broker;User:admin",
        "allow.everyone.if.no.acl.found": "false",
    }
    assert {name: found[name] for name in expected} == expected
    assert "ssl.client.auth" not in settings(node(1), KafkaCluster(nodes=(node(1),)))


def test_ciphers_get_the_last_compiler_tier() -> None:
    one_tier = "-XX:TieredStopAtLevel=1"
    assert one_tier in jvm_flags(node(1))
    assert one_tier not in jvm_flags(node(1, tls=NodeTls(keystore=Path("broker.pem"), truststore=Path("ca.pem"))))


def test_ids_are_what_the_tools_accept() -> None:
    ids = {random_uuid() for _ in range(500)}
    assert len(ids) == 500
    assert {len(each) for each in ids} == {22}
    assert not any(each.startswith("-") for each in ids)


def test_a_silent_port_is_not_a_broker() -> None:
    silent = KafkaNode(node_id=1, client_port=choose_port(None), controller_port=1, folder=Path("/data"))
    assert (why_not_serving(silent) or "").startswith(f"127.0.0.1:{silent.client_port} says: ")
