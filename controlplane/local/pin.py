"""Writes kafka_jars.txt: `python -m controlplane.local.pin` resolves the broker's class path and pins what it finds."""

import hashlib
from pathlib import Path
from typing import Final

from controlplane.local.jars import KAFKA_VERSION

WANTED: Final = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.slf4j:slf4j-simple:1.7.36")
HEADER: Final = (
    "# The class path of the broker: coordinate, SHA-256, bytes. `python -m controlplane.local.pin` writes it anew."
)


def pinned_lines() -> list[str]:
    """Resolve and download the broker with all that it needs at run time, and return a line for each jar."""
    import jgo

    lines = []
    for artifact in jgo.resolve("+".join(WANTED)):
        content = artifact.resolve().read_bytes()
        coordinate = f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}"
        lines.append(f"{coordinate} {hashlib.sha256(content).hexdigest()} {len(content)}")
    return sorted(lines)


if __name__ == "__main__":
    target = Path(__file__).with_name("kafka_jars.txt")
    target.write_text("\n".join((HEADER, *pinned_lines())) + "\n", encoding="utf-8")
