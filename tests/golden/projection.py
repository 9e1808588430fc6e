"""What today's projection makes of every golden record: the digest of its rows in each table."""

from typing import Any

from controlplane.truthcore_projector.decode import Decoder
from controlplane.truthcore_projector.digest import digest
from controlplane.truthcore_projector.store import Store
from tests.golden.records import golden_log


def store_of(records: list[Any]) -> Store:
    """Return a projection of these records; a record that is refused is an error."""
    store, decoder = Store(":memory:"), Decoder()
    decoded = decoder.decode(records)
    decoder.close()
    if decoded.refused:
        raise ValueError(f"Expected golden records to be readable, but: {decoded.refused[0].reason}")
    store.write(decoded, ends(records))
    return store


def ends(records: list[Any]) -> dict[tuple[str, int], int]:
    found: dict[tuple[str, int], int] = {}
    for one in records:
        place = (one.topic, one.partition)
        found[place] = max(found.get(place, 0), one.offset + 1)
    return found


def projected() -> dict[str, dict[str, str]]:
    """Return for each version of each event the tables that its records have rows in, with their digests."""
    versions: dict[str, list[Any]] = {}
    for one in golden_log():
        versions.setdefault(f"{one.event} v{one.partition}", []).append(one)
    return {name: digests(records) for name, records in versions.items()}


def digests(records: list[Any]) -> dict[str, str]:
    """Return the digest of each table in which these records have rows."""
    store = store_of(records)
    with store.snapshot() as cursor:
        found = {one.table: one.digest for one in digest(cursor, ends(records)) if one.rows}
    store.close()
    return found
