"""The embedded stack on real processes: it serves, it comes back with its data, it leaves nothing behind."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from controlplane.local.errors import FolderInUse
from controlplane.local.folder import birth, read_record
from controlplane.local.process import NEVER, Restart
from controlplane.local.stack import EmbeddedStack, find_running
from tests.integration.local.waiting import wait_until

RUN_UNTIL_KILLED = """
import signal, sys
from pathlib import Path
from controlplane.local.stack import EmbeddedStack
with EmbeddedStack(Path(sys.argv[1])):
    print("serving", flush=True)
    signal.pause()
"""


def make_topic(bootstrap: str, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(20)


def write(bootstrap: str, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 0})
    refused = []
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _message: refused.append(error) if error else None)
    assert producer.flush(30) == 0
    assert refused == []


def read_all(bootstrap: str, topic: str) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False})
    try:
        end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=20)[1]
        consumer.assign([TopicPartition(topic, 0, 0)])
        values: list[bytes] = []
        while len(values) < end:
            message = consumer.poll(20)
            assert message is not None
            assert message.error() is None
            values.append(message.value() or b"")
        return values
    finally:
        consumer.close()


@pytest.fixture
def running_process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own that runs a stack on `tmp_path / "data"`."""
    argv = [sys.executable, "-c", RUN_UNTIL_KILLED, str(tmp_path / "data")]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"serving\n"
    yield process
    if process.poll() is None:
        process.kill()
    process.wait()
    process.stdout.close()


def test_serves_stock_clients_with_the_promised_settings(embedded_stack: EmbeddedStack, namespace: str) -> None:
    make_topic(embedded_stack.kafka_bootstrap, namespace)
    write(embedded_stack.kafka_bootstrap, namespace, [b"one", b"two"])
    assert read_all(embedded_stack.kafka_bootstrap, namespace) == [b"one", b"two"]
    admin = AdminClient({"bootstrap.servers": embedded_stack.kafka_bootstrap})
    resource = ConfigResource(ConfigResource.Type.TOPIC, namespace)
    settings = {name: entry.value for name, entry in admin.describe_configs([resource])[resource].result(20).items()}
    assert settings["message.timestamp.type"] == "LogAppendTime"
    assert settings["retention.ms"] == "-1"
    assert settings["retention.bytes"] == "-1"
    for url in (embedded_stack.redis_url, embedded_stack.redis_tcp_url):
        with redis.Redis.from_url(url) as client:
            assert client.ping()
            assert client.config_get("append*")["appendfsync"] == "everysec"


def test_topics_are_not_made_by_writing_to_them(embedded_stack: EmbeddedStack, namespace: str) -> None:
    settings = {"bootstrap.servers": embedded_stack.kafka_bootstrap, "topic.metadata.propagation.max.ms": 0}
    outcomes: list[str] = []
    producer = Producer(settings)
    producer.produce(
        namespace, b"x", on_delivery=lambda error, _message: outcomes.append(error.name() if error else "written")
    )
    assert producer.flush(20) == 0
    assert outcomes[0] in {"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"}


def test_valkey_refuses_who_has_no_password(embedded_stack: EmbeddedStack) -> None:
    port = read_record(embedded_stack.data_dir).ports["valkey"]
    with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    secrets = [embedded_stack.data_dir / name for name in ("stack.json", "valkey/password", "valkey/valkey.conf")]
    assert [stat.S_IMODE(path.stat().st_mode) for path in secrets] == [0o600] * 3


def test_comes_back_on_the_same_addresses_with_its_records(tmp_path: Path) -> None:
    with EmbeddedStack(tmp_path, restart=NEVER) as first:
        addresses = (first.kafka_bootstrap, first.redis_url)
        make_topic(first.kafka_bootstrap, "kept")
        write(first.kafka_bootstrap, "kept", [b"1", b"2"])
        with redis.Redis.from_url(first.redis_url) as client:
            client.set("kept", "yes")
        pids = first.supervisor.pids()
    assert [birth(pid) for pid in pids.values()] == [None, None]
    assert read_record(tmp_path).children == {}
    with EmbeddedStack(tmp_path, restart=NEVER) as second:
        assert (second.kafka_bootstrap, second.redis_url) == addresses
        assert read_all(second.kafka_bootstrap, "kept") == [b"1", b"2"]
        with redis.Redis.from_url(second.redis_url) as client:
            assert client.get("kept") == b"yes"


def test_moves_to_other_ports_when_its_own_are_taken(tmp_path: Path) -> None:
    with EmbeddedStack(tmp_path, restart=NEVER) as first:
        make_topic(first.kafka_bootstrap, "kept")
        write(first.kafka_bootstrap, "kept", [b"1"])
    ports = read_record(tmp_path).ports
    squatters = [socket.create_server(("127.0.0.1", port)) for port in ports.values()]
    try:
        with EmbeddedStack(tmp_path, restart=NEVER) as second:
            assert not set(read_record(tmp_path).ports.values()) & set(ports.values())
            assert read_all(second.kafka_bootstrap, "kept") == [b"1"]
            write(second.kafka_bootstrap, "kept", [b"2"])
            make_topic(second.kafka_bootstrap, "new")
            assert read_all(second.kafka_bootstrap, "kept") == [b"1", b"2"]
            with redis.Redis.from_url(second.redis_tcp_url) as client:
                assert client.ping()
    finally:
        for squatter in squatters:
            squatter.close()


