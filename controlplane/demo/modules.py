"""The modules of the standard library, and what is claimed about each."""

import sysconfig
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, Field

STANDARD_LIBRARY = Path(sysconfig.get_paths()["stdlib"])
LEFT_OUT = {"site-packages", "__pycache__", "test", "tests", "idle_test", "lib2to3", "turtledemo"}
LARGEST_SOURCE_BYTES = 1_000_000


class Module(BaseModel):
    """One source file of the standard library."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$", examples=["json.decoder"])
    path: str = Field(description="Path below the standard library's folder.", examples=["json/decoder.py"])

    def source(self) -> str:
        """Return the text of the module.

        Raises:
            ValueError: the path leads out of the standard library.
            OSError, UnicodeDecodeError: the file cannot be read.
        """
        path = (STANDARD_LIBRARY / self.path).resolve()
        if not path.is_relative_to(STANDARD_LIBRARY.resolve()):
            raise ValueError(f"Expected a path inside the standard library, but found {self.path}.")
        return path.read_text(encoding="utf-8")


class Profile(BaseModel):
    """What a module consists of."""

    lines: int = Field(ge=0)
    functions: int = Field(ge=0)
    classes: int = Field(ge=0)
    imports: list[str]


def modules() -> Iterator[Module]:
    """Yield the readable source files of the standard library, in order of their path, tests left out."""
    for path in sorted(STANDARD_LIBRARY.rglob("*.py")):
        below = path.relative_to(STANDARD_LIBRARY)
        if LEFT_OUT.isdisjoint(below.parts) and path.stat().st_size <= LARGEST_SOURCE_BYTES:
            name = ".".join(below.with_suffix("").parts).removesuffix(".__init__")
            if name.replace(".", "").replace("_", "").replace("-", "").isalnum():
                yield Module(name=name, path=below.as_posix())
