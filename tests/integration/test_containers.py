"""Where a Docker engine exists: the tests of the log pass on testcontainers' Kafka and Redis as on the embedded ones, and our image is built and run."""

import os
import subprocess
import sys

import pytest

from tests.conftest import skip_without_docker
from tests.meta.repository import ROOT
from tests.meta.test_lock import pins

IMAGE = "controlplane:test"
INSTALLED = (
    "import re; from importlib.metadata import distributions; "
    "print(*(re.sub('[-_.]+', '-', d.name).lower() + '==' + d.version for d in distributions()))"
)


@pytest.mark.timeout(900)
def test_the_log_is_the_same_on_containers() -> None:
    skip_without_docker()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/integration/log", "tests/integration/runner"],
        env=os.environ | {"CONTROLPLANE_TEST_CONTAINERS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]


def docker(*arguments: str) -> str:
    """Return what the Docker command printed."""
    done = subprocess.run(["docker", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout


@pytest.mark.timeout(1800)
def test_the_image_is_built_and_runs_confined_as_nobody() -> None:
    skip_without_docker()
    docker("build", "--tag", IMAGE, "--file", "deploy/Dockerfile", ".")
    confined = (
        "run",
        "--rm",
        "--read-only",
        "--tmpfs",
        "/tmp",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
    )
    assert "truth" in docker(*confined, IMAGE, "--help")
    identity = "import os; print(os.getuid(), os.access('/opt/controlplane', os.W_OK), os.access('/data', os.W_OK))"
    assert docker(*confined, "--entrypoint", "python", IMAGE, "-c", identity).split() == ["65532", "False", "True"]
    pinned = set(docker(*confined, "--entrypoint", "python", IMAGE, "-c", INSTALLED).split())
    assert {f"{name}=={version}" for name, version in pins("deploy/runtime.lock")} >= pinned - {"controlplane==0.1.0"}


@pytest.mark.timeout(300)
def test_docker_itself_understands_the_compose_files() -> None:
    skip_without_docker()
    docker("compose", "-f", "compose.yaml", "config", "--quiet")
    docker("compose", "-f", "compose.yaml", "-f", "compose.secure.yaml", "config", "--quiet")
