"""Compatibility of schema versions: full transitive, judged by the checker of the Apache `avro` package."""

import json
from collections.abc import Iterator

from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.schema import Schema as AvroSchema
from avro.schema import parse

from controlplane.events.schemas import Schema


def _incompatibilities(reader: AvroSchema, writer: AvroSchema) -> Iterator[str]:
    result = ReaderWriterCompatibilityChecker().get_compatibility(reader, writer)  # type: ignore[no-untyped-call] # avro is only partly typed
    if result.compatibility is not SchemaCompatibilityType.compatible:
        places = sorted(result.locations) or ["/"]
        yield from (f"{message} (at {', '.join(places)})" for message in sorted(result.messages))


def full_incompatibilities(old: Schema, new: Schema) -> list[str]:
    """Return why readers of one of two schemas cannot read records of the other; empty when they can, both ways."""
    older, newer = parse(json.dumps(old)), parse(json.dumps(new))
    backward = [f"The new schema cannot read old records: {text}" for text in _incompatibilities(newer, older)]
    forward = [f"The old schema cannot read new records: {text}" for text in _incompatibilities(older, newer)]
    return backward + forward
