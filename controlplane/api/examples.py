"""One example of every request and answer of the HTTP interface, by the name of its model: shown in the OpenAPI document."""

from typing import Any, Final

_POSITION: Final = "controlplane.submissions/3/1042"
_EVENT_ID: Final = "1b9d6bcd-bbfd-5b2d-9b5d-ab8dfbbd4bed"
_TIME: Final = "2026-03-01T06:00:00.250000Z"
_REFLECTS: Final = {"positions": {"controlplane.submissions": {"3": 1043}}, "lag_records": 0, "lag_seconds": 0.0}
_ATTEMPT: Final = {
    "attempt_id": "8f14e45f-ceea-467f-a0e6-0b1c2d3e4f50", "attempt_number": 1, "runner_id": "media-4f2a", "phase": "SUCCEEDED",
    "routed_at": _TIME, "started_at": _TIME, "ended_at": _TIME, "fraction": 1.0, "message": "resized", "error": None,
    "routing_reason": "least loaded of 2",
}  # fmt: skip
_JOB: Final = {
    "job_id": "thumbnail-7", "job_type": "image.thumbnail", "phase": "COMPLETED", "pool": "default", "priority": 5,
    "tenant": "default", "correlation_id": "thumbnail-7", "submitted_at": _TIME, "concluded_at": _TIME, "attempts": [_ATTEMPT],
    "payload": {"image": "cat"}, "result": {"width": 640}, "error": None, "parent_job_id": None, "waiting_for": None,
}  # fmt: skip
_EVENT: Final = {
    "position": _POSITION, "event_id": _EVENT_ID, "event_type": "JobSubmitted", "log_time": _TIME, "occurred_at": _TIME,
    "correlation_id": "thumbnail-7", "causation": None, "producer": "gateway", "key": "thumbnail-7",
    "event": {"job_id": "thumbnail-7", "job_type": "image.thumbnail", "payload": {"data": {"image": "cat"}}},
}  # fmt: skip
_VOTE: Final = {
    "assertion_id": _EVENT_ID, "source": "runner media/image.thumbnail@1", "source_kind": "RUNNER", "confidence": 0.99,
    "reliability": 1.0, "strength": 0.99, "log_time": _TIME, "position": "controlplane.truth/0/7", "job_id": "thumbnail-7",
    "attempt_id": None, "valid_from": None, "valid_to": None,
}  # fmt: skip
_TRUTH: Final = {
    "subject": "image:cat", "predicate": "width", "value": 640, "kind": "NUMBER", "unit": "px", "confidence": 0.99, "rule": "LATEST",
    "conflict": False,
    "candidates": [
        {"value": 640, "kind": "NUMBER", "text": "640", "unit": "px", "probability": 0.99, "votes": [_VOTE], "against": []}
    ],
    "contract": {
        "value_kind": None, "cardinality": "UNDECLARED", "rule": "LATEST", "unit": None, "many": False, "declared_at": None
    },
    "ignored": [], "explanation": "The newest of 1 assertion counts.",
}  # fmt: skip

