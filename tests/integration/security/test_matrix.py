"""Every service tries everything on a real broker, and may do what the catalog says: nothing more, nothing less (G8)."""

import asyncio
import gc
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import create_conn
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from controlplane.events.catalog import EVENT_TYPES, TOPICS, Service
from controlplane.local.stack import EmbeddedStack
from controlplane.log.access import Kind, Operation, Rule, bring_about, differences, rules
from controlplane.log.connection import LogConnection, LogRefused, LogUnavailable
from controlplane.log.topics import partition_counts
from controlplane.security.certificates import ADMIN, ensure_certificates, tls_files
from controlplane.security.permissions import grants, is_for_ours, is_ours
from controlplane.settings import TlsFiles
from tests.integration.security.conftest import Connect

pytestmark = pytest.mark.xdist_group("security")
ALLOWED = "allowed"
PATIENCE_MILLISECONDS = 10_000
BYTES_AT_MOST = 1024
BY_CATALOG = {
    (service, topic.name, operation): service
    in (
        topic.readers
        if operation == "read"
        else {author for one in EVENT_TYPES.values() if one.topic == topic for author in one.authors}
    )
    for service in Service
    for topic in TOPICS.values()
    for operation in ("read", "write")
}


@asynccontextmanager
async def client_of(connection: LogConnection) -> AsyncIterator[AIOKafkaClient]:
    client = AIOKafkaClient(**connection.client_arguments())
    try:
        await client.bootstrap()
        yield client
    finally:
        await client.close()


def outcome(code: int) -> str:
    return ALLOWED if code == 0 else str(for_code(code).__name__)


async def write(client: AIOKafkaClient, topic: str) -> str:
    batch = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, BYTES_AT_MOST)
    batch.append(0, 1, b"key", b"value", [])
    request = ProduceRequest(None, -1, PATIENCE_MILLISECONDS, [(topic, [(0, bytes(batch.build()))])])
    answer = await client.send(client.get_random_node(), request)
    return outcome(answer.topics[0][1][0][1])


async def read(client: AIOKafkaClient, topic: str) -> str:
    request = FetchRequest(0, 0, BYTES_AT_MOST, 0, [(topic, [(0, 0, BYTES_AT_MOST)])])
    answer = await client.send(client.get_random_node(), request)
    return outcome(answer.topics[0][1][0][1])


async def everything_tried(connection: LogConnection) -> dict[tuple[str, str], str]:
    async with client_of(connection) as client:
        return {
            (topic, name): await operation(client, topic)
            for topic in TOPICS
            for name, operation in (("read", read), ("write", write))
        }


@pytest.mark.parametrize("service", list(Service))
async def test_a_service_may_do_what_the_catalog_says_and_nothing_else(connect: Connect, service: Service) -> None:
    tried = await everything_tried(connect(service))
    expected = {
        (topic, operation): ALLOWED if BY_CATALOG[service, topic, operation] else "TopicAuthorizationFailedError"
        for topic, operation in tried
    }
    assert len(tried) == 2 * len(TOPICS)
    assert tried == expected


def test_the_catalog_allows_something_and_refuses_something_of_every_kind() -> None:
    for operation in ("read", "write"):
        assert {allowed for (_, _, name), allowed in BY_CATALOG.items() if name == operation} == {True, False}


async def test_a_name_that_the_catalog_does_not_know_may_nothing(connect: Connect) -> None:
    assert set((await everything_tried(connect("mallory"))).values()) == {"TopicAuthorizationFailedError"}
    assert await partition_counts(connect("mallory")) == {}


@pytest.mark.parametrize("service", list(Service))
async def test_no_service_may_administer(connect: Connect, service: Service) -> None:
    connection = connect(service)
    assert set(await partition_counts(connection)) == set(TOPICS)  # It may see that they exist.
    admin = AIOKafkaAdminClient(**connection.client_arguments())
    await admin.start()
    try:
        made = await admin.create_topics([NewTopic("controlplane.mine", 1, 1)])
        assert {for_code(code) for _, code, *_ in made.topic_errors} == {TopicAuthorizationFailedError}
        gone = await admin.delete_topics(["controlplane.jobs"])
        assert {for_code(code) for _, code in gone.topic_error_codes} == {TopicAuthorizationFailedError}
        told = await admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, "controlplane.jobs", {"retention.ms": "1"})]
        )
        assert [for_code(one[0]) for one in told[0].resources] == [TopicAuthorizationFailedError]
    finally:
        await admin.close()
    with pytest.raises(LogRefused, match=ClusterAuthorizationFailedError.__name__):
        await rules(connection)


async def join(connection: LogConnection, group: str) -> str:
    consumer = AIOKafkaConsumer(group_id=group, enable_auto_commit=False, **connection.client_arguments())
    try:
        await consumer.start()
        consumer.assign([TopicPartition("controlplane.jobs", 0)])
        await consumer.committed(TopicPartition("controlplane.jobs", 0))
    except GroupAuthorizationFailedError as error:
        return type(error).__name__
    finally:
        await consumer.stop()
    return ALLOWED


