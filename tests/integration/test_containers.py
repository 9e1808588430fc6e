"""Where a Docker engine exists, the tests of the log pass on testcontainers' Kafka and Redis as on the embedded ones."""

import os
import subprocess
import sys

import pytest

from tests.conftest import skip_without_docker


@pytest.mark.timeout(900)
def test_the_log_is_the_same_on_containers() -> None:
    skip_without_docker()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/integration/log", "tests/integration/runner"],
        env=os.environ | {"CONTROLPLANE_TEST_CONTAINERS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]
