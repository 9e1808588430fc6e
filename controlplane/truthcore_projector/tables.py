"""The projection's tables. Each row is one record's own, named by the record's position, and never changes.

So the projection is a set: it does not matter in which order records of different partitions arrive, how often they come again, or
where a run was interrupted. What is *current* (a job's phase, what is true) is a query over that set, in which order
counts only within a partition.
"""

import hashlib
import json
from typing import Final

from controlplane.events.catalog import EVENT_TYPES

PLACE: Final = 'topic VARCHAR, partition INTEGER, "offset" BIGINT, log_time TIMESTAMP'

TABLES: Final[dict[str, str]] = {
    "events": (
        f"{PLACE}, key BLOB, event_type VARCHAR, event_id VARCHAR, correlation_id VARCHAR, cause_topic VARCHAR,"
        " cause_partition INTEGER, cause_offset BIGINT, occurred_at TIMESTAMP, producer VARCHAR, tenant VARCHAR,"
        " actor VARCHAR, value BLOB"
    ),
    "submissions": (
        f"{PLACE}, job_id VARCHAR, job_type VARCHAR, contract_major INTEGER, pool VARCHAR, priority INTEGER, tenant VARCHAR,"
        " correlation_id VARCHAR, parent_job_id VARCHAR, not_before TIMESTAMP, payload BLOB, payload_sha256 VARCHAR,"
        " payload_size_bytes BIGINT, concurrency_key VARCHAR, rate_key VARCHAR, schedule_id VARCHAR, payload_key VARCHAR"
    ),
    "acceptances": f"{PLACE}, job_id VARCHAR, tenant VARCHAR",
    "conclusions": (
        f"{PLACE}, job_id VARCHAR, phase VARCHAR, attempt_id VARCHAR, attempt_number INTEGER, error_code VARCHAR,"
        " error_message VARCHAR, result BLOB, result_sha256 VARCHAR, result_size_bytes BIGINT, tenant VARCHAR"
    ),
    "job_changes": f"{PLACE}, job_id VARCHAR, kind VARCHAR, priority INTEGER, retry_job_id VARCHAR, reason VARCHAR, tenant VARCHAR",
    "job_logs": f"{PLACE}, job_id VARCHAR, attempt_id VARCHAR, line_count INTEGER, dropped BIGINT, value BLOB, tenant VARCHAR",
    "control_events": f"{PLACE}, kind VARCHAR, subject VARCHAR, value BLOB",
    "attempt_events": (
        f"{PLACE}, job_id VARCHAR, attempt_id VARCHAR, attempt_number INTEGER, runner_id VARCHAR, stage VARCHAR,"
        " fraction DOUBLE, message VARCHAR, error_code VARCHAR, slots INTEGER, due_at TIMESTAMP, tenant VARCHAR"
    ),
    "runner_events": (
        f"{PLACE}, runner_id VARCHAR, kind VARCHAR, name VARCHAR, pool VARCHAR, slots INTEGER, in_flight INTEGER, value BLOB"
    ),
    "assertions": (
        f"{PLACE}, assertion_id VARCHAR, subject VARCHAR, predicate VARCHAR, kind VARCHAR, text VARCHAR, number DOUBLE,"
        " unit VARCHAR, confidence DOUBLE, source VARCHAR, source_kind VARCHAR, valid_from TIMESTAMP, valid_to TIMESTAMP,"
        " job_id VARCHAR, attempt_id VARCHAR, supersedes VARCHAR, tenant VARCHAR, runner_id VARCHAR, capability VARCHAR,"
        " inputs VARCHAR[]"
    ),
    "retractions": f"{PLACE}, assertion_id VARCHAR, subject VARCHAR, source VARCHAR, reason VARCHAR, tenant VARCHAR",
    "predicates": (
        f"{PLACE}, predicate VARCHAR, cardinality VARCHAR, rule VARCHAR, unit VARCHAR, value_kind VARCHAR, description VARCHAR"
    ),
    "sources": f"{PLACE}, source VARCHAR, reliability DOUBLE, reason VARCHAR",
}
DETAIL_EVENTS: Final = ("AttemptProgressed", "JobLogged", "RunnerHeartbeat")
"""Events that nothing is concluded from: what they say is of interest while it is new, and history afterwards."""
DETAIL_TOPICS: Final = tuple(sorted({EVENT_TYPES[name].topic.name for name in DETAIL_EVENTS}))
DETAIL: Final[dict[str, str]] = {
    "events": f"event_type IN {DETAIL_EVENTS}",
    "attempt_events": "stage = 'PROGRESSED'",
    "job_logs": "true",
    "runner_events": "kind = 'HEARTBEAT'",
}
"""The tables that hold rows of those events, and which rows these are: what may leave the database for the archive."""


def stored(table: str) -> str:
    """Return the name under which the database itself keeps a table's rows; of some the table is a view over these and the archive."""
    return f"live_{table}" if table in DETAIL else table


FORM: Final = 2
"""Counts what the columns do not show: how the rows are kept."""
LAYOUT: Final = hashlib.sha256(json.dumps([FORM, TABLES, DETAIL]).encode()).hexdigest()[:16]
"""Names how a projection is kept: a file of another layout is folded anew, never converted."""
POSITIONS: Final = "CREATE TABLE IF NOT EXISTS positions (topic VARCHAR, partition INTEGER, next_offset BIGINT, PRIMARY KEY (topic, partition))"

