"""The events as Python values. Generated from schemas/avro by `make schemas`: do not edit."""

from enum import StrEnum

import msgspec


class LogPosition(msgspec.Struct, frozen=True, kw_only=True):
    """Where a record stands on the log: its identity for causation, proofs and read-your-writes."""

    topic: str
    """Kafka topic."""
    partition: int
    """Partition of the topic."""
    offset: int
    """Offset in the partition."""


class Producer(msgspec.Struct, frozen=True, kw_only=True):
    """The process that wrote an event."""

    service: str
    """Service of the catalog, for example jobforge."""
    version: str
    """Version of the service that wrote it."""
    instance: str = ""
    """Process identity, unique per process start."""


class EventHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What every event carries: identity, time, cause and who wrote it."""

    event_id: str
    """Unique id; a function of the cause wherever the event is, so that publishing twice is harmless."""
    occurred_at: int
    """When the producer made it. The log time is the append time of the broker."""
    correlation_id: str
    """The chain it belongs to: the first submission of the chain."""
    causation: LogPosition | None = None
    """Position of the record that caused it; null only for what comes from outside."""
    producer: Producer
    """Who wrote it."""
    tenant: str = "default"
    """Tenant it belongs to."""
    actor: str | None = None
    """Who asked for it: the identity of the client or operator."""


class AdmissionChanged(msgspec.Struct, frozen=True, kw_only=True):
    """New submissions are refused from now on, or admitted again; what runs goes on either way."""

    header: EventHeader
    """Identity, time, cause, producer."""
    subject: str
    """admission."""
    open: bool
    """Whether submissions are admitted."""
    reason: str
    """Why, for a person."""
    in_flight: int
    """Jobs accepted and not concluded."""
    limit: int
    """How many may be."""
    retry_after_seconds: float = 2.0
    """When to try again."""


class AlertCleared(msgspec.Struct, frozen=True, kw_only=True):
    """The condition of an alert ended."""

    header: EventHeader
    """Identity, time, cause, producer."""
    alert_id: str
    """The alert."""
    kind: str
    """Code of the condition."""
    subject: str
    """What it concerned."""
    message: str = ""
    """For a person."""


class Severity(StrEnum):
    """How loudly an error or alert has to be told."""

    UNKNOWN = "UNKNOWN"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"


class AlertRaised(msgspec.Struct, frozen=True, kw_only=True):
    """Something needs an operator."""

    header: EventHeader
    """Identity, time, cause, producer."""
    alert_id: str
    """Stable while the condition lasts."""
    kind: str
    """Code of the condition, for example runner_lost."""
    severity: Severity
    """How loud."""
    subject: str
    """What it concerns."""
    message: str
    """For a person."""


class AttemptCancelled(msgspec.Struct, frozen=True, kw_only=True):
    """A handler stopped because it was asked to."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    attempt_id: str
    """The lease under which it ran."""
    attempt_number: int
    """1 for the first attempt."""
    runner_id: str
    """The runner process."""
    reason: str = ""
    """Why, for a person."""
    duration_micros: int = 0
    """Run time of the handler."""


class Category(StrEnum):
    """Who has to act on an error, and therefore whether trying again can help."""

    UNKNOWN = "UNKNOWN"
    VALIDATION = "VALIDATION"
    NOT_FOUND = "NOT_FOUND"
    CONFLICT = "CONFLICT"
    UNAUTHORIZED = "UNAUTHORIZED"
    FORBIDDEN = "FORBIDDEN"
    LIMIT = "LIMIT"
    TIMEOUT = "TIMEOUT"
    UNAVAILABLE = "UNAVAILABLE"
    EXECUTION = "EXECUTION"
    CANCELLED = "CANCELLED"
    CONTRACT = "CONTRACT"
    INTERNAL = "INTERNAL"


class ContractVersion(msgspec.Struct, frozen=True, kw_only=True):
    """Version of the contract that a refusal was made under."""

    major: int
    """Breaking changes."""
    minor: int
    """Additions."""
    patch: int
    """Corrections."""


class ErrorEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """The one form of every refusal and failure."""

    error_id: str
    """Identity of this occurrence."""
    category: Category
    """Who has to act."""
    severity: Severity
    """How loud."""
    code: str
    """Stable, documented code, for example payload_invalid."""
    message: str
    """What was expected and what was found, for a person."""
    retryable: bool
    """Whether the same request can succeed later."""
    retry_after_seconds: float | None = None
    """When to try again."""
    contract_version: ContractVersion
    """Contract in force."""
    field: str | None = None
    """Path of the offending field."""
    expected: str | None = None
    """What was expected."""
    found: str | None = None
    """What was found, shortened."""


class AttemptFailed(msgspec.Struct, frozen=True, kw_only=True):
    """A handler failed, or its input was refused."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    attempt_id: str
    """The lease under which it ran."""
    attempt_number: int
    """1 for the first attempt."""
    runner_id: str
    """The runner process."""
    error: ErrorEnvelope
    """What happened."""
    duration_micros: int = 0
    """Run time of the handler."""


class AttemptLost(msgspec.Struct, frozen=True, kw_only=True):
    """The lease of an attempt ended without an observation."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    attempt_id: str
    """The lease under which it ran."""
    attempt_number: int
    """1 for the first attempt."""
    runner_id: str
    """The runner process."""
    reason: str = ""
    """Why, for a person."""


class AttemptProgressed(msgspec.Struct, frozen=True, kw_only=True):
    """A handler reported progress."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    attempt_id: str
    """The lease under which it ran."""
    attempt_number: int
    """1 for the first attempt."""
    runner_id: str
    """The runner process."""
    fraction: float
    """Done, in [0, 1]."""
    message: str = ""
    """For a person."""


class AttemptRevoked(msgspec.Struct, frozen=True, kw_only=True):
    """JobForge takes a lease back: the handler should stop."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    attempt_id: str
    """The lease under which it ran."""
    attempt_number: int
    """1 for the first attempt."""
    runner_id: str
    """The runner process."""
    reason: str = ""
    """Why, for a person."""


class AttemptStarted(msgspec.Struct, frozen=True, kw_only=True):
    """A runner began an attempt."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    attempt_id: str
    """The lease under which it ran."""
    attempt_number: int
    """1 for the first attempt."""
    runner_id: str
    """The runner process."""


class ContentReference(msgspec.Struct, frozen=True, kw_only=True):
    """A large payload kept outside of the log (claim check)."""

    uri: str
    """Where it is kept."""
    sha256: str
    """SHA-256 of its bytes, in hexadecimal."""
    size_bytes: int
    """Its size."""


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """A payload or a result: bytes on the event, or a reference to bytes kept elsewhere."""

    content_type: str = "application/json"
    """Media type of the bytes."""
    data: bytes = b""
    """The bytes; empty when referenced."""
    reference: ContentReference | None = None
    """Set when the bytes are kept elsewhere."""
    encryption_key_id: str | None = None
    """Key that the bytes are encrypted with; null when they are in the clear."""


class ValueKind(StrEnum):
    """Type of an asserted object."""

    STRING = "STRING"
    NUMBER = "NUMBER"
    BOOLEAN = "BOOLEAN"
    INSTANT = "INSTANT"
    REFERENCE = "REFERENCE"
    JSON = "JSON"


class TypedValue(msgspec.Struct, frozen=True, kw_only=True):
    """The object of an assertion, in one canonical text per value."""

    kind: ValueKind
    """Its type."""
    text: str
    """Canonical text: shortest decimal, true/false, RFC 3339 in UTC, subject, or canonical JSON."""
    number: float | None = None
    """The number, when it is one."""
    unit: str | None = None
    """Unit of the number."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler says about the world; it becomes an assertion if its job concludes."""

    subject: str
    """What it is about."""
    predicate: str
    """Which property."""
    object: TypedValue
    """Its value."""
    confidence: float = 1.0
    """Degree of belief in [0, 1]."""
    valid_from: int | None = None
    """Since when it holds; null: from the log time on."""
    valid_to: int | None = None
    """Until when; null: open."""
    inputs: tuple[str, ...] = ()
    """Assertion ids or positions (topic/partition/offset) it was derived from."""


