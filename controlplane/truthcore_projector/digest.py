"""Digests: two projections that reflect the same positions have the same, whatever the order in which records arrived.

Per table, the sum modulo 2^256 of the SHA-256 of each row's canonical JSON. A sum does not depend on order; rows that would cancel
out would need a collision of SHA-256.
"""

from collections.abc import Mapping
from typing import Any, Final

from controlplane.api.models import TableDigest
from controlplane.log.positions import Partition
from controlplane.truthcore_projector.cursors import Cursor, tuples
from controlplane.truthcore_projector.tables import TABLES

WORDS: Final = 8
WORD_BITS: Final = 32
MODULUS: Final = 1 << 256


def canonical(columns: str) -> str:
    """Return SQL of the canonical text of a row `t` of a table with these columns."""
    parts = []
    for column in columns.split(","):
        name, kind = column.strip().rsplit(" ", 1)
        own = f"t.{name}"
        parts.append(f"{name} := sha256({own})" if kind == "BLOB" else f"{name} := {own}")
    return f"to_json(struct_pack({', '.join(parts)}))::VARCHAR"


def table_digest(cursor: Cursor, table: str, bounds: list[list[Any]]) -> TableDigest:
    """Return the digest of one table's rows before a position vector, given as three lists."""
    words = ", ".join(
        f"sum(('0x' || substr(hash, {1 + 8 * word}, 8))::UBIGINT)::HUGEINT AS w{word}" for word in range(WORDS)
    )
    query = (
        "WITH bounds AS (SELECT unnest(?) AS topic, unnest(?) AS partition, unnest(?) AS next_offset),"
        f" hashed AS (SELECT sha256({canonical(TABLES[table])}) AS hash FROM {table} AS t SEMI JOIN bounds AS b"  # noqa: S608 -- our own names
        ' ON t.topic = b.topic AND t.partition = b.partition AND t."offset" < b.next_offset)'
        f" SELECT count(*) AS n, {words} FROM hashed"
    )
    sums = ", ".join(f"sum(w{word})" for word in range(WORDS))
    (row,) = tuples(cursor, query, bounds, gather=f"SELECT sum(n), {sums} FROM parts")
    total = 0
    for part in row[1:]:
        total = (total << WORD_BITS) + int(part or 0)
    return TableDigest(table=table, rows=int(row[0]), digest=f"{total % MODULUS:064x}")


def digest(cursor: Cursor, positions: Mapping[Partition, int]) -> list[TableDigest]:
    """Return the digest of every table at a position vector; rows at or after it do not count."""
    bounds: list[list[Any]] = [[], [], []]
    for (topic, partition), offset in positions.items():
        for column, value in zip(bounds, (topic, partition, offset), strict=True):
            column.append(value)
    return [table_digest(cursor, table, bounds) for table in TABLES]
