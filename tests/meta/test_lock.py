"""The lock files: everything that pyproject.toml asks for, at one version, checked by hash."""

import re
import tomllib
from itertools import chain

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.meta.repository import text

PROJECT = tomllib.loads(text("pyproject.toml"))
LOCKS = ("requirements.lock", "deploy/runtime.lock", "deploy/build.lock")


def pins(lock: str) -> set[tuple[str, str]]:
    """Return names and versions; a name may be there twice, for different platforms or Pythons."""
    found = re.findall(r"^([a-z0-9][\w.-]*)(?:\[[\w,-]+\])?==([\w.+!]+)", text(lock), re.MULTILINE)
    return {(canonicalize_name(name), version) for name, version in found}


def test_what_is_asked_for_is_locked_at_a_version_that_fits() -> None:
    asked = [
        Requirement(line)
        for line in chain(
            PROJECT["project"]["dependencies"],
            PROJECT["build-system"]["requires"],
            *PROJECT["project"]["optional-dependencies"].values(),
        )
    ]
    locked = pins("requirements.lock")
    unmet = [
        str(requirement)
        for requirement in asked
        if not any(
            name == canonicalize_name(requirement.name) and requirement.specifier.contains(version, prereleases=True)
            for name, version in locked
        )
    ]
    assert unmet == [], "Run `make lock`."


@pytest.mark.parametrize("lock", LOCKS)
def test_everything_locked_has_hashes(lock: str) -> None:
    entries = re.split(r"^(?=[a-z0-9])", text(lock), flags=re.MULTILINE)[1:]
    assert len(entries) == len(pins(lock))
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("lock", LOCKS[1:])
def test_what_is_deployed_is_what_was_tested(lock: str) -> None:
    assert sorted(pins(lock) - pins("requirements.lock")) == []