def test_servers_survive_sigkill_with_what_they_acknowledged(own_stack: EmbeddedStack) -> None:
    make_topic(own_stack.kafka_bootstrap, "kept")
    write(own_stack.kafka_bootstrap, "kept", [b"%d" % number for number in range(500)])
    with redis.Redis.from_url(own_stack.redis_url) as client:
        client.set("kept", "yes")
    own_stack.kafka.kill()
    own_stack.valkey.kill()
    assert own_stack.supervisor.pids() == {}
    own_stack.valkey.start()
    own_stack.kafka.start()
    assert read_all(own_stack.kafka_bootstrap, "kept") == [b"%d" % number for number in range(500)]
    with redis.Redis.from_url(own_stack.redis_url) as client:
        assert client.get("kept") == b"yes"
    own_stack.valkey.wipe()
    own_stack.valkey.start()
    with redis.Redis.from_url(own_stack.redis_url) as client:
        assert client.dbsize() == 0


def test_a_crashed_server_comes_back_by_itself(tmp_path: Path) -> None:
    with EmbeddedStack(tmp_path, with_kafka=False, restart=Restart(first_pause_seconds=0.05)) as stack:
        before = stack.valkey.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: stack.valkey.pid not in {None, before}, "another Valkey process")
        stack.valkey.wait_ready()
        assert stack.valkey.child.restarts == 1
        assert stack.valkey.child.exit_code == -signal.SIGKILL
        wait_until(lambda: read_record(tmp_path).children["valkey"].pid == stack.valkey.pid, "the new pid on record")


def test_a_frozen_server_is_silent_until_it_goes_on(tmp_path: Path) -> None:
    with EmbeddedStack(tmp_path, with_kafka=False, restart=NEVER) as stack:
        with redis.Redis.from_url(stack.redis_url, socket_timeout=0.2, retry=None) as client:
            assert client.ping()
            stack.valkey.suspend()
            with pytest.raises(redis.TimeoutError):
                client.ping()
        stack.valkey.resume()
        with redis.Redis.from_url(stack.redis_url, socket_timeout=20) as client:
            assert client.ping()


def test_nothing_outlives_a_killed_supervisor(tmp_path: Path, running_process: subprocess.Popen[bytes]) -> None:
    data_dir = tmp_path / "data"
    running = find_running(data_dir)
    assert running is not None
    assert running.supervisor_pid == running_process.pid
    assert set(running.children) == {"kafka", "valkey"}
    born = {pid: birth(pid) for pid in running.children.values()}
    assert None not in born.values()
    assert running.kafka_bootstrap is not None
    make_topic(running.kafka_bootstrap, "kept")
    write(running.kafka_bootstrap, "kept", [b"1"])
    running_process.kill()
    running_process.wait()
    wait_until(lambda: all(birth(pid) != mark for pid, mark in born.items()), "the children's end")
    assert find_running(data_dir) is None
    with EmbeddedStack(data_dir, restart=NEVER) as again:
        assert again.kafka_bootstrap == running.kafka_bootstrap
        assert read_all(again.kafka_bootstrap, "kept") == [b"1"]


def test_ends_what_a_stack_without_its_watchdog_left_behind(tmp_path: Path) -> None:
    """The watchdog died with its supervisor: the next start finds the leftovers by their marks."""
    leftover = subprocess.Popen(["sleep", "600"], start_new_session=True)
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        children = {
            "old": {"pid": leftover.pid, "born": birth(leftover.pid)},
            "reused": {"pid": stranger.pid, "born": "another birth"},
        }
        (tmp_path / "stack.json").write_text(json.dumps({"supervisor_pid": 1, "started_at": "x", "children": children}))
        with EmbeddedStack(tmp_path, restart=NEVER, with_kafka=False):
            assert leftover.wait(20) == -signal.SIGKILL
            assert stranger.poll() is None
    finally:
        for process in (leftover, stranger):
            process.kill()
            process.wait()


def test_a_second_stack_on_the_folder_is_refused(tmp_path: Path, running_process: subprocess.Popen[bytes]) -> None:
    data_dir = tmp_path / "data"
    with pytest.raises(FolderInUse) as refusal:
        EmbeddedStack(data_dir).start()
    assert f"Expected {data_dir} to be free, but a stack runs on it (process {running_process.pid}, " in str(
        refusal.value
    )
    running = find_running(data_dir)
    assert running is not None
    assert running.redis_url is not None
    with redis.Redis.from_url(running.redis_url) as client:
        assert client.ping()


def test_a_folder_too_deep_for_a_socket_path_works(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 30)
    with EmbeddedStack(deep, with_kafka=False, restart=NEVER) as stack:
        with redis.Redis.from_url(stack.redis_url) as client:
            assert client.ping()
        running = find_running(deep)
        assert running is not None
        assert running.redis_url == stack.redis_url
