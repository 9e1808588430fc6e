"""The settings of pytest do what the tests rely on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.meta.repository import ROOT


def run_pytest(folder: Path, content: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run one file of tests in a folder with the settings of this repository."""
    (folder / "test_it.py").write_text(content)
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (folder / "conftest.py").write_text((ROOT / "conftest.py").read_text())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_it.py"],
        cwd=folder,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )


def test_tests_of_one_group_run_on_one_worker(tmp_path: Path) -> None:
    content = """
import pytest

@pytest.mark.xdist_group("group")
@pytest.mark.parametrize("number", range(9))
def test_it(number, worker_id):
    with open("workers.txt", "a") as file:
        print(worker_id, file=file)
"""
    answer = run_pytest(tmp_path, content, "-n3", "--dist=loadgroup")
    assert answer.returncode == 0, answer.stdout
    workers = (tmp_path / "workers.txt").read_text().split()
    assert len(workers) == 9
    assert len(set(workers)) == 1


def test_a_warning_fails(tmp_path: Path) -> None:
    answer = run_pytest(tmp_path, "import warnings\ndef test_it(): warnings.warn('careful', RuntimeWarning)\n")
    assert answer.returncode == 1
    assert "RuntimeWarning: careful" in answer.stdout


def test_an_unknown_marker_fails(tmp_path: Path) -> None:
    answer = run_pytest(tmp_path, "import pytest\n@pytest.mark.typo\ndef test_it(): pass\n")
    assert answer.returncode != 0
    assert "'typo' not found in `markers`" in answer.stdout


PROPERTY = """
from hypothesis import given, strategies

@given(strategies.integers())
def test_it(number): assert number < 1000
"""


@pytest.mark.parametrize("options", [(), ("--hypothesis-profile=exploring", "--hypothesis-seed=7")])
def test_a_failing_property_prints_how_to_repeat_it_and_fails_the_same_way_again(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    for _ in range(2):
        answer = run_pytest(tmp_path, PROPERTY, "-p", "no:cacheprovider", *options)
        assert "assert 1000 < 1000" in answer.stdout
        assert "@reproduce_failure" in answer.stdout
