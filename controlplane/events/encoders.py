"""The events as Avro datums. Generated from schemas/avro by `make schemas`: do not edit."""

# fmt: off
# ruff: noqa: E501, N802 -- one field a line, functions named like the records they encode

from controlplane.events import types
from controlplane.events.avro_binary import NULL, PRESENT, array, blob, boolean, double, long, mapping, text


def encode_LogPosition(event: types.LogPosition) -> bytes:
    return b"".join(
        (
            text(event.topic),
            long(event.partition),
            long(event.offset),
        )
    )


def encode_Producer(event: types.Producer) -> bytes:
    return b"".join(
        (
            text(event.service),
            text(event.version),
            text(event.instance),
        )
    )


def encode_EventHeader(event: types.EventHeader) -> bytes:
    return b"".join(
        (
            text(event.event_id),
            long(event.occurred_at),
            text(event.correlation_id),
            NULL if (causation := event.causation) is None else PRESENT + encode_LogPosition(causation),
            encode_Producer(event.producer),
            text(event.tenant),
            NULL if (actor := event.actor) is None else PRESENT + text(actor),
        )
    )


def encode_AdmissionChanged(event: types.AdmissionChanged) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.subject),
            boolean(event.open),
            text(event.reason),
            long(event.in_flight),
            long(event.limit),
            double(event.retry_after_seconds),
        )
    )


def encode_AlertCleared(event: types.AlertCleared) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.alert_id),
            text(event.kind),
            text(event.subject),
            text(event.message),
        )
    )


_SEVERITY = {
    "UNKNOWN": long(0),
    "INFO": long(1),
    "WARNING": long(2),
    "ERROR": long(3),
    "CRITICAL": long(4),
}


def encode_Severity(event: types.Severity) -> bytes:
    return _SEVERITY[event]


def encode_AlertRaised(event: types.AlertRaised) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.alert_id),
            text(event.kind),
            encode_Severity(event.severity),
            text(event.subject),
            text(event.message),
        )
    )


def encode_AttemptCancelled(event: types.AttemptCancelled) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            text(event.attempt_id),
            long(event.attempt_number),
            text(event.runner_id),
            text(event.reason),
            long(event.duration_micros),
        )
    )


_CATEGORY = {
    "UNKNOWN": long(0),
    "VALIDATION": long(1),
    "NOT_FOUND": long(2),
    "CONFLICT": long(3),
    "UNAUTHORIZED": long(4),
    "FORBIDDEN": long(5),
    "LIMIT": long(6),
    "TIMEOUT": long(7),
    "UNAVAILABLE": long(8),
    "EXECUTION": long(9),
    "CANCELLED": long(10),
    "CONTRACT": long(11),
    "INTERNAL": long(12),
}


def encode_Category(event: types.Category) -> bytes:
    return _CATEGORY[event]


def encode_ContractVersion(event: types.ContractVersion) -> bytes:
    return b"".join(
        (
            long(event.major),
            long(event.minor),
            long(event.patch),
        )
    )


def encode_ErrorEnvelope(event: types.ErrorEnvelope) -> bytes:
    return b"".join(
        (
            text(event.error_id),
            encode_Category(event.category),
            encode_Severity(event.severity),
            text(event.code),
            text(event.message),
            boolean(event.retryable),
            NULL if (retry_after_seconds := event.retry_after_seconds) is None else PRESENT + double(retry_after_seconds),
            encode_ContractVersion(event.contract_version),
            NULL if (field := event.field) is None else PRESENT + text(field),
            NULL if (expected := event.expected) is None else PRESENT + text(expected),
            NULL if (found := event.found) is None else PRESENT + text(found),
        )
    )


def encode_AttemptFailed(event: types.AttemptFailed) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            text(event.attempt_id),
            long(event.attempt_number),
            text(event.runner_id),
            encode_ErrorEnvelope(event.error),
            long(event.duration_micros),
        )
    )


def encode_AttemptLost(event: types.AttemptLost) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            text(event.attempt_id),
            long(event.attempt_number),
            text(event.runner_id),
            text(event.reason),
        )
    )


