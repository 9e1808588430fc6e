"""What strangers install: the wheel, in an empty environment, with nothing but its own dependencies."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.meta.repository import ROOT, files_named

TOOLS = Path(sys.executable).parent


def run(*command: str | Path, folder: Path) -> str:
    """Run a command outside the checkout, away from its environment, and return what it prints."""
    outside = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    # uv does not read pip's configuration, where a company's registry is named.
    configured = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    registry = re.findall(r"[.:]index-url='(.*)'$", configured, re.MULTILINE)
    if registry:
        outside.setdefault("UV_DEFAULT_INDEX", registry[-1])
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=outside, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


OPTIONAL = {
    "controlplane/telemetry/spans.py",  # Loaded when tracing is on: the extra `tracing`.
    "controlplane/testing/plugin.py",  # Loaded by pytest.
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True)
    (built,) = folder.glob("controlplane-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment that has the wheel and nothing else; its folder of commands."""
    folder = tmp_path_factory.mktemp("installed")
    run(TOOLS / "uv", "venv", "--python", sys.executable, "--no-project", folder / "environment", folder=folder)
    commands = folder / "environment" / "bin"
    run(
        *(TOOLS / "uv", "pip", "install", "--python", commands / "python"),
        *("--constraint", ROOT / "requirements.lock", wheel),
        folder=folder,
    )
    return commands


@pytest.mark.timeout(600)
@pytest.mark.xdist_group("wheel")
def test_the_command_runs(installed: Path) -> None:
    assert "Usage: controlplane" in run(installed / "controlplane", "--help", folder=installed.parent)


@pytest.mark.timeout(600)
@pytest.mark.xdist_group("wheel")
def test_the_schemas_are_inside(installed: Path) -> None:
    count = run(
        *(installed / "python", "-I", "-c"),
        "from controlplane.events.schemas import released_schemas, written_schemas;"
        "print(len(written_schemas()), len(list(released_schemas())))",
        folder=installed.parent,
    )
    written = [name for name in files_named(".avsc") if name.startswith("schemas/avro/")]
    released = [name for name in files_named(".avsc") if name.startswith("schemas/released/")]
    assert count.split() == [str(len(written)), str(len(released))]


@pytest.mark.timeout(600)
@pytest.mark.xdist_group("wheel")
def test_every_module_imports_without_the_tools_of_developers(installed: Path) -> None:
    modules = sorted(
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in files_named(".py")
        if name.startswith("controlplane/") and not name.endswith("__main__.py") and name not in OPTIONAL
    )
    run(
        *(installed / "python", "-I", "-c"),
        f"import importlib\nfor name in {modules}: importlib.import_module(name)",
        folder=installed.parent,
    )


@pytest.mark.timeout(600)
@pytest.mark.xdist_group("wheel")
def test_the_image_has_all_that_the_wheel_needs(wheel: Path, tmp_path: Path) -> None:
    python = tmp_path / "environment" / "bin" / "python"
    install = (TOOLS / "uv", "pip", "install", "--python", python, "--only-binary", ":all:")
    run(TOOLS / "uv", "venv", "--python", sys.executable, "--no-project", tmp_path / "environment", folder=tmp_path)
    run(*install, "--require-hashes", "--requirement", ROOT / "deploy" / "runtime.lock", folder=tmp_path)
    run(*install, "--no-deps", wheel, folder=tmp_path)
    run(TOOLS / "uv", "pip", "check", "--python", python, folder=tmp_path)
