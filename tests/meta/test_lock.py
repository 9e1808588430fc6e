"""The lock file: everything that pyproject.toml asks for, at one version, checked by hash."""

import re
import tomllib
from itertools import chain

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.meta.repository import text

PROJECT = tomllib.loads(text("pyproject.toml"))
LOCK = text("requirements.lock")
# A name may be locked twice, at versions for different platforms or Pythons.
PINS = re.findall(r"^([a-z0-9][\w.-]*)(?:\[[\w,-]+\])?==([\w.+!]+)", LOCK, re.MULTILINE)


def test_what_is_asked_for_is_locked_at_a_version_that_fits() -> None:
    asked = [
        Requirement(line)
        for line in chain(
            PROJECT["project"]["dependencies"],
            PROJECT["build-system"]["requires"],
            *PROJECT["project"]["optional-dependencies"].values(),
        )
    ]
    locked = {(canonicalize_name(name), version) for name, version in PINS}
    unmet = [
        str(requirement)
        for requirement in asked
        if not any(
            name == canonicalize_name(requirement.name) and requirement.specifier.contains(version, prereleases=True)
            for name, version in locked
        )
    ]
    assert unmet == [], "Run `make lock`."


def test_everything_locked_has_hashes() -> None:
    entries = re.split(r"^(?=[a-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) == len(PINS)
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
