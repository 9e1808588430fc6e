"""The repository as its tests see it: where it is, and which files belong to it."""

import subprocess
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
GENERATED: Final = frozenset({"controlplane/events/types.py", "controlplane/events/encoders.py", "requirements.lock"})


@cache
def files() -> tuple[str, ...]:
    """Return the paths of all files of the repository, relative to its root, those not yet committed included."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return tuple(sorted(name for name in listing.split("\0") if name and (ROOT / name).is_file()))


def files_named(*suffixes: str) -> list[str]:
    """Return the files whose name ends with one of the suffixes."""
    return [name for name in files() if name.endswith(suffixes)]


def text(name: str) -> str:
    """Return the content of a file, or nothing for what is not text."""
    try:
        return (ROOT / name).read_text()
    except UnicodeDecodeError:
        return ""
