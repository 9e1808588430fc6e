"""A broker and a Valkey with security on, shared by the tests of this folder (one group, so that they meet in one worker); each test restores what it changes."""

import asyncio
import shutil
from collections.abc import Callable, Iterator

import pytest

from controlplane.cli.stack import let_in
from controlplane.local.process import NEVER
from controlplane.local.stack import EmbeddedStack
from controlplane.log.connection import LogConnection
from controlplane.security.certificates import ADMIN, ensure_certificates, tls_files
from controlplane.settings import Settings

Connect = Callable[[str], LogConnection]


@pytest.fixture(scope="session")
def secured_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack]:
    """An embedded stack with certificates of its own."""
    folder = tmp_path_factory.mktemp("secured")
    with EmbeddedStack(folder, restart=NEVER, certificates=folder / "certificates") as stack:
        yield stack
    shutil.rmtree(folder / "kafka" / "data")


@pytest.fixture(scope="session")
def connect(secured_stack: EmbeddedStack) -> Connect:
    """The connection of a principal, whose certificate is made when it is asked for; topics and rules are there."""
    certificates = secured_stack.certificates
    assert certificates is not None

    def connection(name: str) -> LogConnection:
        ensure_certificates(certificates, [name])
        return LogConnection(bootstrap=secured_stack.kafka_bootstrap, tls=tls_files(certificates, name))

    settings = Settings(partitions_jobs=1, partitions_routing=1, partitions_other=1)
    asyncio.run(let_in(connection(ADMIN), settings))
    return connection
