"""What a shipped snapshot of a projection says of itself."""

from datetime import datetime

from pydantic import Field

from controlplane.api.models import Model, TableDigest


class SnapshotManifest(Model):
    """A copy of one TruthCore's file: what it reflects, and how to tell that it is whole and true."""

    shard: int
    shards: int
    positions: dict[str, dict[int, int]] = Field(
        description="topic -> partition -> offset of the first record not in it."
    )
    tables: list[TableDigest] = Field(description="Digest of each table, computed from the copy itself.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of the file's bytes; also its name.")
    size_bytes: int
    made_by: str
    made_at: datetime
