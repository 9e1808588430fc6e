"""What a shipped snapshot of a projection says of itself, and what its archive does."""

from datetime import datetime

from pydantic import AwareDatetime, Field

from controlplane.api.models import Model, TableDigest


class SnapshotFile(Model):
    """One file of the archive of a projection."""

    name: str = Field(pattern=r"^[a-z_]+-[0-9a-f]{64}\.parquet$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int


class SnapshotManifest(Model):
    """A copy of one TruthCore's file: what it reflects, and how to tell that it is whole and true."""

    layout: str = Field("an earlier one", description="How rows are kept; a file of another layout is not begun with.")
    shard: int
    shards: int
    positions: dict[str, dict[int, int]] = Field(
        description="topic -> partition -> offset of the first record not in it."
    )
    tables: list[TableDigest] = Field(description="Digest of each table, computed from the copy itself.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of the file's bytes; also its name.")
    size_bytes: int
    archive: list[SnapshotFile] = Field([], description="What left the file and belongs to it.")
    made_by: str
    made_at: datetime

    @property
    def file(self) -> str:
        """The name of the copy among other files."""
        return f"{self.sha256}.duckdb"


class ArchiveRequest(Model):
    """Detail that was appended before a moment shall leave the database."""

    before: AwareDatetime


class ArchiveAnswer(Model):
    """What left: the files that were written, none where there was nothing so old."""

    folder: str
    rows: int
    files: list[SnapshotFile]