def encode_AttemptProgressed(event: types.AttemptProgressed) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            text(event.attempt_id),
            long(event.attempt_number),
            text(event.runner_id),
            double(event.fraction),
            text(event.message),
        )
    )


def encode_AttemptRevoked(event: types.AttemptRevoked) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            text(event.attempt_id),
            long(event.attempt_number),
            text(event.runner_id),
            text(event.reason),
        )
    )


def encode_AttemptStarted(event: types.AttemptStarted) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            text(event.attempt_id),
            long(event.attempt_number),
            text(event.runner_id),
        )
    )


def encode_ContentReference(event: types.ContentReference) -> bytes:
    return b"".join(
        (
            text(event.uri),
            text(event.sha256),
            long(event.size_bytes),
        )
    )


def encode_Content(event: types.Content) -> bytes:
    return b"".join(
        (
            text(event.content_type),
            blob(event.data),
            NULL if (reference := event.reference) is None else PRESENT + encode_ContentReference(reference),
            NULL if (encryption_key_id := event.encryption_key_id) is None else PRESENT + text(encryption_key_id),
        )
    )


_VALUEKIND = {
    "STRING": long(0),
    "NUMBER": long(1),
    "BOOLEAN": long(2),
    "INSTANT": long(3),
    "REFERENCE": long(4),
    "JSON": long(5),
}


def encode_ValueKind(event: types.ValueKind) -> bytes:
    return _VALUEKIND[event]


def encode_TypedValue(event: types.TypedValue) -> bytes:
    return b"".join(
        (
            encode_ValueKind(event.kind),
            text(event.text),
            NULL if (number := event.number) is None else PRESENT + double(number),
            NULL if (unit := event.unit) is None else PRESENT + text(unit),
        )
    )


def encode_Claim(event: types.Claim) -> bytes:
    return b"".join(
        (
            text(event.subject),
            text(event.predicate),
            encode_TypedValue(event.object),
            double(event.confidence),
            NULL if (valid_from := event.valid_from) is None else PRESENT + long(valid_from),
            NULL if (valid_to := event.valid_to) is None else PRESENT + long(valid_to),
            array(event.inputs, text),
        )
    )


def encode_AttemptSucceeded(event: types.AttemptSucceeded) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            text(event.attempt_id),
            long(event.attempt_number),
            text(event.runner_id),
            encode_Content(event.result),
            array(event.claims, encode_Claim),
            text(event.capability),
            text(event.runner_name),
            long(event.duration_micros),
        )
    )


def encode_BreakerChanged(event: types.BreakerChanged) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.subject),
            text(event.state),
            long(event.failures),
            long(event.successes),
            NULL if (until := event.until) is None else PRESENT + long(until),
            long(event.openings),
            text(event.reason),
        )
    )


def encode_BulkApplied(event: types.BulkApplied) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.subject),
            text(event.bulk_id),
            long(event.partition),
            long(event.matched),
            long(event.refused),
        )
    )


def encode_BulkRequested(event: types.BulkRequested) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.subject),
            text(event.bulk_id),
            text(event.action),
            NULL if (job_type := event.job_type) is None else PRESENT + text(job_type),
            NULL if (pool := event.pool) is None else PRESENT + text(pool),
            NULL if (tenant := event.tenant) is None else PRESENT + text(tenant),
            NULL if (phase := event.phase) is None else PRESENT + text(phase),
            NULL if (correlation_id := event.correlation_id) is None else PRESENT + text(correlation_id),
            NULL if (schedule_id := event.schedule_id) is None else PRESENT + text(schedule_id),
            NULL if (key := event.key) is None else PRESENT + text(key),
            NULL if (priority := event.priority) is None else PRESENT + long(priority),
            boolean(event.kill),
            text(event.reason),
        )
    )


def encode_RetryPolicy(event: types.RetryPolicy) -> bytes:
    return b"".join(
        (
            long(event.max_attempts),
            double(event.initial_backoff_seconds),
            double(event.multiplier),
            double(event.max_backoff_seconds),
            long(event.max_lost_attempts),
            array(event.never_retry, encode_Category),
        )
    )


