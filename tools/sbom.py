"""Write a CycloneDX bill of materials of a lock file: `python -m tools.sbom deploy/runtime.lock > sbom.json`, or `make sbom`.

The same lock file gives the same bytes where the same packages are installed: no clock, no chance.
"""

import os
import re
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

ROOT: Final = Path(__file__).parents[1]
PIN: Final = re.compile(r"^([a-z0-9][\w.-]*)(?:\[[\w,-]+\])?==([\w.+!]+)(?: ; (.+?))? ?\\?$", re.MULTILINE)
UNTOLD: Final = "controlplane:license"


def _words(stated: dict[str, Any]) -> str | None:
    """Return how a package names its license: an SPDX expression, its classifiers, or the first line of its words."""
    if expression := stated.get("license_expression"):
        return str(expression)
    named = [line.rpartition(" :: ")[2] for line in stated.get("classifier", []) if line.startswith("License ::")]
    if named := [name for name in named if name != "OSI Approved"]:
        return " AND ".join(named)
    return next(iter(str(stated.get("license", "")).strip().splitlines()), None)


def _component(name: str, version: str, marker: str | None, digests: list[str]) -> Component:
    component = Component(
        name=name, version=version, type=ComponentType.LIBRARY, bom_ref=f"{name}=={version}",
        purl=PackageURL("pypi", name=name, version=version),
    )  # fmt: skip
    if marker:
        component.properties.add(Property(name="controlplane:installed-where", value=marker))
    # One package has an archive per platform, and CycloneDX one digest per component: all of them are named as the lock names them.
    for digest in digests:
        component.properties.add(Property(name="controlplane:archive-sha256", value=digest))
    try:
        words = _words(metadata.metadata(name).json)
    except metadata.PackageNotFoundError:
        component.properties.add(Property(name=UNTOLD, value="not installed on the machine that wrote this"))
        return component
    if words is None:
        component.properties.add(Property(name=UNTOLD, value="the package names none"))
        return component
    known = LicenseFactory().make_from_string(words)
    component.licenses.add(
        known if not isinstance(known, DisjunctiveLicense) or known.id else DisjunctiveLicense(name=words[:200])
    )
    return component


def components(lock: str) -> Iterator[Component]:
    """Yield one component for each package and version that a lock file pins."""
    for entry in re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)[1:]:
        pin = PIN.match(entry)
        if pin is None:
            raise ValueError(
                f"Expected name==version at the start of an entry of a lock file, but found {entry.splitlines()[0]!r}."
            )
        yield _component(pin[1], pin[2], pin[3], sorted(re.findall(r"--hash=sha256:(\w+)", entry)))


def bill(lock: bytes) -> str:
    """Return the bill of materials of a lock file as CycloneDX JSON."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bom = Bom(
        components=components(lock.decode()), serial_number=uuid5(NAMESPACE_URL, f"{project['name']}:{lock.hex()}")
    )
    bom.metadata.timestamp = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), UTC)
    bom.metadata.component = Component(
        name=project["name"], version=project["version"], type=ComponentType.APPLICATION, bom_ref=project["name"],
        licenses=[LicenseFactory().make_from_string(project["license"])],
    )  # fmt: skip
    bom.register_dependency(bom.metadata.component, bom.components)
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(bill(Path(sys.argv[1]).read_bytes()))