_AT: Final = "_topic, _partition, _offset, _log_time"
_ATTEMPT: Final = f"{_AT}, job_id, attempt_id, attempt_number, runner_id"


def _concluded(phase: str, *, attempt: str, error: bool, result: str = "NULL, NULL, NULL") -> tuple[str, str]:
    code, message = ("error.code", "error.message") if error else ("NULL", "NULL")
    return "conclusions", f"{_AT}, job_id, '{phase}', {attempt}, {code}, {message}, {result}, header.tenant"


def _stage(stage: str, fraction: str = "NULL", message: str = "NULL", code: str = "NULL", slots: str = "NULL", due: str = "NULL") -> tuple[str, str]:  # fmt: skip
    return "attempt_events", f"{_ATTEMPT}, '{stage}', {fraction}, {message}, {code}, {slots}, {due}, header.tenant"


def _changed(kind: str, priority: str = "NULL", retried_as: str = "NULL", reason: str = "''") -> tuple[str, str]:
    return "job_changes", f"{_AT}, job_id, '{kind}', {priority}, {retried_as}, {reason}, header.tenant"


def _controlled(kind: str) -> tuple[str, str]:
    return "control_events", f"{_AT}, '{kind}', subject, _value"


EVENT_COLUMNS: Final = (
    f"{_AT}, _key, _event_type, header.event_id, header.correlation_id, header.causation.topic,"
    " header.causation.partition, header.causation.offset, header.occurred_at, header.producer.service, header.tenant,"
    " header.actor, _value"
)

ROWS: Final[dict[str, tuple[str, str]]] = {
    "JobSubmitted": (
        "submissions",
        f"{_AT}, job_id, job_type, contract_major, pool, priority, header.tenant, header.correlation_id,"
        " parent.job_id, not_before, payload.data, payload.reference.sha256, payload.reference.size_bytes, concurrency_key,"
        " rate_key, schedule_id, payload.encryption_key_id",
    ),
    "JobAccepted": ("acceptances", f"{_AT}, job_id, header.tenant"),
    "JobRejected": _concluded("REJECTED", attempt="NULL, NULL", error=True),
    "JobCompleted": _concluded(
        "COMPLETED", attempt="attempt_id, attempt_number", error=False,
        result="result.data, result.reference.sha256, result.reference.size_bytes",
    ),
    "JobFailed": _concluded("FAILED", attempt="attempt_id, attempt_number", error=True),
    "JobCancelled": _concluded("CANCELLED", attempt="attempt_id, attempt_number", error=False),
    "JobRouted": _stage("ROUTED", message="reason", slots="slots"),
    "AttemptStarted": _stage("STARTED"),
    "AttemptProgressed": _stage("PROGRESSED", fraction="fraction", message="message"),
    "AttemptSucceeded": _stage("SUCCEEDED"),
    "AttemptFailed": _stage("FAILED", message="error.message", code="error.code"),
    "AttemptCancelled": _stage("CANCELLED", message="reason"),
    "AttemptLost": _stage("LOST", message="reason", code="'attempt_lost'"),
    "JobRetryScheduled": _stage("RETRYING", message="error.message", code="error.code", due="due_at"),
    "JobReprioritised": _changed("REPRIORITISED", priority="priority"),
    "JobRetried": _changed("RETRIED", retried_as="retry_job_id", reason="reason"),
    "JobCancelRequested": _changed("CANCEL_REQUESTED", reason="reason"),
    "CommandRefused": _changed("COMMAND_REFUSED", reason="error.message"),
    "JobLogged": ("job_logs", f"{_AT}, job_id, attempt_id, len(lines), dropped, _value, header.tenant"),
    **{
        kind: _controlled(kind)
        for kind in ("LimitDeclared", "ShareDeclared", "PauseDeclared", "BreakerChanged", "AdmissionChanged")
    },
    "RunnerRegistered": ("runner_events", f"{_AT}, runner_id, 'REGISTERED', name, pool, slots, NULL, _value"),
    "RunnerHeartbeat": ("runner_events", f"{_AT}, runner_id, 'HEARTBEAT', NULL, NULL, NULL, len(attempt_ids), NULL"),
    "RunnerDraining": ("runner_events", f"{_AT}, runner_id, 'DRAINING', NULL, NULL, NULL, NULL, NULL"),
    "RunnerLeft": ("runner_events", f"{_AT}, runner_id, 'LEFT', NULL, NULL, NULL, NULL, NULL"),
    "TruthAsserted": (
        "assertions",
        f"{_AT}, header.event_id, subject, predicate, object.kind, object.text, object.number, object.unit, confidence,"
        " source.name, source.kind, valid_from, valid_to, evidence.job_id, evidence.attempt_id, supersedes, header.tenant,"
        " source.runner_id, source.capability, evidence.inputs",
    ),
    "TruthRetracted": ("retractions", f"{_AT}, assertion_id, subject, source.name, reason, header.tenant"),
    "PredicateDeclared": ("predicates", f"{_AT}, predicate, cardinality, rule, unit, value_kind, description"),
    "SourceDeclared": ("sources", f"{_AT}, source_name, reliability, reason"),
}  # fmt: skip
"""Event type -> (table, its columns from those of the decoded batch). Events that are not here are kept in `events` alone."""