def encode_Capability(event: types.Capability) -> bytes:
    return b"".join(
        (
            text(event.job_type),
            text(event.version),
            text(event.payload_schema),
            text(event.result_schema),
            NULL if (timeout_seconds := event.timeout_seconds) is None else PRESENT + double(timeout_seconds),
            NULL if (retry := event.retry) is None else PRESENT + encode_RetryPolicy(retry),
            long(event.slots),
            text(event.description),
        )
    )


_CARDINALITY = {
    "UNDECLARED": long(0),
    "SINGLE": long(1),
    "MULTIPLE": long(2),
}


def encode_Cardinality(event: types.Cardinality) -> bytes:
    return _CARDINALITY[event]


def encode_CheckpointSigned(event: types.CheckpointSigned) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.origin),
            text(event.topic),
            long(event.partition),
            long(event.tree_size),
            long(event.end_offset),
            blob(event.root_hash),
            text(event.note),
            long(event.start_offset),
            array(event.frontier, blob),
        )
    )


def encode_CommandRefused(event: types.CommandRefused) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            text(event.command),
            encode_ErrorEnvelope(event.error),
        )
    )


def encode_DeadLetterSettled(event: types.DeadLetterSettled) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            encode_LogPosition(event.position),
            NULL if (redriven_to := event.redriven_to) is None else PRESENT + encode_LogPosition(redriven_to),
            text(event.reason),
        )
    )


def encode_Evidence(event: types.Evidence) -> bytes:
    return b"".join(
        (
            NULL if (job_id := event.job_id) is None else PRESENT + text(job_id),
            NULL if (attempt_id := event.attempt_id) is None else PRESENT + text(attempt_id),
            array(event.inputs, text),
        )
    )


_FUSIONRULE = {
    "DEFAULT": long(0),
    "LATEST": long(1),
    "BAYES": long(2),
    "NOISY_OR": long(3),
    "MOST_TRUSTED": long(4),
}


def encode_FusionRule(event: types.FusionRule) -> bytes:
    return _FUSIONRULE[event]


def encode_JobAccepted(event: types.JobAccepted) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            text(event.job_type),
            text(event.pool),
            long(event.priority),
            NULL if (not_before := event.not_before) is None else PRESENT + long(not_before),
        )
    )


def encode_JobCancelRequested(event: types.JobCancelRequested) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            text(event.reason),
            boolean(event.kill),
            boolean(event.tree),
        )
    )


def encode_JobCancelled(event: types.JobCancelled) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            NULL if (attempt_id := event.attempt_id) is None else PRESENT + text(attempt_id),
            long(event.attempt_number),
            text(event.reason),
        )
    )


def encode_JobCompleted(event: types.JobCompleted) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            text(event.attempt_id),
            long(event.attempt_number),
            text(event.runner_id),
            encode_Content(event.result),
        )
    )


def encode_JobFailed(event: types.JobFailed) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            NULL if (attempt_id := event.attempt_id) is None else PRESENT + text(attempt_id),
            long(event.attempt_number),
            NULL if (runner_id := event.runner_id) is None else PRESENT + text(runner_id),
            encode_ErrorEnvelope(event.error),
        )
    )


def encode_LogLine(event: types.LogLine) -> bytes:
    return b"".join(
        (
            long(event.at),
            text(event.level),
            text(event.logger),
            text(event.message),
        )
    )


def encode_JobLogged(event: types.JobLogged) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            text(event.attempt_id),
            array(event.lines, encode_LogLine),
            long(event.dropped),
        )
    )


def encode_JobRejected(event: types.JobRejected) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            text(event.job_type),
            encode_ErrorEnvelope(event.error),
        )
    )


def encode_JobReprioritiseRequested(event: types.JobReprioritiseRequested) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            long(event.priority),
            text(event.reason),
        )
    )


def encode_JobReprioritised(event: types.JobReprioritised) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            long(event.priority),
        )
    )


def encode_JobRetried(event: types.JobRetried) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            NULL if (retry_job_id := event.retry_job_id) is None else PRESENT + text(retry_job_id),
            text(event.reason),
        )
    )


def encode_JobRetryRequested(event: types.JobRetryRequested) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            text(event.reason),
            NULL if (submission := event.submission) is None else PRESENT + encode_LogPosition(submission),
        )
    )


