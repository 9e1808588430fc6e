"""Three brokers, and one after another is killed under load: nothing acknowledged is lost, nothing concludes twice, nothing stops (G1, G2, G9)."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from controlplane.cli.bench import read_back
from controlplane.cli.stack import SystemStack
from controlplane.client import Client
from controlplane.events.catalog import Service
from controlplane.local.java import java_environment
from controlplane.local.kafka import KafkaCluster, KafkaNode, node_tls, prepare_node, why_not_serving
from controlplane.local.ports import choose_port
from controlplane.local.process import NEVER, Probe
from controlplane.local.supervisor import Supervisor
from controlplane.local.training import ready_java
from controlplane.notary.keys import public_keys
from controlplane.notary.verify import verify_log
from controlplane.security.certificates import ensure_certificates
from controlplane.settings import Settings
from controlplane.truthcore_projector.replay import verify
from tests.acceptance.security import kafka_settings
from tests.acceptance.test_crash import load, wait_until_concluded

BROKERS = (1, 2, 3)
WITHIN_SECONDS = 60.0
MORE_JOBS = 40
"""So many further jobs conclude while a broker is down, or the system has stopped."""


def serving(node: KafkaNode) -> Probe:
    return lambda: why_not_serving(node)


@contextmanager
def three_brokers(folder: Path, certificates: Path | None) -> Iterator[tuple[Supervisor, KafkaCluster]]:
    """A cluster on this machine: three copies of each record, two of which acknowledge it."""
    ports: list[int] = []
    while len(ports) < 2 * len(BROKERS):
        ports.append(choose_port(None, ports))
    cluster = KafkaCluster(
        nodes=tuple(
            KafkaNode(
                node_id=number,
                client_port=ports.pop(),
                controller_port=ports.pop(),
                folder=folder / f"node-{number}",
                tls=node_tls(certificates) if certificates else None,
            )
            for number in BROKERS
        )
    )
    java = ready_java()
    with Supervisor(log_folder=folder / "logs") as supervisor:
        for node in cluster.nodes:
            command = prepare_node(java, node, cluster)
            supervisor.add(
                f"kafka-{node.node_id}",
                command,
                whole_environment=java_environment(),
                ready=serving(node),
                restart=NEVER,
            )
        supervisor.wait_ready()
        yield supervisor, cluster
        for child in supervisor.children.values():
            child.kill()  # The last node of a cluster that stops in order waits for a majority that is gone.


def copies(stack: SystemStack) -> int:
    """Return the smallest number of brokers that have all of a partition."""
    topics = AdminClient(kafka_settings(stack)).list_topics(timeout=10).topics
    return min(
        len(one.isrs)
        for name, topic in topics.items()
        if name.startswith("controlplane.")
        for one in topic.partitions.values()
    )


async def until_copied(stack: SystemStack, wanted: int) -> None:
    async with asyncio.timeout(WITHIN_SECONDS):
        while await asyncio.to_thread(copies, stack) != wanted:  # noqa: ASYNC110 -- the brokers do not call us
            await asyncio.sleep(0.2)


async def until_further(client: Client, conclusions: int) -> None:
    """Return when so many further jobs have concluded."""
    query = "SELECT count(*) FROM first_conclusions"
    first = (await asyncio.to_thread(client.sql, query)).rows[0][0]
    async with asyncio.timeout(WITHIN_SECONDS):
        while (await asyncio.to_thread(client.sql, query)).rows[0][0] < first + conclusions:  # noqa: ASYNC110 -- nor does the projection
            await asyncio.sleep(0.2)


async def lose_every_broker_once(client: Client, supervisor: Supervisor, stack: SystemStack) -> list[str]:
    stop = asyncio.Event()
    loading = asyncio.create_task(load(stack.connection(Service.CLIENT), stop))
    for number in BROKERS:
        await until_further(client, MORE_JOBS)
        await asyncio.to_thread(supervisor[f"kafka-{number}"].kill)
        await until_copied(stack, 2)
        await until_further(client, MORE_JOBS)
        await asyncio.to_thread(supervisor[f"kafka-{number}"].start)
        await until_copied(stack, 3)
    stop.set()
    return await loading


@pytest.mark.timeout(300)
def test_every_broker_dies_once_under_load_and_nothing_is_lost_or_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTROLPLANE_KAFKA_REPLICATION", "3")
    certificates = tmp_path / "certificates" if Settings().secure else None
    if certificates:
        ensure_certificates(certificates)
    with three_brokers(tmp_path / "brokers", certificates) as (supervisor, cluster):
        settings = Settings(kafka_bootstrap=cluster.bootstrap, certificates_dir=certificates)
        with (
            SystemStack(settings, tmp_path / "stack", agents=2, free_ports=True) as stack,
            stack.client() as client,
        ):
            for number in (1, 2):
                stack.add_runner(f"runner-{number}", "tests.acceptance.handlers:runner")
            give_up_at = time.monotonic() + WITHIN_SECONDS
            while (
                client.submit("test.nap", {"seconds": 0}).wait(WITHIN_SECONDS).phase != "COMPLETED"
            ):  # JobForge knows no runner yet.
                assert time.monotonic() < give_up_at
            acknowledged = asyncio.run(lose_every_broker_once(client, supervisor, stack))
            assert len(acknowledged) >= 2 * MORE_JOBS * len(BROKERS)
            wait_until_concluded(client, len(acknowledged))
            connection = stack.connection(Service.AUDITOR)
            _, conclusions, steps = asyncio.run(read_back(connection))
            wrong = {one: len(conclusions.get(one, ())) for one in acknowledged if len(conclusions.get(one, ())) != 1}
            assert wrong == {}
            assert {one: steps[one] for one in acknowledged if "JobCompleted" not in steps[one]} == {}
            verdict = asyncio.run(verify(connection, client.digest()))
            assert verdict.agrees, verdict
            signed = asyncio.run(verify_log(connection, public_keys(tmp_path / "stack" / "notary" / "notary.pub")))
            assert signed.intact, signed.findings
