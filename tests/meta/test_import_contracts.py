"""The import contracts bite: each kind of forbidden import, added to a copy of the package, is found."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.meta.repository import ROOT


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the imports of the package in a folder."""
    return subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--no-logo"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with a copy of the package and of the contracts."""
    shutil.copytree(ROOT / "controlplane", tmp_path / "controlplane", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("events/header.py", "from controlplane import settings", "Imports flow one way"),
        ("telemetry/logs.py", "from controlplane.local import ports", "Imports flow one way"),
        ("local/ports.py", "import aiokafka", "Only controlplane.log speaks to Kafka"),
        ("telemetry/health.py", "import confluent_kafka", "Only controlplane.log speaks to Kafka"),
        ("events/identity.py", "import time", "The contract is pure"),
        ("events/codec.py", "import random", "The contract is pure"),
        ("jobforge_agent/decide.py", "import time", "Judging and applying are pure"),
        ("jobforge_agent/retry.py", "from controlplane.log import producer", "Judging and applying are pure"),
        ("truthcore_projector/fusion.py", "import time", "What TruthCore derives"),
        ("surprise/__init__.py", "", "Imports flow one way"),
    ],
)
def test_a_forbidden_import_is_found(package: Path, file: str, line: str, contract: str) -> None:
    path = package / "controlplane" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{path.read_text() if path.exists() else ''}\n{line}\n")
    answer = lint_imports(package)
    broken = [name for name in answer.stdout.splitlines() if " BROKEN" in name]
    assert answer.returncode == 1
    assert any(name.startswith(contract) for name in broken) or "surprise" in answer.stdout, answer.stdout