def encode_JobRetryScheduled(event: types.JobRetryScheduled) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            text(event.attempt_id),
            long(event.attempt_number),
            text(event.runner_id),
            encode_ErrorEnvelope(event.error),
            long(event.due_at),
        )
    )


def encode_RefusedCandidate(event: types.RefusedCandidate) -> bytes:
    return b"".join(
        (
            text(event.runner_id),
            text(event.reason),
        )
    )


def encode_JobRouted(event: types.JobRouted) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            text(event.attempt_id),
            long(event.attempt_number),
            text(event.runner_id),
            text(event.job_type),
            long(event.contract_major),
            encode_Content(event.payload),
            text(event.pool),
            long(event.priority),
            long(event.slots),
            long(event.job_partition),
            double(event.lease_seconds),
            NULL if (timeout_seconds := event.timeout_seconds) is None else PRESENT + double(timeout_seconds),
            long(event.queued_at),
            text(event.reason),
            array(event.refused, encode_RefusedCandidate),
        )
    )


def encode_Timeouts(event: types.Timeouts) -> bytes:
    return b"".join(
        (
            NULL if (attempt_seconds := event.attempt_seconds) is None else PRESENT + double(attempt_seconds),
            NULL if (queue_seconds := event.queue_seconds) is None else PRESENT + double(queue_seconds),
            NULL if (total_seconds := event.total_seconds) is None else PRESENT + double(total_seconds),
        )
    )


def encode_ParentJob(event: types.ParentJob) -> bytes:
    return b"".join(
        (
            text(event.job_id),
            text(event.attempt_id),
        )
    )


def encode_JobSubmitted(event: types.JobSubmitted) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            text(event.job_type),
            long(event.contract_major),
            encode_Content(event.payload),
            text(event.pool),
            long(event.priority),
            mapping(event.required_labels, text),
            mapping(event.preferred_labels, text),
            NULL if (slots := event.slots) is None else PRESENT + long(slots),
            NULL if (retry := event.retry) is None else PRESENT + encode_RetryPolicy(retry),
            NULL if (timeouts := event.timeouts) is None else PRESENT + encode_Timeouts(timeouts),
            NULL if (not_before := event.not_before) is None else PRESENT + long(not_before),
            NULL if (deadline := event.deadline) is None else PRESENT + long(deadline),
            NULL if (concurrency_key := event.concurrency_key) is None else PRESENT + text(concurrency_key),
            NULL if (rate_key := event.rate_key) is None else PRESENT + text(rate_key),
            NULL if (parent := event.parent) is None else PRESENT + encode_ParentJob(parent),
            NULL if (schedule_id := event.schedule_id) is None else PRESENT + text(schedule_id),
            NULL if (idempotency_key := event.idempotency_key) is None else PRESENT + text(idempotency_key),
            NULL if (retry_of := event.retry_of) is None else PRESENT + text(retry_of),
        )
    )


def encode_JobTemplate(event: types.JobTemplate) -> bytes:
    return b"".join(
        (
            text(event.job_type),
            long(event.contract_major),
            encode_Content(event.payload),
            text(event.pool),
            long(event.priority),
            mapping(event.required_labels, text),
            mapping(event.preferred_labels, text),
            NULL if (slots := event.slots) is None else PRESENT + long(slots),
            NULL if (retry := event.retry) is None else PRESENT + encode_RetryPolicy(retry),
            NULL if (timeouts := event.timeouts) is None else PRESENT + encode_Timeouts(timeouts),
            NULL if (concurrency_key := event.concurrency_key) is None else PRESENT + text(concurrency_key),
            NULL if (rate_key := event.rate_key) is None else PRESENT + text(rate_key),
        )
    )


def encode_LimitDeclared(event: types.LimitDeclared) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.subject),
            NULL if (max_running := event.max_running) is None else PRESENT + long(max_running),
            NULL if (starts := event.starts) is None else PRESENT + long(starts),
            double(event.period_seconds),
            text(event.reason),
        )
    )


def encode_ObservationRefused(event: types.ObservationRefused) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.job_id),
            text(event.attempt_id),
            text(event.observation),
            encode_ErrorEnvelope(event.error),
        )
    )


