"""Write docs/asyncapi.yaml from the catalog: `make reference`."""

from pathlib import Path
from typing import Final

import yaml

from controlplane.gateway.asyncapi import document

PAGE: Final = Path(__file__).parents[1] / "docs" / "asyncapi.yaml"
INTRODUCTION: Final = "# The AsyncAPI document of the topics. Written by `make reference`: do not edit.\n"


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        """Write what occurs twice twice: readers of AsyncAPI know `$ref`, not YAML's anchors."""
        return True


def page() -> str:
    """Return the whole file."""
    return INTRODUCTION + yaml.dump(document(), Dumper=_Plain, sort_keys=False, width=140, allow_unicode=True)


if __name__ == "__main__":
    PAGE.write_text(page())
