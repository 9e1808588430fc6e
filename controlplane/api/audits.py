"""Answers about how two projections differ, as Pydantic models."""

from pydantic import Field

from controlplane.api.models import JobView, Model, PositionText, Reflects
from controlplane.api.truths import TruthChange


class TableDifference(Model):
    """How many rows of a table stand on one side only."""

    table: str
    rows_before: int
    rows_after: int
    only_before: int
    only_after: int
    positions: list[PositionText] = Field(description="Some records whose rows differ; only between files.")


class JobChange(Model):
    """A job on both sides; null where it is not known."""

    job_id: str
    before: JobView | None
    after: JobView | None


class AuditDiff(Model):
    """How two projections differ."""

    tables: list[TableDifference]
    jobs: list[JobChange]
    truths: list[TruthChange]
    complete: bool = Field(description="False: more jobs or truths differ than were asked for.")


class AuditDiffAnswer(AuditDiff):
    """How the projection differs between two moments of its log."""

    reflects: Reflects
