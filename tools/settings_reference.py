"""Write docs/settings.md from the settings of the code: `make reference`."""

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from controlplane.settings import Settings

PAGE: Final = Path(__file__).parents[1] / "docs" / "settings.md"
INTRODUCTION: Final = """# Settings

Every process reads the same environment variables, once, at its start; a value that cannot be is refused then, by name. Written by
`make reference` from `controlplane/settings.py`: do not edit.

| variable | value | default | meaning |
|---|---|---|---|
"""


def form(annotation: Any) -> str:
    """Return what a value looks like, in words for people."""
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    if get_origin(annotation) in {Union, types.UnionType}:
        return form(next(part for part in get_args(annotation) if part is not type(None)))
    names = {
        "str": "text",
        "int": "whole number",
        "float": "number",
        "bool": "`true` or `false`",
        "Path": "path",
        "SecretStr": "secret",
    }
    return names.get(getattr(annotation, "__name__", ""), "text")


def default(field: FieldInfo) -> str:
    """Return the default of a setting as one would write it."""
    if field.default is PydanticUndefined or field.default is None:
        return ""
    return f"`{field.default}`"


def rows() -> Iterator[str]:
    """Yield one row of the table for each setting."""
    for name, field in Settings.model_fields.items():
        meaning = (field.description or "").replace("|", "\\|")
        yield f"| `CONTROLPLANE_{name.upper()}` | {form(field.annotation)} | {default(field)} | {meaning} |\n"


def page() -> str:
    """Return the whole page."""
    return INTRODUCTION + "".join(rows())


if __name__ == "__main__":
    PAGE.write_text(page())
