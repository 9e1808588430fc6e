"""Write docs/permissions.md from the catalog: `make reference`."""

from pathlib import Path
from typing import Final

from controlplane.security.permissions import page

PAGE: Final = Path(__file__).parents[1] / "docs" / "permissions.md"

if __name__ == "__main__":
    PAGE.write_text(page())