def encode_PauseDeclared(event: types.PauseDeclared) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.subject),
            boolean(event.paused),
            text(event.reason),
        )
    )


def encode_PredicateDeclared(event: types.PredicateDeclared) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.subject),
            text(event.predicate),
            NULL if (value_kind := event.value_kind) is None else PRESENT + encode_ValueKind(value_kind),
            encode_Cardinality(event.cardinality),
            encode_FusionRule(event.rule),
            NULL if (unit := event.unit) is None else PRESENT + text(unit),
            text(event.description),
        )
    )


def encode_RecordRefused(event: types.RecordRefused) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            encode_LogPosition(event.position),
            NULL if (key := event.key) is None else PRESENT + blob(key),
            blob(event.value),
            long(event.value_size_bytes),
            text(event.consumer),
            encode_ErrorEnvelope(event.error),
        )
    )


def encode_RunnerDraining(event: types.RunnerDraining) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.runner_id),
            text(event.reason),
        )
    )


def encode_RunnerHeartbeat(event: types.RunnerHeartbeat) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.runner_id),
            long(event.sequence),
            array(event.attempt_ids, text),
            boolean(event.draining),
        )
    )


def encode_RunnerLeft(event: types.RunnerLeft) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.runner_id),
            text(event.reason),
        )
    )


def encode_RunnerRegistered(event: types.RunnerRegistered) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.runner_id),
            text(event.name),
            text(event.pool),
            long(event.slots),
            mapping(event.labels, text),
            array(event.capabilities, encode_Capability),
            long(event.inbox_partition),
            double(event.heartbeat_seconds),
        )
    )


def encode_ScheduleDeclared(event: types.ScheduleDeclared) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.subject),
            text(event.schedule_id),
            text(event.cron),
            text(event.time_zone),
            encode_JobTemplate(event.job),
            boolean(event.overlap),
            double(event.catch_up_seconds),
            boolean(event.paused),
        )
    )


def encode_ScheduleFired(event: types.ScheduleFired) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.subject),
            text(event.schedule_id),
            long(event.due_at),
            NULL if (job_id := event.job_id) is None else PRESENT + text(job_id),
            long(event.missed),
            text(event.reason),
        )
    )


def encode_ScheduleRemoved(event: types.ScheduleRemoved) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.subject),
            text(event.schedule_id),
            text(event.reason),
        )
    )


def encode_SecretForgotten(event: types.SecretForgotten) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.subject),
            text(event.key_id),
            text(event.reason),
        )
    )


def encode_ShareDeclared(event: types.ShareDeclared) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.subject),
            double(event.weight),
        )
    )


_SOURCEKIND = {
    "UNKNOWN": long(0),
    "JOB": long(1),
    "CLIENT": long(2),
    "SYSTEM": long(3),
}


def encode_SourceKind(event: types.SourceKind) -> bytes:
    return _SOURCEKIND[event]


def encode_Source(event: types.Source) -> bytes:
    return b"".join(
        (
            encode_SourceKind(event.kind),
            text(event.name),
            NULL if (runner_id := event.runner_id) is None else PRESENT + text(runner_id),
            NULL if (capability := event.capability) is None else PRESENT + text(capability),
        )
    )


def encode_SourceDeclared(event: types.SourceDeclared) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.subject),
            text(event.source_name),
            double(event.reliability),
            text(event.reason),
        )
    )


def encode_TruthAsserted(event: types.TruthAsserted) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.subject),
            text(event.predicate),
            encode_TypedValue(event.object),
            double(event.confidence),
            encode_Source(event.source),
            NULL if (valid_from := event.valid_from) is None else PRESENT + long(valid_from),
            NULL if (valid_to := event.valid_to) is None else PRESENT + long(valid_to),
            encode_Evidence(event.evidence),
            NULL if (supersedes := event.supersedes) is None else PRESENT + text(supersedes),
        )
    )


def encode_TruthRetracted(event: types.TruthRetracted) -> bytes:
    return b"".join(
        (
            encode_EventHeader(event.header),
            text(event.subject),
            text(event.assertion_id),
            encode_Source(event.source),
            text(event.reason),
        )
    )