async def test_groups_belong_to_the_service_whose_name_they_begin_with(connect: Connect) -> None:
    refused = GroupAuthorizationFailedError.__name__
    for service, group, expected in (
        (Service.JOBFORGE, "controlplane.jobforge", ALLOWED), (Service.JOBFORGE, "controlplane.jobforge-watermark", ALLOWED),
        (Service.CLIENT, "controlplane.client-of-billing", ALLOWED), (Service.CLIENT, "controlplane.jobforge", refused),
        (Service.JOBFORGE, "other", refused), (Service.AUDITOR, "controlplane.jobforge", refused),
    ):  # fmt: skip
        assert (service, group, await join(connect(service), group)) == (service, group, expected)


async def begin(connection: LogConnection, transactional_id: str) -> str:
    producer = AIOKafkaProducer(transactional_id=transactional_id, **connection.client_arguments())
    try:
        await producer.start()
        async with producer.transaction():
            await producer.send_and_wait("controlplane.submissions", b"value", partition=0)
    except (TransactionalIdAuthorizationFailed, ClusterAuthorizationFailedError) as error:
        return type(error).__name__
    finally:
        await producer.stop()
    return ALLOWED


async def test_transactions_too(connect: Connect) -> None:
    assert await begin(connect(Service.CLIENT), "controlplane.client-1") == ALLOWED
    for service, name in ((Service.CLIENT, "controlplane.jobforge-1"), (Service.JOBFORGE, "controlplane.jobforge-1")):
        assert await begin(connect(service), name) == TransactionalIdAuthorizationFailed.__name__


async def let_in(arguments: dict[str, Any]) -> None:
    """Connect, and wait for the broker's farewell: without it the socket outlives the loop, and its warning meets another test."""
    host, port = arguments.pop("bootstrap_servers").split(":")
    connection = await create_conn(host, int(port), request_timeout_ms=PATIENCE_MILLISECONDS, **arguments)
    await connection.close()


async def refused(arguments: dict[str, Any]) -> None:
    """What a broken handshake leaves open goes with a loop of its own, and warns here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises((KafkaConnectionError, ConnectionError, ssl.SSLError)):
            await asyncio.to_thread(asyncio.run, let_in(arguments))
        gc.collect()


async def test_who_has_no_certificate_of_this_authority_is_not_let_in(
    connect: Connect, secured_stack: EmbeddedStack, tmp_path: Path
) -> None:
    ensure_certificates(tmp_path, [ADMIN])
    assert secured_stack.certificates is not None
    own, bootstrap = tls_files(tmp_path, ADMIN), secured_stack.kafka_bootstrap
    of_another_authority = TlsFiles(ca=secured_stack.certificates / "ca.pem", certificate=own.certificate, key=own.key)
    await refused({"bootstrap_servers": bootstrap, "security_protocol": "PLAINTEXT"})
    await refused(LogConnection(bootstrap=bootstrap, tls=of_another_authority).client_arguments())
    # Nor does one of ours talk to a broker that another authority vouches for.
    await refused(LogConnection(bootstrap=bootstrap, tls=own).client_arguments())
    without = ssl.create_default_context(cafile=str(of_another_authority.ca))
    await refused({"bootstrap_servers": bootstrap, "security_protocol": "SSL", "ssl_context": without})
    expired = datetime.now(UTC) - timedelta(days=2)
    ensure_certificates(secured_stack.certificates, ["late"], now=expired, valid_days=1, renew_within_days=0)
    await refused(
        LogConnection(bootstrap=bootstrap, tls=tls_files(secured_stack.certificates, "late")).client_arguments()
    )
    await let_in(connect(ADMIN).client_arguments())


async def test_rules_are_brought_about_once_and_what_the_catalog_does_not_know_goes(connect: Connect) -> None:
    admin = connect(ADMIN)
    again = await bring_about(admin, grants(), is_ours)
    assert (again.missing, again.unwanted, again.kept) == ((), (), len(grants()))
    at_ours = Rule(principal="mallory", kind=Kind.TOPIC, name="controlplane.truth", operation=Operation.READ)
    for_ours = Rule(principal="runner", kind=Kind.TOPIC, name="*", operation=Operation.ALL)
    denied = Rule(
        principal="gateway",
        kind=Kind.TOPIC,
        name="controlplane.",
        operation=Operation.WRITE,
        prefixed=True,
        denies=True,
    )
    foreign = Rule(principal="bob", kind=Kind.TOPIC, name="payroll", operation=Operation.READ, host="10.0.0.7")
    await bring_about(admin, {at_ours, for_ours, denied, foreign}, lambda _: False)
    assert (await everything_tried(connect("runner")))["controlplane.truth", "read"] == ALLOWED
    dry = await differences(admin, grants(), is_for_ours)
    assert set(dry.unwanted) == {for_ours, denied}
    changes = await bring_about(admin, grants(), is_ours)
    assert set(changes.unwanted) == {at_ours, for_ours, denied}
    assert await rules(admin) == grants() | {foreign}
    missing = next(iter(sorted(grants())))
    await bring_about(admin, grants() - {missing}, is_ours)
    assert (await differences(admin, grants(), is_ours)).missing == (missing,)
    restored = await asyncio.gather(*(bring_about(admin, grants(), is_ours) for _ in range(2)))
    assert all(one.unwanted == () for one in restored)
    await bring_about(admin, grants(), lambda _: True)
    assert await rules(admin) == grants()


async def test_a_broker_that_keeps_no_rules_says_so(kafka_bootstrap: str) -> None:
    with pytest.raises(LogUnavailable, match="no authorizer is configured"):
        await rules(LogConnection(bootstrap=kafka_bootstrap))
