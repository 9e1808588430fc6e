"""The catalog: which events exist, on which topic, and who alone may write and read them."""

from enum import StrEnum
from typing import Final

import msgspec

from controlplane.events import types


class Service(StrEnum):
    """The principals of the system: certificates, ACLs and producers carry these names."""

    GATEWAY = "gateway"
    CLIENT = "client"
    JOBFORGE = "jobforge"
    RUNNER = "runner"
    TRUTHCORE = "truthcore"
    NOTARY = "notary"
    AUDITOR = "auditor"


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """One topic: how its records are keyed, and who reads it."""

    name: str
    key: str
    readers: frozenset[Service]
    partitions_like: str = "jobs"
    """Topics of one group have the same number of partitions: `jobs` are co-partitioned by job id."""


_WHOLE_LOG: Final = frozenset({Service.TRUTHCORE, Service.NOTARY, Service.AUDITOR, Service.GATEWAY})
"""They exist to know all of it, or to show it live (ADR 61); every other reader of a topic is named because its code reads that topic."""

SUBMISSIONS: Final = Topic(name="controlplane.submissions", key="job id", readers=_WHOLE_LOG | {Service.JOBFORGE})
PROGRESS: Final = Topic(name="controlplane.progress", key="job id", readers=_WHOLE_LOG | {Service.JOBFORGE})
JOBS: Final = Topic(name="controlplane.jobs", key="job id", readers=_WHOLE_LOG | {Service.JOBFORGE, Service.CLIENT})
ROUTING: Final = Topic(
    name="controlplane.routing", key="job id", partitions_like="routing",
    readers=_WHOLE_LOG | {Service.RUNNER, Service.JOBFORGE},
)  # fmt: skip
RUNNERS: Final = Topic(
    name="controlplane.runners", key="runner id", partitions_like="other",
    readers=_WHOLE_LOG | {Service.JOBFORGE},
)  # fmt: skip
TRUTH: Final = Topic(name="controlplane.truth", key="subject", partitions_like="other", readers=_WHOLE_LOG)
DEAD_LETTERS: Final = Topic(
    name="controlplane.deadletters", partitions_like="other", key="topic/partition/offset of the record",
    readers=_WHOLE_LOG,
)  # fmt: skip
JOB_LOGS: Final = Topic(name="controlplane.joblogs", key="job id", partitions_like="other", readers=_WHOLE_LOG)
CONTROLS: Final = Topic(
    name="controlplane.controls", key="what is controlled", partitions_like="other",
    readers=_WHOLE_LOG | {Service.JOBFORGE},
)  # fmt: skip
CHECKPOINTS: Final = Topic(
    name="controlplane.checkpoints", key="topic/partition that is signed", partitions_like="other", readers=_WHOLE_LOG
)

TOPICS: Final = {
    topic.name: topic
    for topic in (SUBMISSIONS, ROUTING, PROGRESS, JOBS, RUNNERS, TRUTH, DEAD_LETTERS, JOB_LOGS, CHECKPOINTS, CONTROLS)
}  # fmt: skip


class EventType(msgspec.Struct, frozen=True, kw_only=True):
    """One event type: its Python class, its topic, and the services that alone may write it."""

    event: type[msgspec.Struct]
    topic: Topic
    authors: frozenset[Service]
    schema_version: int = 1
    key_field: str = "job_id"

    @property
    def name(self) -> str:
        """Return the name of the event, for example JobSubmitted."""
        return self.event.__name__


def _on(
    topic: Topic, authors: set[Service], key_field: str, *events: type[msgspec.Struct], schema_version: int = 1
) -> list[EventType]:
    return [
        EventType(event=e, topic=topic, authors=frozenset(authors), key_field=key_field, schema_version=schema_version)
        for e in events
    ]


_CALLERS: Final = {Service.GATEWAY, Service.CLIENT, Service.RUNNER}
_JOBFORGE: Final = {Service.JOBFORGE}
_RUNNER: Final = {Service.RUNNER}

EVENT_TYPES: Final = {
    event_type.name: event_type
    for event_type in [
        *_on(
            SUBMISSIONS, _CALLERS | _JOBFORGE, "job_id",
            types.JobSubmitted, types.JobRetryRequested,
            schema_version=2,
        ),
        *_on(
            SUBMISSIONS, _CALLERS | _JOBFORGE, "job_id",
            types.JobCancelRequested, types.JobReprioritiseRequested,
        ),
        *_on(
            CONTROLS, {Service.GATEWAY}, "subject",
            types.LimitDeclared, types.ShareDeclared, types.PauseDeclared, types.ScheduleDeclared, types.ScheduleRemoved,
            types.BulkRequested, types.SecretForgotten,
        ),
        *_on(
            CONTROLS, _JOBFORGE, "subject",
            types.ScheduleFired, types.BulkApplied, types.AdmissionChanged, types.BreakerChanged,
        ),
        *_on(ROUTING, _JOBFORGE, "job_id", types.JobRouted, types.AttemptRevoked),
        *_on(
            PROGRESS, _RUNNER, "job_id",
            types.AttemptStarted, types.AttemptProgressed,
            types.AttemptSucceeded, types.AttemptFailed, types.AttemptCancelled,
        ),
        *_on(
            JOBS, _JOBFORGE, "job_id",
            types.JobAccepted, types.JobRejected, types.JobRetryScheduled, types.AttemptLost, types.ObservationRefused,
            types.CommandRefused, types.JobReprioritised, types.JobRetried, types.JobCompleted, types.JobFailed, types.JobCancelled,
        ),
        *_on(JOBS, _JOBFORGE, "alert_id", types.AlertRaised, types.AlertCleared),
        *_on(
            RUNNERS, _RUNNER, "runner_id",
            types.RunnerRegistered, types.RunnerHeartbeat, types.RunnerDraining, types.RunnerLeft,
        ),
        *_on(TRUTH, {Service.JOBFORGE, Service.GATEWAY}, "subject", types.TruthAsserted),
        *_on(
            TRUTH, {Service.GATEWAY}, "subject",
            types.TruthRetracted, types.PredicateDeclared, types.SourceDeclared,
        ),
        *_on(
            DEAD_LETTERS, {Service.JOBFORGE, Service.TRUTHCORE}, "position",
            types.RecordRefused,
        ),
        *_on(DEAD_LETTERS, {Service.GATEWAY}, "position", types.DeadLetterSettled),
        *_on(JOB_LOGS, _RUNNER, "job_id", types.JobLogged),
        *_on(CHECKPOINTS, {Service.NOTARY}, "origin", types.CheckpointSigned, schema_version=2),
    ]
}  # fmt: skip

TERMINAL: Final = frozenset({types.JobCompleted, types.JobFailed, types.JobCancelled, types.JobRejected})
"""The conclusions: the first one of a job in its partition of `jobs` is its outcome."""


def record_key(event: msgspec.Struct) -> bytes:
    """Return the Kafka key of an event: what its topic is partitioned by."""
    value = getattr(event, EVENT_TYPES[type(event).__name__].key_field)
    if isinstance(value, types.LogPosition):
        return f"{value.topic}/{value.partition}/{value.offset}".encode()
    return str(value).encode()
