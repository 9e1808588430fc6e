"""Answers about truth over time, as Pydantic models."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from controlplane.api.models import Model, PositionText, Reflects, TruthView


class TruthInterval(Model):
    """What was true from one moment to another; without candidates nothing was."""

    since: datetime
    until: datetime | None = Field(description="Not included; null: still.")
    value: Any
    kind: str | None
    unit: str | None
    confidence: float
    rule: str | None
    conflict: bool
    sources: list[str] = Field(description="Sources that say the value.")
    cause: PositionText | None = Field(
        description="The record with which it began; null where only the world's time went on."
    )


class TruthHistoryAnswer(Model):
    """One truth as a series of intervals, oldest first."""

    subject: str
    predicate: str
    axis: Literal["believed", "valid"]
    intervals: list[TruthInterval]
    complete: bool = Field(description="False: older assertions than the newest 5,000 were left out.")
    next_cursor: str | None
    reflects: Reflects


class TruthChange(Model):
    """What became of one truth between two moments."""

    subject: str
    predicate: str
    change: Literal["appeared", "vanished", "changed", "surer", "less sure", "otherwise"] = Field(
        description="`otherwise`: same value and confidence, from other votes or by another rule."
    )
    before: TruthView | None
    after: TruthView | None


class TruthDiffAnswer(Model):
    """What changed between two moments, in order of subject and predicate."""

    changes: list[TruthChange]
    next_cursor: str | None
    reflects: Reflects


class LearnedSource(Model):
    """What the agreement of the sources says of one of them."""

    source: str
    reliability: float = Field(description="Learned; nothing uses it until it is published.")
    votes: int = Field(description="Truths about which it and another source spoke.")
    declared: float | None = Field(description="What is in force; null: nobody declared it, which counts as 1.")


class LearnedAnswer(Model):
    """How reliable sources are, learned over a frozen range of the log."""

    method: Literal["accu", "truthfinder"]
    as_of: str = Field(description="The range: asked with this as_of again, the answer is the same.")
    valid_at: datetime
    sources: list[LearnedSource]
    truths: int
    votes: int
    rounds: int
    settled: bool = Field(description="False: the numbers still moved after the last round.")
    reflects: Reflects


class TruthChangeTold(TruthChange):
    """What one record changed about one truth; both sides are judged at the record's log time."""

    cause: PositionText = Field(description="The record that changed it.")
    at: datetime = Field(description="Since when the log knows it.")
    place: str = Field(
        description="Where a reader of the feed stands behind it; `after` or `Last-Event-ID` goes on there."
    )


class TruthChangesAnswer(Model):
    """A page of the change feed; asked again with `after` its place, it goes on without gap or repetition."""

    changes: list[TruthChangeTold]
    place: str
    reflects: Reflects
