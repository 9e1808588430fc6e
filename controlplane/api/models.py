"""Requests and answers of the HTTP interface, as Pydantic models.

Log positions are written `topic/partition/offset`, as in causation; instants are RFC 3339 in UTC.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from controlplane.api.fields import AS_NUMBER, INT_MOST, Moment, Number, Whole
from controlplane.api.job_ids import FREE, RESERVED_ENDINGS
from controlplane.events.identity import IDENTIFIER, TENANT
from controlplane.events.types import Category

Identifier = Annotated[str, Field(pattern=f"^{IDENTIFIER.pattern}$")]
TenantName = Annotated[str, Field(pattern=f"^{TENANT.pattern}$")]
"""An identifier without / and :, which part a tenant's name from that of its key or secret."""
Labels = Annotated[
    dict[Annotated[str, Field(max_length=200)], Annotated[str, Field(max_length=200)]], Field(max_length=50)
]
PositionText = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+/\d+/\d+$", examples=["controlplane.submissions/3/1042"])]

LONGEST_SECONDS = 10 * 365 * 86_400
"""No time-out or pause is longer: ten years."""


class Model(BaseModel):
    """Strict about what it does not know, so that a typing error is an answer and not a surprise."""

    model_config = ConfigDict(extra="forbid")


class Phase(StrEnum):
    """Where a job stands; `UNKNOWN` is never stored, it is what an unknown id gets."""

    SUBMITTED = "SUBMITTED"
    QUEUED = "QUEUED"
    DELAYED = "DELAYED"
    ROUTED = "ROUTED"
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    REJECTED = "REJECTED"


class RetryOptions(Model):
    """How failed attempts are repeated; unset fields are the job type's defaults, and what it never retries stays so."""

    max_attempts: Whole = Field(3, ge=1, le=1000)
    initial_backoff_seconds: Number = Field(1.0, ge=0, le=LONGEST_SECONDS)
    multiplier: Number = Field(2.0, ge=1, le=1000)
    max_backoff_seconds: Number = Field(60.0, ge=0, le=LONGEST_SECONDS)
    max_lost_attempts: Whole = Field(5, ge=1, le=1000)
    never_retry: list[Category] = Field([], max_length=20)


class TimeoutOptions(Model):
    """Limits in seconds; none by default."""

    attempt_seconds: Annotated[float, Field(gt=0, le=LONGEST_SECONDS), AS_NUMBER] | None = None
    queue_seconds: Annotated[float, Field(gt=0, le=LONGEST_SECONDS), AS_NUMBER] | None = None
    total_seconds: Annotated[float, Field(gt=0, le=LONGEST_SECONDS), AS_NUMBER] | None = None


class JobRequest(Model):
    """A job to run. The client mints the id: the same id again is the same job."""

    job_type: Identifier = Field(examples=["image.thumbnail"])
    payload: Any = Field(None, description="JSON value handed to the handler.")
    job_id: Annotated[Identifier, FREE] | None = Field(
        None,
        description=f"Minted by the client, or by the gateway when it is missing. It ends in none of {', '.join(RESERVED_ENDINGS)}.",
    )
    contract_major: Whole = Field(1, ge=0, le=INT_MOST)
    pool: Identifier = "default"
    priority: Whole = Field(5, ge=0, le=9)
    required_labels: Labels = {}
    preferred_labels: Labels = {}
    slots: Annotated[int, Field(ge=1, le=100_000), AS_NUMBER] | None = None
    retry: RetryOptions | None = None
    timeouts: TimeoutOptions | None = None
    not_before: Moment | None = None
    deadline: Moment | None = None
    concurrency_key: Identifier | None = None
    rate_key: Identifier | None = None
    secret: Identifier | None = Field(
        None,
        description="Name of the key that payload and result are encrypted with; forgetting it makes them unreadable for ever.",
    )
    correlation_id: Identifier | None = None
    tenant: TenantName = "default"


class Acknowledgement(Model):
    """A durable yes: the record stands on the log at this position."""

    job_id: str | None = None
    event_id: str
    position: PositionText
    correlation_id: str


class Reflects(Model):
    """What an answer knows: per topic and partition the next offset, and how far behind the log that is."""

    positions: dict[str, dict[int, int]] = Field(
        description="topic -> partition -> offset of the first record not reflected."
    )
    lag_records: int
    lag_seconds: float
    answered_by: list[str] = Field([], description="The TruthCore processes that answered: one of each shard.")


class AttemptView(Model):
    """One attempt of a job."""

    attempt_id: str
    attempt_number: int
    runner_id: str
    phase: Literal["ROUTED", "STARTED", "SUCCEEDED", "FAILED", "LOST", "CANCELLED"]
    routed_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    fraction: float | None
    message: str | None
    error: dict[str, Any] | None
    routing_reason: str | None


class ContentView(Model):
    """Bytes that are kept outside of the log: `GET /v1/contents/SHA256` returns them."""

    sha256: str
    size_bytes: int


