"""What the code imports is what pyproject.toml declares: nothing is there only because another package happens to bring it."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.meta.repository import files_named, text

PROJECT = tomllib.loads(text("pyproject.toml"))["project"]
# For users; the other extras are for developers.
EXTRAS = ("embedded", "dataframes", "provenance", "tracing")

LOADED_BY_ITS_USER = {"controlplane/testing/plugin.py: pytest"}


def imported(name: str) -> Iterator[str]:
    """Yield the top-level modules that a file imports."""
    for node in ast.walk(ast.parse(text(name))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_every_import_is_declared() -> None:
    lines = [*PROJECT["dependencies"], *(line for extra in EXTRAS for line in PROJECT["optional-dependencies"][extra])]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    distributions = packages_distributions()
    undeclared = {
        f"{name}: {module}"
        for name in files_named(".py")
        if name.startswith("controlplane/")
        for module in imported(name)
        if module not in sys.stdlib_module_names | {"controlplane"}
        and not declared & {canonicalize_name(distribution) for distribution in distributions.get(module, [])}
    }
    assert sorted(undeclared - LOADED_BY_ITS_USER) == []