class AttemptSucceeded(msgspec.Struct, frozen=True, kw_only=True):
    """A handler returned; JobForge concludes."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    attempt_id: str
    """The lease under which it ran."""
    attempt_number: int
    """1 for the first attempt."""
    runner_id: str
    """The runner process."""
    result: Content
    """Output of the handler."""
    claims: tuple[Claim, ...] = ()
    """What it says about the world."""
    capability: str
    """Job type and contract version that ran, for example image.thumbnail@1.2.0."""
    runner_name: str
    """Stable name of the runner."""
    duration_micros: int = 0
    """Run time of the handler."""


class BreakerChanged(msgspec.Struct, frozen=True, kw_only=True):
    """A circuit breaker opened, tries again, or closed."""

    header: EventHeader
    """Identity, time, cause, producer."""
    subject: str
    """breaker:type:JOB_TYPE or breaker:runner:RUNNER_ID."""
    state: str
    """CLOSED, OPEN or HALF_OPEN."""
    failures: int
    """Failures of the destination's own that were counted."""
    successes: int
    """Successes that were counted beside them."""
    until: int | None = None
    """OPEN: when it tries again."""
    openings: int = 0
    """How many times in a row it opened."""
    reason: str
    """Why, for a person."""


class BulkApplied(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a bulk command in one partition of jobs."""

    header: EventHeader
    """Identity, time, cause, producer."""
    subject: str
    """bulk:ID."""
    bulk_id: str
    """The command."""
    partition: int
    """Partition of jobs."""
    matched: int
    """Jobs that the query found."""
    refused: int
    """Of those, jobs whose state did not allow it."""


class BulkRequested(msgspec.Struct, frozen=True, kw_only=True):
    """One command for every job that a query finds, applied by the server to the jobs that were submitted before it."""

    header: EventHeader
    """Identity, time, cause, producer."""
    subject: str
    """bulk:ID."""
    bulk_id: str
    """The command."""
    action: str
    """cancel, retry or reprioritise."""
    job_type: str | None = None
    """Only jobs of this type."""
    pool: str | None = None
    """Only jobs of this pool."""
    tenant: str | None = None
    """Only jobs of this tenant."""
    phase: str | None = None
    """Only jobs in this phase."""
    correlation_id: str | None = None
    """Only jobs of this chain."""
    schedule_id: str | None = None
    """Only jobs of this schedule."""
    key: str | None = None
    """Only jobs under this concurrency or rate key."""
    priority: int | None = None
    """Where reprioritised jobs shall stand, 0 to 9."""
    kill: bool = False
    """Cancel: conclude at once, even if the runner does not answer."""
    reason: str = ""
    """Why, for a person."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how soon failed attempts are repeated: exponential backoff with full jitter."""

    max_attempts: int = 3
    """Attempts in all, the first included."""
    initial_backoff_seconds: float = 1.0
    """Upper bound of the first delay."""
    multiplier: float = 2.0
    """Growth of the bound per attempt."""
    max_backoff_seconds: float = 60.0
    """Largest bound."""
    max_lost_attempts: int = 5
    """Attempts that may be lost with their runner, counted apart from failures."""
    never_retry: tuple[Category, ...] = ()
    """Categories that conclude at once."""


class Capability(msgspec.Struct, frozen=True, kw_only=True):
    """One job type that a runner can execute, with its contracts."""

    job_type: str
    """Name of the job type."""
    version: str
    """Version major.minor.patch of the contract."""
    payload_schema: str = "{}"
    """JSON Schema (2020-12) of the payload."""
    result_schema: str = "{}"
    """JSON Schema (2020-12) of the result."""
    timeout_seconds: float | None = None
    """Default limit of one attempt."""
    retry: RetryPolicy | None = None
    """Default policy of the job type."""
    slots: int = 1
    """Slots that one attempt takes."""
    description: str = ""
    """For people."""


class Cardinality(StrEnum):
    """How many values a predicate has at one moment."""

    UNDECLARED = "UNDECLARED"
    SINGLE = "SINGLE"
    MULTIPLE = "MULTIPLE"


class CheckpointSigned(msgspec.Struct, frozen=True, kw_only=True):
    """The Merkle tree of one partition up to a record, signed: whoever keeps this can tell when history is changed."""

    header: EventHeader
    """Identity, time, cause (the last record covered), producer."""
    origin: str
    """Name of the tree, topic/partition: the record key."""
    topic: str
    """Topic of the tree."""
    partition: int
    """Partition of the tree."""
    tree_size: int
    """Records covered."""
    end_offset: int
    """Offset after the last record covered."""
    root_hash: bytes
    """Root of the tree (RFC 6962), 32 bytes."""
    note: str
    """The checkpoint as a signed note (C2SP tlog-checkpoint and signed-note)."""
    start_offset: int = 0
    """Offset of the first record covered."""
    frontier: tuple[bytes, ...] = ()
    """Roots of the tree's perfect subtrees, the largest first: with them the tree grows on from here. The root follows from them."""


class CommandRefused(msgspec.Struct, frozen=True, kw_only=True):
    """A command on a job could not be carried out."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    command: str
    """Event type of the command."""
    error: ErrorEnvelope
    """Why."""


class DeadLetterSettled(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody dealt with a dead letter: sent its record again, or gave it up."""

    header: EventHeader
    """Identity, time, cause, producer."""
    position: LogPosition
    """Where the refused record stands."""
    redriven_to: LogPosition | None = None
    """Where it was sent again; null: it was given up."""
    reason: str = ""
    """Why, for a person."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What an assertion rests on."""

    job_id: str | None = None
    """Job whose attempt claimed it."""
    attempt_id: str | None = None
    """The attempt."""
    inputs: tuple[str, ...] = ()
    """Assertion ids or positions it was derived from."""


class FusionRule(StrEnum):
    """How competing assertions become the current truth."""

    DEFAULT = "DEFAULT"
    LATEST = "LATEST"
    BAYES = "BAYES"
    NOISY_OR = "NOISY_OR"
    MOST_TRUSTED = "MOST_TRUSTED"


class JobAccepted(msgspec.Struct, frozen=True, kw_only=True):
    """JobForge took the job into its queue."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    job_type: str
    """What is to be done."""
    pool: str
    """Scheduling pool."""
    priority: int
    """0 (least) to 9 (critical)."""
    not_before: int | None = None
    """Earliest start; null: at once."""


class JobCancelRequested(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody asks for a job to be cancelled."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    reason: str = ""
    """Why, for a person."""
    kill: bool = False
    """Conclude at once instead of asking the handler to stop."""
    tree: bool = False
    """Its child jobs as well."""


class JobCancelled(msgspec.Struct, frozen=True, kw_only=True):
    """The job was cancelled; terminal."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    attempt_id: str | None = None
    """Attempt that was running, if any."""
    attempt_number: int = 0
    """Attempts made."""
    reason: str = ""
    """Why, for a person."""


class JobCompleted(msgspec.Struct, frozen=True, kw_only=True):
    """The job succeeded; terminal."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    attempt_id: str
    """The lease under which it ran."""
    attempt_number: int
    """1 for the first attempt."""
    runner_id: str
    """The runner process."""
    result: Content
    """Output of the handler."""


class JobFailed(msgspec.Struct, frozen=True, kw_only=True):
    """The job failed for good; terminal."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    attempt_id: str | None = None
    """Last attempt, if there was one."""
    attempt_number: int = 0
    """Attempts made."""
    runner_id: str | None = None
    """Its runner."""
    error: ErrorEnvelope
    """Why."""


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line that a handler logged."""

    at: int
    """When."""
    level: str
    """DEBUG to CRITICAL."""
    logger: str
    """Name of the logger."""
    message: str
    """The line, cut to the limit."""


class JobLogged(msgspec.Struct, frozen=True, kw_only=True):
    """Lines that a handler logged."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    attempt_id: str
    """The attempt."""
    lines: tuple[LogLine, ...] = ()
    """In order."""
    dropped: int = 0
    """Lines over the limit so far."""


class JobRejected(msgspec.Struct, frozen=True, kw_only=True):
    """JobForge refused the submission; terminal."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    job_type: str = ""
    """What was asked for."""
    error: ErrorEnvelope
    """Why."""


class JobReprioritiseRequested(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody asks for a waiting job to move in the queue."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    priority: int
    """0 (least) to 9 (critical)."""
    reason: str = ""
    """Why, for a person."""


class JobReprioritised(msgspec.Struct, frozen=True, kw_only=True):
    """A waiting job moved in the queue."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    priority: int
    """0 (least) to 9 (critical)."""


class JobRetried(msgspec.Struct, frozen=True, kw_only=True):
    """A retry that somebody asked for was granted."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    retry_job_id: str | None = None
    """The new job that does the same work; null: the job itself runs again, now."""
    reason: str = ""
    """Why, for a person."""


class JobRetryRequested(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody asks for a concluded job to run again."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    reason: str = ""
    """Why, for a person."""
    submission: LogPosition | None = None
    """Where the job was submitted, for a job that JobForge no longer knows."""


class JobRetryScheduled(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt ended without success and another will follow."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    attempt_id: str
    """The lease under which it ran."""
    attempt_number: int
    """1 for the first attempt."""
    runner_id: str
    """The runner process."""
    error: ErrorEnvelope
    """How the attempt ended."""
    due_at: int
    """When the job is queued again."""


class RefusedCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """A runner that was looked at and not chosen."""

    runner_id: str
    """The runner."""
    reason: str
    """Why not."""


class JobRouted(msgspec.Struct, frozen=True, kw_only=True):
    """JobForge leases a job to a runner; carries all that the runner needs."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    attempt_id: str
    """The lease under which it ran."""
    attempt_number: int
    """1 for the first attempt."""
    runner_id: str
    """The runner process."""
    job_type: str
    """What is to be done."""
    contract_major: int
    """Major version of the contract."""
    payload: Content
    """Input of the handler."""
    pool: str
    """Scheduling pool."""
    priority: int
    """0 (least) to 9 (critical)."""
    slots: int = 1
    """Slots that it takes."""
    job_partition: int
    """Partition of the job in submissions, progress and jobs."""
    lease_seconds: float
    """The lease is lost unless the attempt is reported or in a heartbeat within this time."""
    timeout_seconds: float | None = None
    """Limit of the attempt."""
    queued_at: int
    """Since when it waited."""
    reason: str = ""
    """Why this runner."""
    refused: tuple[RefusedCandidate, ...] = ()
    """Runners looked at and not chosen."""


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Limits in time; null means none."""

    attempt_seconds: float | None = None
    """One attempt, from hand-over."""
    queue_seconds: float | None = None
    """Waiting for a runner."""
    total_seconds: float | None = None
    """From submission to conclusion."""


class ParentJob(msgspec.Struct, frozen=True, kw_only=True):
    """The job attempt that submitted this one."""

    job_id: str
    """The parent."""
    attempt_id: str
    """Its attempt."""


class JobSubmitted(msgspec.Struct, frozen=True, kw_only=True):
    """A client asks for a job."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    job_type: str
    """What is to be done."""
    contract_major: int = 1
    """Major version of the job type contract."""
    payload: Content
    """Input of the handler."""
    pool: str = "default"
    """Scheduling pool."""
    priority: int = 5
    """0 (least) to 9 (critical)."""
    required_labels: dict[str, str] = {}
    """Labels that a runner must have."""
    preferred_labels: dict[str, str] = {}
    """Labels that a runner had better have."""
    slots: int | None = None
    """Slots that it takes; null: as the capability says."""
    retry: RetryPolicy | None = None
    """Policy; null: as the capability says."""
    timeouts: Timeouts | None = None
    """Limits; null: as the capability says."""
    not_before: int | None = None
    """Earliest start."""
    deadline: int | None = None
    """Latest conclusion."""
    concurrency_key: str | None = None
    """Key whose concurrency limit it shares."""
    rate_key: str | None = None
    """Key whose rate limit it shares."""
    parent: ParentJob | None = None
    """Attempt that submitted it."""
    schedule_id: str | None = None
    """Schedule that submitted it."""
    idempotency_key: str | None = None
    """Key that the client retried under."""
    retry_of: str | None = None
    """Job whose work it does again."""


class JobTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """What a schedule submits: a job without an id and a time."""

    job_type: str
    """What is to be done."""
    contract_major: int = 1
    """Major version of the job type contract."""
    payload: Content
    """Input of the handler."""
    pool: str = "default"
    """Scheduling pool."""
    priority: int = 5
    """0 (least) to 9 (critical)."""
    required_labels: dict[str, str] = {}
    """Labels that a runner must have."""
    preferred_labels: dict[str, str] = {}
    """Labels that a runner had better have."""
    slots: int | None = None
    """Slots that it takes; null: as the capability says."""
    retry: RetryPolicy | None = None
    """Policy; null: as the capability says."""
    timeouts: Timeouts | None = None
    """Limits; null: as the capability says."""
    concurrency_key: str | None = None
    """Key whose concurrency limit it shares."""
    rate_key: str | None = None
    """Key whose rate limit it shares."""


class LimitDeclared(msgspec.Struct, frozen=True, kw_only=True):
    """How much of something may run at once, and how often it may start; both null: no limit any more."""

    header: EventHeader
    """Identity, time, cause, producer."""
    subject: str
    """What is limited: key:NAME, type:JOB_TYPE or tenant:NAME; a NAME that ends in * stands for every name that begins so, each with a limit of its own."""
    max_running: int | None = None
    """Attempts that may run at once."""
    starts: int | None = None
    """Attempts that may start in each period."""
    period_seconds: float = 1.0
    """Length of the period."""
    reason: str = ""
    """Why, for a person."""


class ObservationRefused(msgspec.Struct, frozen=True, kw_only=True):
    """An observation came without a valid lease: recorded, not applied."""

    header: EventHeader
    """Identity, time, cause, producer."""
    job_id: str
    """The job."""
    attempt_id: str
    """Lease that it claimed."""
    observation: str
    """Event type of the observation."""
    error: ErrorEnvelope
    """Why."""


class PauseDeclared(msgspec.Struct, frozen=True, kw_only=True):
    """Routing of a pool or of a job type stops, or goes on."""

    header: EventHeader
    """Identity, time, cause, producer."""
    subject: str
    """pool:NAME or type:JOB_TYPE."""
    paused: bool
    """Whether it is paused from now on."""
    reason: str = ""
    """Why, for a person."""


class PredicateDeclared(msgspec.Struct, frozen=True, kw_only=True):
    """The contract of a predicate."""

    header: EventHeader
    """Identity, time, cause, producer."""
    subject: str
    """predicate:<name>, the record key."""
    predicate: str
    """Name."""
    value_kind: ValueKind | None = None
    """Type of its object; null: any."""
    cardinality: Cardinality
    """Values at one moment."""
    rule: FusionRule
    """How competing assertions are fused."""
    unit: str | None = None
    """Unit of its numbers."""
    description: str = ""
    """For people."""


class RecordRefused(msgspec.Struct, frozen=True, kw_only=True):
    """A record that no consumer could use, kept with its bytes and the reason."""

    header: EventHeader
    """Identity, time, cause, producer."""
    position: LogPosition
    """The record."""
    key: bytes | None = None
    """Its key."""
    value: bytes
    """Its value, cut to the limit."""
    value_size_bytes: int
    """Size of the whole value."""
    consumer: str
    """Service that refused it."""
    error: ErrorEnvelope
    """Why."""


class RunnerDraining(msgspec.Struct, frozen=True, kw_only=True):
    """A runner process takes no new work."""

    header: EventHeader
    """Identity, time, cause, producer."""
    runner_id: str
    """The runner process: unique per process start."""
    reason: str = ""
    """Why, for a person."""


class RunnerHeartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """A runner process lives, and holds these leases."""

    header: EventHeader
    """Identity, time, cause, producer."""
    runner_id: str
    """The runner process: unique per process start."""
    sequence: int
    """Counts up from 0."""
    attempt_ids: tuple[str, ...] = ()
    """Leases that it holds."""
    draining: bool = False
    """It takes no new work."""


class RunnerLeft(msgspec.Struct, frozen=True, kw_only=True):
    """A runner process ended in order."""

    header: EventHeader
    """Identity, time, cause, producer."""
    runner_id: str
    """The runner process: unique per process start."""
    reason: str = ""
    """Why, for a person."""


class RunnerRegistered(msgspec.Struct, frozen=True, kw_only=True):
    """A runner process offers its capabilities."""

    header: EventHeader
    """Identity, time, cause, producer."""
    runner_id: str
    """The runner process: unique per process start."""
    name: str
    """Stable name."""
    pool: str = "default"
    """Scheduling pool that it serves."""
    slots: int
    """Attempts at once."""
    labels: dict[str, str] = {}
    """For selection."""
    capabilities: tuple[Capability, ...] = ()
    """What it can execute."""
    inbox_partition: int
    """Partition of routing that it reads."""
    heartbeat_seconds: float
    """Interval of its heartbeats."""


class ScheduleDeclared(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs are to be submitted at the times of a cron expression, from now on."""

    header: EventHeader
    """Identity, time, cause, producer."""
    subject: str
    """schedule:ID."""
    schedule_id: str
    """The schedule."""
    cron: str
    """Five fields, or six with seconds first, as crontab(5) has them."""
    time_zone: str = "UTC"
    """IANA name of the zone that the fields are in."""
    job: JobTemplate
    """What is submitted each time."""
    overlap: bool = True
    """Whether a job may be submitted while the one before is not concluded."""
    catch_up_seconds: float = 60.0
    """A time that was missed by more than this is left out."""
    paused: bool = False
    """Whether it rests."""


class ScheduleFired(msgspec.Struct, frozen=True, kw_only=True):
    """A time of a schedule came."""

    header: EventHeader
    """Identity, time, cause, producer."""
    subject: str
    """schedule:ID."""
    schedule_id: str
    """The schedule."""
    due_at: int
    """The time."""
    job_id: str | None = None
    """The job that was submitted; null: none was."""
    missed: int = 0
    """Earlier times that were left out because they were too long ago."""
    reason: str = ""
    """Why no job was submitted, for a person."""


class ScheduleRemoved(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule ends."""

    header: EventHeader
    """Identity, time, cause, producer."""
    subject: str
    """schedule:ID."""
    schedule_id: str
    """The schedule."""
    reason: str = ""
    """Why, for a person."""


class SecretForgotten(msgspec.Struct, frozen=True, kw_only=True):
    """A key was forgotten, and with it everything that it encrypted."""

    header: EventHeader
    """Identity, time, cause, producer."""
    subject: str
    """secret:TENANT/NAME."""
    key_id: str
    """The key, as contents name it: TENANT/NAME."""
    reason: str = ""
    """Why, for a person."""


class ShareDeclared(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's weight where tenants compete for the runners of a pool."""

    header: EventHeader
    """Identity, time, cause, producer."""
    subject: str
    """tenant:NAME."""
    weight: float
    """Its part, relative to the weights of the others; 1 unless declared."""


class SourceKind(StrEnum):
    """What kind of agent says it."""

    UNKNOWN = "UNKNOWN"
    JOB = "JOB"
    CLIENT = "CLIENT"
    SYSTEM = "SYSTEM"


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Who says so; the name has one vote."""

    kind: SourceKind
    """Kind of agent."""
    name: str
    """Stable identity that votes, for example runner media/image.thumbnail@1, or the client identity."""
    runner_id: str | None = None
    """Process that ran the job."""
    capability: str | None = None
    """Capability with its version."""


class SourceDeclared(msgspec.Struct, frozen=True, kw_only=True):
    """The reliability of a source."""

    header: EventHeader
    """Identity, time, cause, producer."""
    subject: str
    """source:<name>, the record key."""
    source_name: str
    """The source."""
    reliability: float
    """Weight of its votes in [0, 1]."""
    reason: str = ""
    """Why, for a person."""


class TruthAsserted(msgspec.Struct, frozen=True, kw_only=True):
    """A source says that a subject has a property; its event id is the assertion id."""

    header: EventHeader
    """Identity, time, cause, producer."""
    subject: str
    """What it is about."""
    predicate: str
    """Which property."""
    object: TypedValue
    """Its value."""
    confidence: float
    """The belief of the source, in [0, 1]."""
    source: Source
    """Who says so."""
    valid_from: int | None = None
    """Since when it holds; null: from the log time on."""
    valid_to: int | None = None
    """Until when; null: open."""
    evidence: Evidence
    """What it rests on."""
    supersedes: str | None = None
    """Assertion id that it replaces."""


class TruthRetracted(msgspec.Struct, frozen=True, kw_only=True):
    """A source takes an assertion back."""

    header: EventHeader
    """Identity, time, cause, producer."""
    subject: str
    """Subject of the assertion (and the record key)."""
    assertion_id: str
    """The assertion."""
    source: Source
    """Who takes it back."""
    reason: str = ""
    """Why, for a person."""
