"""Answers about where truth came from and what rests on it, as Pydantic models."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from controlplane.api.models import Model, PositionText, Reflects, TruthView

Direction = Literal["up", "down", "both"]
NodeKind = Literal["assertion", "attempt", "job", "event", "runner", "source"]
Relation = Literal[
    "wasGeneratedBy", "used", "wasDerivedFrom", "wasRevisionOf", "wasAttributedTo", "wasAssociatedWith", "wasInformedBy", "wasInvalidatedBy",
]  # fmt: skip


class LineageNode(Model):
    """An assertion or another record (W3C PROV: entity), a job or attempt (activity), a runner or source (agent)."""

    id: str = Field(description="kind:name", examples=["assertion:1b9d6bcd-bbfd-5b2d-9b5d-ab8dfbbd4bed"])
    kind: NodeKind
    name: str
    position: PositionText | None = Field(description="Where its (first) record stands; null for agents.")
    log_time: datetime | None
    depth: int = Field(description="Steps from where the question began.")
    detail: dict[str, Any] = Field({}, description="What the log says of it; empty for what it does not know.")


class LineageEdge(Model):
    """`subject` came from, or rests on, `object`; relations are those of W3C PROV."""

    subject: str
    relation: Relation
    object: str


class LineageAnswer(Model):
    """A part of the lineage graph, in order of distance from its roots."""

    roots: list[str]
    nodes: list[LineageNode]
    edges: list[LineageEdge] = Field(
        description="Edges of this page's nodes to nodes of this page and those before it."
    )
    truncated: bool = Field(
        description="True: the graph goes on beyond the depth or the number of nodes that one answer follows."
    )
    next_cursor: str | None
    reflects: Reflects


class TruthImpact(Model):
    """One truth with and without what is doubted."""

    subject: str
    predicate: str
    change: Literal["vanishes", "changes", "surer", "less sure", "stands"]
    now: TruthView
    without: TruthView | None


class ImpactAnswer(Model):
    """What depends on a source: its own assertions, what was derived from them, and the truths that they bear on."""

    source: str
    assertions: int = Field(description="Assertions of the source.")
    derived: int = Field(description="Assertions that rest on those, through any number of steps.")
    jobs: list[str] = Field(
        description="Jobs that derived something from them, the first 1,000: candidates to run again."
    )
    truths: list[TruthImpact]
    truncated: bool = Field(description="True: more was derived than one answer follows.")
    next_cursor: str | None
    reflects: Reflects