class JobView(Model):
    """A job as the log tells it."""

    job_id: str
    job_type: str
    phase: Phase
    pool: str
    priority: int
    tenant: str
    correlation_id: str
    submitted_at: datetime | None
    concluded_at: datetime | None
    attempts: list[AttemptView] = []
    payload: Any = None
    result: Any = None
    error: dict[str, Any] | None = None
    parent_job_id: str | None = None
    encrypted_with: str | None = Field(None, description="Key of payload and result, which are then not shown here.")
    waiting_for: str | None = Field(None, description="Why it waits, in words.")
    payload_reference: ContentView | None = Field(None, description="Set when the payload is too large for the log.")
    result_reference: ContentView | None = Field(None, description="Set when the result is too large for the log.")
    retried_as: str | None = Field(None, description="The job that does its work again.")


class EventView(Model):
    """One record of the log, decoded."""

    position: PositionText
    event_id: str
    event_type: str
    log_time: datetime
    occurred_at: datetime
    correlation_id: str
    causation: PositionText | None
    producer: str
    key: str
    event: dict[str, Any]


class Vote(Model):
    """One assertion in favour of a value."""

    assertion_id: str
    source: str
    source_kind: str | None = None
    confidence: float
    reliability: float
    strength: float = Field(description="Reliability of the source times its own confidence.")
    log_time: datetime
    position: PositionText
    job_id: str | None
    attempt_id: str | None = None
    valid_from: datetime | None = Field(None, description="Since when it holds; null: from the log time on.")
    valid_to: datetime | None = None


class Candidate(Model):
    """One of the values that compete, with what speaks for it."""

    value: Any
    kind: str
    text: str = Field(description="Canonical text of the value: votes with the same text and unit agree.")
    unit: str | None
    probability: float
    votes: list[Vote]
    against: list[str] = Field([], description="Sources that say another value, where only one can be true.")


class IgnoredVote(Model):
    """An assertion that breaks the predicate's contract, and how; it is kept, and does not count."""

    vote: Vote
    value: Any
    reason: str


class ContractView(Model):
    """What holds for a predicate: declared, or by the stated defaults."""

    value_kind: str | None
    cardinality: str
    rule: str
    unit: str | None
    many: bool
    declared_at: PositionText | None


class TruthView(Model):
    """What is true of a subject's property, how sure, by which rule, and who said what."""

    subject: str
    predicate: str
    value: Any
    kind: str
    unit: str | None
    confidence: float
    rule: str
    conflict: bool
    candidates: list[Candidate]
    contract: ContractView
    ignored: list[IgnoredVote] = []
    explanation: str


class CausationNode(Model):
    """One record in a causation tree, with its effects."""

    event: EventView
    effects: list["CausationNode"] = []


class RunnerView(Model):
    """One runner process."""

    runner_id: str
    name: str
    pool: str
    slots: int
    labels: dict[str, str]
    capabilities: list[str]
    state: Literal["REGISTERED", "DRAINING", "LEFT"]
    registered_at: datetime
    last_heartbeat_at: datetime | None
    in_flight: int


class JobAnswer(Model):
    """A job and what the answer reflects."""

    job: JobView
    reflects: Reflects


class JobsAnswer(Model):
    """A page of jobs, newest first; `next_cursor` continues."""

    jobs: list[JobView]
    next_cursor: str | None
    reflects: Reflects


class EventsAnswer(Model):
    """A page of events in log order."""

    events: list[EventView]
    next_cursor: str | None
    reflects: Reflects


class EventAnswer(Model):
    """One record of the log."""

    event: EventView
    reflects: Reflects


class TruthsAnswer(Model):
    """A page of truths."""

    truths: list[TruthView]
    next_cursor: str | None
    reflects: Reflects


class CausationAnswer(Model):
    """The chain up to the submission (oldest first), and the tree of effects below its start."""

    chain: list[EventView]
    tree: CausationNode
    reflects: Reflects


class RunnersAnswer(Model):
    """All runners that the log knows."""

    runners: list[RunnerView]
    reflects: Reflects


class TableDigest(Model):
    """The digest of one projected table: sum modulo 2^256 of SHA-256 over its canonical rows, in hexadecimal."""

    table: str
    rows: int
    digest: str


class DigestAnswer(Model):
    """Digests of a whole projection at a position vector."""

    tables: list[TableDigest]
    reflects: Reflects


class SqlRequest(Model):
    """One read-only SELECT over the documented tables."""

    sql: str = Field(max_length=20_000)
    limit_rows: Whole = Field(1000, ge=1, le=1_000_000, description="As JSON at most 10,000.")


class SqlAnswer(Model):
    """Rows of a query."""

    columns: list[str]
    rows: list[list[Any]]
    truncated: bool
    reflects: Reflects


class Problem(BaseModel):
    """Every error: an ErrorEnvelope in the outer form of RFC 9457 (application/problem+json)."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str | None = None
    error_id: str
    category: str
    severity: str
    code: str
    message: str
    retryable: bool
    retry_after_seconds: float | None = None
    contract_version: dict[str, int]
    field: str | None = None
    expected: str | None = None
    found: str | None = None
