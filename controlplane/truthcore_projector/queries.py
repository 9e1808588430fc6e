"""Questions about jobs, events and causes; each takes a cursor of its own and returns the models of the HTTP contract."""

from collections.abc import Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, Final

from controlplane.api.models import AttemptView, CausationNode, ContentView, EventView, JobView, RunnerView
from controlplane.api.plain import json_value, plain_record
from controlplane.events.catalog import TRUTH
from controlplane.events.codec import decode
from controlplane.events.types import LogPosition, RunnerRegistered
from controlplane.log.positions import parse_position
from controlplane.truthcore_projector.cursors import NEAR, Cursor, among, rows, tuples
from controlplane.truthcore_projector.jobs import attempt_rows, job_row
from controlplane.truthcore_projector.moments import naive

DEPTH_LIMIT: Final = 64
NODES_LIMIT: Final = 500
_EVENT: Final = (
    'topic, partition, "offset", log_time, key, event_type, event_id, correlation_id, cause_topic, cause_partition,'
    " cause_offset, occurred_at, producer, value"
)
_IN_ORDER: Final = 'ORDER BY log_time, topic, partition, "offset"'
_BEHIND: Final = '(log_time, topic, partition, "offset") > (?::TIMESTAMP, ?, ?, ?)'
_BEFORE: Final = '(log_time, topic, partition, "offset") < (?::TIMESTAMP, ?, ?, ?)'
TIME_PATTERN: Final = r"(19|20)\d\d-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?"
JOB_CURSOR: Final = rf"^{TIME_PATTERN}~.+$"
"""A cursor of `job_page`: time and id of the last job of the page before."""
EVENT_CURSOR: Final = rf"^{TIME_PATTERN}~[a-z.]{{1,40}}/\d{{1,6}}/\d{{1,18}}$"
JOB_FILTERS: Final = ("job_type", "phase", "pool", "tenant", "correlation_id", "parent_job_id", "search")
"""What jobs are chosen by; `search` is a part of the id, the type, the correlation id or the error."""
_SEARCHED: Final = (
    "(contains(lower(concat_ws(' ', s.job_id, s.job_type, s.correlation_id)), lower(?)) OR s.job_id IN"
    " (SELECT job_id FROM conclusions WHERE contains(lower(concat_ws(' ', error_code, error_message)), lower(?))))"
)
JOBS_AT_ONCE: Final = 2_000

_SUBMITTED: Final = (
    'job_id, "offset", log_time, job_type, pool, priority, tenant, correlation_id, parent_job_id, not_before, payload_sha256,'
    " payload_size_bytes, payload_key, "
)
_CONCLUDED: Final = 'job_id, "offset", log_time, phase, error_code, error_message, result_sha256, result_size_bytes, '
_PAYLOAD, _NO_PAYLOAD = "payload", "NULL AS payload"
_RESULT, _NO_RESULT = "result", "NULL AS result"
_STAGE: Final = (
    'job_id, "offset", log_time, attempt_id, attempt_number, runner_id, stage, fraction, message, error_code'
)

Place = tuple[datetime, str, int, int]
"""Of a record: its log time and its position."""
CONCLUDED: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED", "REJECTED"})


def event_view(row: dict[str, Any]) -> EventView:
    """Return a row of `events` as a model, its record decoded."""
    cause = None
    if row["cause_topic"] is not None:
        cause = f"{row['cause_topic']}/{row['cause_partition']}/{row['cause_offset']}"
    return EventView(
        position=f"{row['topic']}/{row['partition']}/{row['offset']}", event_id=row["event_id"] or "",
        event_type=row["event_type"], log_time=row["log_time"], occurred_at=row["occurred_at"] or row["log_time"],
        correlation_id=row["correlation_id"] or "", causation=cause, producer=row["producer"] or "",
        key=(row["key"] or b"").decode("utf-8", "backslashreplace"), event=plain_record(row["value"]),
    )  # fmt: skip


