"""Check the contract: `python -m controlplane.events.check` exits 1 and says what is wrong, or says that all is well."""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from controlplane.events.catalog import EVENT_TYPES
from controlplane.events.codec import current_schemas
from controlplane.events.compatibility import full_incompatibilities
from controlplane.events.generate import generated
from controlplane.events.schemas import released_schemas, schema_folder, schema_id, self_contained, written_schemas


def drift() -> Iterator[str]:
    """Yield each generated module that differs from what today's schemas give."""
    for path, content in generated(written_schemas()).items():
        if path.read_text() != content:
            yield f"Expected {path.name} to be generated from today's schemas, but it differs: run `make schemas`."


def incompatible() -> Iterator[str]:
    """Yield each released version that today's schema of the same event is not fully compatible with."""
    written = written_schemas()
    for name, version, released in released_schemas():
        if name not in written:
            yield f"Expected {name}, released as version {version}, to be in the contract for ever, but it is gone."
            continue
        for reason in full_incompatibilities(released, self_contained(name, written)):
            yield f"Expected {name} to be compatible with its released version {version}, but: {reason}"


def unreleased() -> Iterator[str]:
    """Yield each event whose catalog version has no released copy equal to the schema in force."""
    released = {(name.rpartition(".")[2], version): schema_id(schema) for name, version, schema in released_schemas()}
    for name, event_type in EVENT_TYPES.items():
        if released.get((name, event_type.schema_version)) != current_schemas()[name].id:
            yield (
                f"Expected schemas/released/{name}/v{event_type.schema_version}.avsc to equal the schema in force, but it does not: "
                "raise schema_version in the catalog and run `make release-schemas`."
            )


def colliding() -> Iterator[str]:
    """Yield schema ids that two different events share."""
    names: dict[int, set[str]] = defaultdict(set)
    for schema in current_schemas().values():
        names[schema.id].add(schema.event_name)
    for name, _, released in released_schemas():
        names[schema_id(released)].add(name.rpartition(".")[2])
    yield from (f"Expected one event per schema id, but {sorted(n)} share {i}." for i, n in names.items() if len(n) > 1)


def release() -> list[Path]:
    """Write the schema in force of every event whose catalog version has no released copy yet; released files never change."""
    written = []
    for name, event_type in EVENT_TYPES.items():
        path = schema_folder() / "released" / name / f"v{event_type.schema_version}.avsc"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(current_schemas()[name].schema, indent=1, ensure_ascii=False) + "\n")
            written.append(path)
    return written


def faults() -> list[str]:
    """Return everything that is wrong with the contract."""
    return [*drift(), *incompatible(), *unreleased(), *colliding()]


if __name__ == "__main__":
    if "--release" in sys.argv:
        print(f"released {len(release())} schema versions")
    found = faults()
    print(
        "\n".join(found)
        or f"contract: {len(EVENT_TYPES)} events, no drift, fully compatible with every released version"
    )
    sys.exit(bool(found))