EXAMPLES: Final[dict[str, Any]] = {
    # Requests.
    "JobRequest": {
        "job_type": "image.thumbnail", "payload": {"image": "cat"}, "job_id": "thumbnail-7", "priority": 5,
        "retry": {"max_attempts": 3, "never_retry": ["VALIDATION"]}, "timeouts": {"attempt_seconds": 30.0},
    },
    "CancelRequest": {"reason": "The image was deleted.", "kill": False, "tree": True},
    "ReprioritiseRequest": {"priority": 9, "reason": "Somebody waits for it."},
    "ReasonBody": {"reason": "The disk was full, it is not any more."},
    "Reasoned": {"reason": "The record was repaired."},
    "AssertionRequest": {
        "subject": "tower:eiffel", "predicate": "height", "value": 330, "unit": "m", "confidence": 0.9, "source": "survey"
    },
    "RetractionRequest": {"subject": "tower:eiffel", "source": "survey", "reason": "Measured without the antenna."},
    "SourceRequest": {"source": "survey", "reliability": 0.8, "reason": "Two of ten were wrong."},
    "PredicateRequest": {"predicate": "height", "value_kind": "NUMBER", "cardinality": "SINGLE", "rule": "BAYES", "unit": "m"},
    "LimitRequest": {"max_running": 4, "starts": 100, "period_seconds": 60.0, "reason": "Their service bears no more."},
    "ShareRequest": {"weight": 3.0},
    "PauseRequest": {"reason": "Maintenance until noon."},
    "ScheduleRequest": {
        "cron": "0 6 * * 1-5", "time_zone": "Europe/Berlin", "job": {"job_type": "report.daily", "payload": {}}, "overlap": False
    },
    "BulkRequestBody": {"action": "cancel", "job_type": "image.thumbnail", "phase": "QUEUED", "reason": "Wrong size."},
    "SignIn": {"token": "eyJhbGciOiJFUzI1NiJ9..."},
    "ForgetRequest": {"reason": "The customer asked for it."},
    "SqlRequest": {"sql": "SELECT phase, count(*) AS jobs FROM jobs GROUP BY phase", "limit_rows": 100},
    # Answers.
    "Acknowledgement": {
        "job_id": "thumbnail-7", "event_id": _EVENT_ID, "position": _POSITION, "correlation_id": "thumbnail-7"
    },
    "Forgotten": {
        "event_id": _EVENT_ID, "position": "controlplane.controls/2/7", "correlation_id": "secret:acme/customer-17",
        "key_id": "acme/customer-17", "existed": True,
    },
    "Reflects": _REFLECTS,
    "JobAnswer": {"job": _JOB, "reflects": _REFLECTS},
    "JobsAnswer": {"jobs": [_JOB], "next_cursor": "2026-03-01T06:00:00.250000~thumbnail-7", "reflects": _REFLECTS},
    "JobResultAnswer": {
        "job_id": "thumbnail-7", "phase": "COMPLETED", "concluded": True, "result": {"width": 640}, "result_reference": None,
        "encrypted_with": None, "error": None, "reflects": _REFLECTS,
    },
    "EventsAnswer": {"events": [_EVENT], "next_cursor": None, "reflects": _REFLECTS},
    "EventAnswer": {"event": _EVENT, "reflects": _REFLECTS},
    "CausationAnswer": {"chain": [_EVENT], "tree": {"event": _EVENT, "effects": []}, "reflects": _REFLECTS},
    "TruthsAnswer": {"truths": [_TRUTH], "next_cursor": None, "reflects": _REFLECTS},
    "TruthHistoryAnswer": {
        "subject": "image:cat", "predicate": "width", "axis": "believed",
        "intervals": [
            {
                "since": _TIME, "until": None, "value": 640, "kind": "NUMBER", "unit": "px", "confidence": 0.99, "rule": "LATEST",
                "conflict": False, "sources": ["runner media/image.thumbnail@1"], "cause": "controlplane.truth/0/7",
            }
        ],
        "complete": True, "next_cursor": None, "reflects": _REFLECTS,
    },
    "TruthDiffAnswer": {
        "changes": [
            {"subject": "image:cat", "predicate": "width", "change": "appeared", "before": None, "after": _TRUTH}
        ],
        "next_cursor": None, "reflects": _REFLECTS,
    },
    "TruthChangesAnswer": {
        "changes": [
            {
                "subject": "image:cat", "predicate": "width", "change": "appeared", "before": None, "after": _TRUTH,
                "cause": "controlplane.truth/0/7", "at": _TIME, "place": "0=8",
            }
        ],
        "place": "0=8", "reflects": _REFLECTS,
    },
    "SessionView": {"name": "alice", "tenant": "acme", "roles": ["submit"], "sign_in": True},
    "OpenedView": {"payload": {"iban": "DE02 1203 0000 0000 2020 51"}, "result": None},
    "LearnedAnswer": {
        "method": "accu", "as_of": "controlplane.truth/0/41", "valid_at": _TIME,
        "sources": [{"source": "survey", "reliability": 0.83, "votes": 12, "declared": None}], "truths": 12, "votes": 31, "rounds": 7,
        "settled": True, "reflects": _REFLECTS,
    },
    "LineageAnswer": {
        "roots": ["job:thumbnail-7"],
        "nodes": [
            {
                "id": "job:thumbnail-7", "kind": "job", "name": "thumbnail-7", "position": _POSITION, "log_time": _TIME, "depth": 0,
                "detail": {},
            }
        ],
        "edges": [], "truncated": False, "next_cursor": None, "reflects": _REFLECTS,
    },
    "ImpactAnswer": {
        "source": "survey", "assertions": 1, "derived": 0, "jobs": [],
        "truths": [{"subject": "tower:eiffel", "predicate": "height", "change": "vanishes", "now": _TRUTH, "without": None}],
        "truncated": False, "next_cursor": None, "reflects": _REFLECTS,
    },
    "RunnersAnswer": {
        "runners": [
            {
                "runner_id": "media-4f2a", "name": "media", "pool": "default", "slots": 16, "labels": {"region": "eu"},
                "capabilities": ["image.thumbnail@1.2.0"], "state": "REGISTERED", "registered_at": _TIME, "last_heartbeat_at": _TIME,
                "in_flight": 3,
            }
        ],
        "reflects": _REFLECTS,
    },
    "DigestAnswer": {"tables": [{"table": "jobs", "rows": 1, "digest": "9f" * 32}], "reflects": _REFLECTS},
    "SqlAnswer": {"columns": ["phase", "jobs"], "rows": [["COMPLETED", 1]], "truncated": False, "reflects": _REFLECTS},
    "ActivityAnswer": {
        "seconds": 60, "bucket_seconds": 60.0,
        "buckets": [
            {
                "at": _TIME, "submitted": 12, "started": 11, "completed": 10, "failed": 1, "cancelled": 0, "retried": 1, "records": 90,
                "waiting": 1, "busy": 3, "slots": 16, "median_seconds": 0.4, "p95_seconds": 1.2,
            }
        ],
        "open": {"QUEUED": 1}, "concluded": {"COMPLETED": 10, "FAILED": 1},
        "types": [{"job_type": "image.thumbnail", "waiting": 1, "running": 0, "completed": 10, "failed": 1}],
        "median_seconds": 0.4, "p95_seconds": 1.2, "p99_seconds": 2.0, "reflects": _REFLECTS,
    },
    "JobCountsAnswer": {"total": 11, "phases": {"COMPLETED": 10, "FAILED": 1}, "reflects": _REFLECTS},
    "AuditDiffAnswer": {"tables": [], "jobs": [], "truths": [], "complete": True, "reflects": _REFLECTS},
    "LimitsAnswer": {
        "limits": [
            {
                "subject": "key:default/customer-7", "declared": "key:default/*", "max_running": 4, "starts": None,
                "period_seconds": 1.0, "running": 4, "queued": 12, "retrying": 1, "delayed": 0,
            }
        ],
        "reflects": _REFLECTS,
    },
    "JobLogsAnswer": {
        "lines": [
            {
                "position": "controlplane.joblogs/3/17", "attempt_id": "8f14e45f-ceea-467f-a0e6-0b1c2d3e4f50", "at": _TIME,
                "level": "INFO", "logger": "media", "message": "resized",
            }
        ],
        "dropped": 0, "concluded": True, "next_cursor": "17", "reflects": _REFLECTS,
    },
    "ControlsAnswer": {
        "limits": {"key:default/customer-7": {"max_running": 4, "starts": None, "period_seconds": 1.0}}, "shares": {"acme": 3.0},
        "pauses": {"pool:gpu": "Maintenance until noon."},
        "breakers": {"type:image.thumbnail": {"state": "OPEN", "reason": "8 of 10 failed.", "until": _TIME, "openings": 1}},
        "admission": {"open": True, "reason": ""}, "reflects": _REFLECTS,
    },
    "SchedulesAnswer": {
        "schedules": [
            {
                "schedule_id": "daily-report", "cron": "0 6 * * 1-5", "time_zone": "Europe/Berlin", "job_type": "report.daily",
                "paused": False, "overlap": False, "last_at": _TIME, "last_job_id": "daily-report-2026-03-01T06:00", "last_reason": "",
                "next_at": ["2026-03-02T05:00:00Z"],
            }
        ],
        "reflects": _REFLECTS,
    },
    "BulkView": {
        "bulk_id": _EVENT_ID, "action": "cancel", "done": True, "partitions_done": 8, "matched": 120, "refused": 2,
        "reflects": _REFLECTS,
    },
    "HealthAnswer": {
        "service": "gateway", "version": "0.1.0", "state": "ok",
        "dependencies": {"log": {"state": "ok", "detail": ""}, "truthcore": {"state": "ok", "detail": ""}},
    },
    "Problem": {
        "type": "urn:controlplane:error:not_found", "title": "There is no such thing", "status": 404,
        "detail": "Expected a job 'thumbnail-8', but the log does not know it.", "instance": "/v1/jobs/thumbnail-8",
        "error_id": "5f0c6d0e-3b7a-4d53-9a54-6f6c2f6d7a11", "category": "NOT_FOUND", "severity": "ERROR", "code": "not_found",
        "message": "Expected a job 'thumbnail-8', but the log does not know it.", "retryable": False,
        "contract_version": {"major": 1, "minor": 0, "patch": 0}, "found": "thumbnail-8",
    },
}  # fmt: skip
"""Held by a test: each is valid, and no request or answer is without one."""
