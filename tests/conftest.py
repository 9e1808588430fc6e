"""What the tests run against: a real Kafka and a real Redis, one pair per pytest worker.

Chosen by the environment, the first that applies:
- CONTROLPLANE_TEST_KAFKA=host:port and CONTROLPLANE_TEST_REDIS_URL=redis://...: services that already run (one may be
  given alone; the other is then embedded);
- CONTROLPLANE_TEST_CONTAINERS=1: containers, where a Docker engine answers; elsewhere the tests are skipped and say so;
- otherwise the embedded stack, on a folder of its own.
"""

import gc
import os
import shutil
import uuid
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from controlplane.local.process import NEVER
from controlplane.local.stack import EmbeddedStack

EXISTING_KAFKA = os.environ.get("CONTROLPLANE_TEST_KAFKA")
EXISTING_REDIS = os.environ.get("CONTROLPLANE_TEST_REDIS_URL")
if os.environ.get("CONTROLPLANE_TEST_SECURE") == "1":
    os.environ["CONTROLPLANE_SECURE"] = "true"  # What a system stack under test takes from its settings.
CONTAINERS = os.environ.get("CONTROLPLANE_TEST_CONTAINERS") == "1"


class Services(NamedTuple):
    """Where the tests find the services that the code under test needs."""

    kafka_bootstrap: str
    redis_url: str


@pytest.fixture(scope="session")
def embedded_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack]:
    """The embedded stack of this worker, always the embedded one. Not for tests that harm it: see `own_stack`."""
    folder = tmp_path_factory.mktemp("stack")
    with EmbeddedStack(folder, restart=NEVER) as stack:
        yield stack
    shutil.rmtree(folder / "kafka" / "data")  # Its logs stay for whoever reads a failure.


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[EmbeddedStack]:
    """An embedded stack of the test's own, to kill, wipe and freeze; nothing restarts by itself."""
    with EmbeddedStack(tmp_path / "stack", restart=NEVER) as stack:
        yield stack
    shutil.rmtree(tmp_path / "stack" / "kafka" / "data")


@pytest.fixture(scope="session")
def services(request: pytest.FixtureRequest) -> Iterator[Services]:
    """The Kafka and Redis of this worker."""
    with ExitStack() as containers:
        if EXISTING_KAFKA or EXISTING_REDIS:
            yield Services(
                EXISTING_KAFKA or request.getfixturevalue("embedded_stack").kafka_bootstrap,
                EXISTING_REDIS or request.getfixturevalue("embedded_stack").redis_url,
            )
        elif CONTAINERS:
            skip_without_docker()
            yield Services(contained_kafka(containers), contained_redis(containers))
        else:
            stack: EmbeddedStack = request.getfixturevalue("embedded_stack")
            yield Services(stack.kafka_bootstrap, stack.redis_url)


@pytest.fixture(scope="session")
def kafka_bootstrap(services: Services) -> str:
    """host:port,... of this worker's Kafka."""
    return services.kafka_bootstrap


@pytest.fixture(scope="session")
def redis_url(services: Services) -> str:
    """URL of this worker's Redis."""
    return services.redis_url


@pytest.fixture
def namespace() -> str:
    """A name that no other test uses, for topics, groups and keys: letters and digits only."""
    return f"t{uuid.uuid4().hex[:12]}"


def skip_without_docker() -> None:
    """Skip the test, saying why, unless a Docker engine answers."""
    docker = pytest.importorskip("docker")
    found = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Its client leaves a socket open when no engine answers.
        try:
            docker.from_env().ping()
        except docker.errors.DockerException as error:
            found = str(error)
        gc.collect()
    if found is not None:
        pytest.skip(f"Expected a Docker engine because CONTROLPLANE_TEST_CONTAINERS=1, but {found}")


def contained_kafka(containers: ExitStack) -> str:
    """Start Kafka in a container with the broker settings that the embedded one has, and return where it is."""
    kafka = started(containers, "testcontainers.kafka", "KafkaContainer", lambda made: made.with_kraft())
    return str(kafka.get_bootstrap_server())


def contained_redis(containers: ExitStack) -> str:
    """Start Redis in a container and return its URL."""
    redis = started(containers, "testcontainers.redis", "RedisContainer", lambda made: made)
    return f"redis://{redis.get_container_host_ip()}:{redis.get_exposed_port(redis.port)}/0"


def started(containers: ExitStack, module: str, name: str, configured: Any) -> Any:
    """Start a container that ends with the session; testcontainers' own deprecation warnings are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        container = configured(getattr(pytest.importorskip(module), name)())
        if name == "KafkaContainer":
            container.with_env("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
            container.with_env("KAFKA_LOG_MESSAGE_TIMESTAMP_TYPE", "LogAppendTime")
            container.with_env("KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS", "0")
        return containers.enter_context(container)