# Jobs


def job_views(cursor: Cursor, ids: Sequence[str], *, details: bool) -> list[JobView]:
    """Return jobs in the order of their ids; payload and result only with `details`."""
    if not ids:
        return []
    submissions = _by_job(cursor, "submissions", _SUBMITTED + (_PAYLOAD if details else _NO_PAYLOAD), ids)
    conclusions = _by_job(cursor, "conclusions", _CONCLUDED + (_RESULT if details else _NO_RESULT), ids)
    stages = _by_job(cursor, "attempt_events", _STAGE, ids)
    changes = _by_job(cursor, "job_changes", 'job_id, "offset", kind, priority, retry_job_id', ids)
    # What has begun was accepted: most questions need not look.
    waiting = [one for one in submissions if one not in conclusions and one not in stages]
    accepted = _by_job(cursor, "acceptances", "job_id", waiting) if waiting else {}
    return [
        _job_view(
            job_row(submissions[one], conclusions.get(one, ()), stages.get(one, ()), changes.get(one, ()), accepted=one in accepted),
            [_attempt_view(row) for row in attempt_rows(stages.get(one, ()))],
            details=details,
        )
        for one in ids
        if one in submissions
    ]  # fmt: skip


def _by_job(cursor: Cursor, table: str, columns: str, ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of some jobs in a table."""
    found: dict[str, list[dict[str, Any]]] = {}
    condition, parameters = among("job_id", ids)
    for row in rows(cursor, f"SELECT {columns} FROM {table} WHERE {condition} AND {NEAR}", parameters, about=ids):
        found.setdefault(row["job_id"], []).append(row)
    return found


def _attempt_view(row: dict[str, Any]) -> AttemptView:
    error = {"code": row["error_code"], "message": row["error_message"]} if row["error_code"] else None
    return AttemptView(
        attempt_id=row["attempt_id"], attempt_number=row["attempt_number"], runner_id=row["runner_id"], phase=row["phase"],
        routed_at=row["routed_at"], started_at=row["started_at"], ended_at=row["ended_at"], fraction=row["fraction"],
        message=row["message"], error=error, routing_reason=row["routing_reason"],
    )  # fmt: skip


def _reference(row: dict[str, Any], name: str) -> ContentView | None:
    """Return where a payload or result is that is kept outside of the log."""
    if row[f"{name}_sha256"] is None:
        return None
    return ContentView(sha256=row[f"{name}_sha256"], size_bytes=row[f"{name}_size_bytes"])


def _job_view(row: dict[str, Any], attempts: list[AttemptView], *, details: bool) -> JobView:
    error = {"code": row["error_code"], "message": row["error_message"]} if row["error_code"] else None
    details = details and row["payload_key"] is None
    return JobView(
        job_id=row["job_id"], job_type=row["job_type"], phase=row["phase"], pool=row["pool"], priority=row["priority"],
        tenant=row["tenant"], correlation_id=row["correlation_id"], submitted_at=row["submitted_at"],
        concluded_at=row["concluded_at"], attempts=attempts, payload=json_value(row["payload"]) if details else None,
        result=json_value(row["result"]) if details else None, error=error, parent_job_id=row["parent_job_id"],
        encrypted_with=row["payload_key"],
        payload_reference=_reference(row, "payload"), result_reference=_reference(row, "result"), retried_as=row["retried_as"],
    )  # fmt: skip


def job_conditions(filters: dict[str, str | None]) -> tuple[list[str], list[Any]]:
    """Return the conditions of a filter on a submission `s`, whatever became of it, and their parameters."""
    conditions, parameters = ["true"], list[Any]()
    for name in JOB_FILTERS:
        if (value := filters.get(name)) and name != "phase":
            conditions.append(_SEARCHED if name == "search" else f"s.{name} = ?")
            parameters += [value] * conditions[-1].count("?")
    return conditions, parameters


def job_page(
    cursor: Cursor, filters: dict[str, str | None], limit: int, after: tuple[datetime, str] | None
) -> tuple[list[JobView], str | None]:
    """Return a page of jobs, newest first, and where the next begins.

    Looks through submissions, the newest first, and at what became of few of them at once.
    """
    at_once = limit + 1
    found: dict[str, tuple[datetime, JobView]] = {}
    while True:
        some = _candidates(cursor, filters, at_once, after)
        views = {one.job_id: one for one in job_views(cursor, list({name for name, _ in some}), details=False)}
        for job_id, submitted_at in some:  # A job that was submitted again is the first submission's.
            view = views[job_id]
            if view.submitted_at == submitted_at and filters.get("phase") in (None, view.phase):
                found[job_id] = submitted_at, view
        if len(found) > limit:
            submitted_at, last = list(found.values())[limit - 1]
            return [view for _, view in found.values()][:limit], f"{naive(submitted_at).isoformat()}~{last.job_id}"
        if len(some) < at_once:
            return [view for _, view in found.values()], None
        after, at_once = (naive(some[-1][1]), some[-1][0]), min(2 * at_once, JOBS_AT_ONCE)


def job_cursor(text: str) -> tuple[datetime, str]:
    """Return the log time and the id that a page of jobs ended with.

    Raises:
        ValueError: no page gave this cursor, for example because no month has such a day.
    """
    moment, _, job_id = text.partition("~")
    return datetime.fromisoformat(moment), job_id


def _candidates(
    cursor: Cursor, filters: dict[str, str | None], limit: int, after: tuple[datetime, str] | None
) -> list[tuple[str, datetime]]:
    """Return the next submissions, the newest first, of jobs that a filter may mean."""
    conditions, parameters = job_conditions(filters)
    phase = filters.get("phase")
    if phase in CONCLUDED:
        conditions.append("s.job_id IN (SELECT job_id FROM conclusions WHERE phase = ?)")
    elif phase:
        conditions.append("s.job_id IN (SELECT job_id FROM unfinished_jobs WHERE phase = ?)")
    parameters += [phase] if phase else []
    if after is not None:
        conditions.append("s.log_time <= ? AND (s.log_time, s.job_id) < (?, ?)")
        parameters += [after[0], *after]
    query = f"SELECT s.job_id, s.log_time AS submitted_at FROM submissions AS s WHERE {' AND '.join(conditions)}"
    some = rows(cursor, query, parameters, tail=f"ORDER BY submitted_at DESC, job_id DESC LIMIT {limit}")
    return [(row["job_id"], row["submitted_at"]) for row in some]


# Events and causes


def event_cursor(text: str) -> Place:
    """Return the log time and the position that a page of events ended with.

    Raises:
        ValueError: no page gave this cursor.
    """
    moment, _, place = text.partition("~")
    position = parse_position(place)
    return datetime.fromisoformat(moment), position.topic, position.partition, position.offset


def event_page(
    cursor: Cursor, filters: dict[str, str | None], limit: int, after: Place | None
) -> tuple[list[EventView], str | None]:
    """Return a page of records, the newest first, and where the next begins; what arrives meanwhile moves nothing."""
    conditions: list[str] = ["true"]
    parameters: list[Any] = []
    for name in ("topic", "event_type", "correlation_id"):
        if value := filters.get(name):
            conditions.append(f"{name} = ?")
            parameters.append(value)
    if after is not None:
        conditions.append(_BEFORE)
        parameters += after
    return _page(cursor, conditions, parameters, limit)


def dead_letter_page(cursor: Cursor, limit: int, after: Place | None) -> tuple[list[EventView], str | None]:
    """Return a page of records that a service refused and nobody settled, the newest first."""
    conditions = [
        "topic = 'controlplane.deadletters'",
        "event_type = 'RecordRefused'",
        """NOT EXISTS (SELECT 1 FROM events AS s WHERE s.topic = 'controlplane.deadletters' AND s.event_type = 'DeadLetterSettled'
          AND s.key = events.key AND s."offset" > events."offset")""",
    ]
    if after is not None:
        conditions.append(_BEFORE)
    return _page(cursor, conditions, list(after or ()), limit)


def _page(
    cursor: Cursor, conditions: Sequence[str], parameters: Sequence[Any], limit: int
) -> tuple[list[EventView], str | None]:
    tail = f'ORDER BY log_time DESC, topic DESC, partition DESC, "offset" DESC LIMIT {limit + 1}'
    some = rows(cursor, f"SELECT {_EVENT} FROM events WHERE {' AND '.join(conditions)}", parameters, tail=tail)
    views = [event_view(row) for row in some[:limit]]
    if len(some) <= limit:
        return views, None
    return views, _end_of(views)


def _end_of(views: Sequence[EventView]) -> str:
    return f"{naive(views[-1].log_time).isoformat()}~{views[-1].position}"


def job_event_page(
    cursor: Cursor, job_id: str, limit: int, after: Place | None = None, event_types: Sequence[str] = ()
) -> tuple[list[EventView], str | None]:
    """Return a page of the records about a job, in the order of their log time, and where the next begins.

    They are those under its key, and the truths that it gave.
    """
    subject, tail = f"job:{job_id}", f"{_IN_ORDER} LIMIT {limit + 1}"
    behind, given_place = (f" AND log_time >= ? AND {_BEHIND}", [after[0], *after]) if after else ("", [])
    condition, types = among("event_type", event_types) if event_types else ("true", [])
    # One key at a time: a scan compares one value before it reads the other columns, but not one of several.
    chosen = f"key = encode(?) AND {NEAR}{behind} AND {condition}"
    query = f"""SELECT {_EVENT} FROM events WHERE {chosen}
      UNION ALL SELECT {_EVENT} FROM events WHERE {chosen} AND topic = '{TRUTH.name}'"""
    parameters = [job_id, *given_place, *types, subject, *given_place, *types]
    found = rows(cursor, query, parameters, tail=tail, about=[job_id, subject])
    if not event_types or "TruthAsserted" in event_types:
        query = f"""SELECT log_time, topic, partition, "offset" FROM assertions
          WHERE job_id = ? AND subject <> ? AND {NEAR}{behind}"""
        given = {
            place[2:] for place in tuples(cursor, query, [job_id, subject, *given_place], tail=tail, about=[job_id])
        }
        found += _truths_at(cursor, job_id, given) if given else []
        found.sort(key=itemgetter("log_time", "topic", "partition", "offset"))
    views = [event_view(row) for row in found[:limit]]
    return views, _end_of(views) if len(found) > limit else None


def _truths_at(cursor: Cursor, job_id: str, places: set[tuple[int, int]]) -> list[dict[str, Any]]:
    condition, offsets = among('"offset"', sorted({offset for _, offset in places}))
    query = f"SELECT {_EVENT} FROM events WHERE topic = '{TRUTH.name}' AND {condition} AND {NEAR}"
    return [row for row in rows(cursor, query, offsets, about=[job_id]) if (row["partition"], row["offset"]) in places]


def event_at(cursor: Cursor, topic: str, partition: int, offset: int) -> EventView | None:
    """Return the record at a position, or None."""
    query = f'SELECT {_EVENT} FROM events WHERE topic = ? AND partition = ? AND "offset" = ?'
    some = rows(cursor, query, [topic, partition, offset])
    return event_view(some[0]) if some else None


def find_event(cursor: Cursor, reference: str) -> EventView | None:
    """Return the record that a position or an event id names, or None."""
    topic, partition, offset = (*reference.rsplit("/", 2), "", "")[:3]
    if partition.isdecimal() and offset.isdecimal():
        return event_at(cursor, topic, int(partition), int(offset))
    query, first = f"SELECT {_EVENT} FROM events WHERE event_id = ?", 'ORDER BY topic, partition, "offset" LIMIT 1'
    # Of an assertion it is known where it is.
    some = rows(cursor, f"{query} AND {NEAR}", [reference], tail=first, about=[reference])
    some = some or rows(cursor, query, [reference], tail=first)
    return event_view(some[0]) if some else None


def submission_of(cursor: Cursor, job_id: str) -> EventView | None:
    """Return the record that submitted a job, or None."""
    query = f'SELECT topic, partition, "offset" FROM submissions WHERE job_id = ? AND {NEAR}'
    some = tuples(cursor, query, [job_id], tail='ORDER BY "offset" LIMIT 1', about=[job_id])
    return event_at(cursor, *some[0]) if some else None


def chain(cursor: Cursor, event: EventView) -> list[EventView]:
    """Return the causes of a record up to where it began, oldest first, the record itself last."""
    steps = [event]
    seen = {event.position}
    while steps[-1].causation is not None and steps[-1].causation not in seen and len(steps) < DEPTH_LIMIT:
        cause = find_event(cursor, steps[-1].causation)
        if cause is None:
            break
        seen.add(cause.position)
        steps.append(cause)
    return steps[::-1]


def effects(cursor: Cursor, root: EventView) -> CausationNode:
    """Return the tree of everything that followed from a record: one join per level, bounded, each record once."""
    tree = CausationNode(event=root)
    level = {root.position: tree}
    seen = {root.position}
    while level and len(seen) < NODES_LIMIT:
        following: dict[str, CausationNode] = {}
        for row in _caused_by(cursor, [parse_position(one) for one in level]):
            view = event_view(row)
            if view.position not in seen and view.causation is not None:
                seen.add(view.position)
                node = following[view.position] = CausationNode(event=view)
                level[view.causation].effects.append(node)
        level = following
    return tree


def _caused_by(cursor: Cursor, causes: Sequence[LogPosition]) -> list[dict[str, Any]]:
    """Return the records that some others caused, in order."""
    found: list[dict[str, Any]] = []
    by_topic: dict[str, list[LogPosition]] = {}
    for one in causes:
        by_topic.setdefault(one.topic, []).append(one)
    for topic, some in by_topic.items():
        # The range is compared by the scan itself, which passes over the rest of the log.
        query = f"""SELECT {_EVENT} FROM events WHERE cause_topic = ? AND cause_offset BETWEEN ? AND ?
          AND (cause_partition, cause_offset) IN (SELECT (unnest(?::INTEGER[]), unnest(?::BIGINT[])))"""
        partitions, offsets = [one.partition for one in some], [one.offset for one in some]
        parameters = [topic, min(offsets), max(offsets), partitions, offsets]
        found += rows(cursor, query, parameters, tail=f"{_IN_ORDER} LIMIT {NODES_LIMIT}")
    return sorted(found, key=itemgetter("log_time", "topic", "partition", "offset"))[:NODES_LIMIT]


# Runners


def runner_views(cursor: Cursor) -> list[RunnerView]:
    """Return every runner process that the log knows, the newest first."""
    views = []
    for row in rows(cursor, "SELECT * FROM runners", tail="ORDER BY registered_at DESC, runner_id LIMIT 1000"):
        registered: RunnerRegistered = decode(row["value"])
        views.append(
            RunnerView(
                runner_id=row["runner_id"], name=row["name"], pool=row["pool"], slots=row["slots"], labels=registered.labels,
                capabilities=[f"{one.job_type}@{one.version}" for one in registered.capabilities], state=row["state"],
                registered_at=row["registered_at"], last_heartbeat_at=row["last_heartbeat_at"], in_flight=row["in_flight"],
            )
        )  # fmt: skip
    return views
