"""One stack for all scheduling tests; they are of one xdist group, so that one worker has it."""

from collections.abc import Iterator

import pytest

from controlplane.cli.stack import SystemStack
from controlplane.client import Client
from controlplane.settings import Settings
from tests.acceptance.scheduling.looks import MOST_IN_FLIGHT, WAIT_SECONDS
from tests.acceptance.test_stack import until

SETTINGS = {
    "CONTROLPLANE_MOST_JOBS_IN_FLIGHT": str(MOST_IN_FLIGHT), "CONTROLPLANE_LEASE_SECONDS": "4", "CONTROLPLANE_HEARTBEAT_SECONDS": "0.5",
    "CONTROLPLANE_BREAKER_OPEN_SECONDS": "1", "CONTROLPLANE_PAYLOAD_LIMIT_BYTES": "4096",
}  # fmt: skip


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemStack]:
    """Two JobForge instances and four runners: what is promised holds across partitions and their owners."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in SETTINGS.items():
            environment.setenv(name, value)
        with SystemStack(Settings(), tmp_path_factory.mktemp("stack"), agents=2, free_ports=True) as running:
            for name in ("main", "narrow", "eu", "us"):
                running.add_runner(name, f"tests.acceptance.scheduling.handlers:{name}")
            with running.client() as client:
                until(lambda: len(client.runners().runners) >= 4)
                client.request(
                    "PUT", "/v1/schedules/every-two-seconds",
                    body={"cron": "*/2 * * * * *", "time_zone": "Asia/Tokyo", "job": {"job_type": "s.nap", "payload": {}}},
                )  # fmt: skip
                until(lambda: client.submit("s.nap", {}).wait(WAIT_SECONDS).phase == "COMPLETED")
            yield running


@pytest.fixture
def client(stack: SystemStack) -> Iterator[Client]:
    with stack.client() as one:
        yield one
