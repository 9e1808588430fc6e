"""Questions about jobs, events and causes; each takes a cursor of its own and returns the models of the HTTP contract."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from controlplane.api.models import AttemptView, CausationNode, ContentView, EventView, JobView, RunnerView
from controlplane.api.plain import json_value, plain_record
from controlplane.events.codec import decode
from controlplane.events.types import RunnerRegistered
from controlplane.log.positions import parse_position
from controlplane.truthcore_projector.cursors import Cursor, rows, tuples

DEPTH_LIMIT: Final = 64
NODES_LIMIT: Final = 500
_EVENT: Final = (
    'topic, partition, "offset", log_time, key, event_type, event_id, correlation_id, cause_topic, cause_partition,'
    " cause_offset, occurred_at, producer, value"
)
_BEFORE: Final = '(log_time, topic, partition, "offset") < (?::TIMESTAMP, ?, ?, ?)'
TIME_PATTERN: Final = r"(19|20)\d\d-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?"
JOB_CURSOR: Final = rf"^{TIME_PATTERN}~.+$"
"""A cursor of `job_page`: time and id of the last job of the page before."""
EVENT_CURSOR: Final = rf"^{TIME_PATTERN}~[a-z.]{{1,40}}/\d{{1,6}}/\d{{1,18}}$"
JOB_FILTERS: Final = ("job_type", "phase", "pool", "tenant", "correlation_id", "parent_job_id", "search")
"""What jobs are chosen by; `search` is a part of the id, the type, the correlation id or the error."""
_SEARCHED: Final = "concat_ws(' ', job_id, job_type, correlation_id, error_code, error_message)"

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
    # Values, not a subquery: these reach through the views down to the scans, which is five times as fast.
    among = f"job_id IN ({', '.join('?' * len(ids))})"
    known = {row["job_id"]: row for row in rows(cursor, f"SELECT * FROM jobs WHERE {among}", ids)}
    attempts: dict[str, list[AttemptView]] = {}
    query = f"SELECT * FROM attempts WHERE {among}"
    for row in rows(cursor, query, ids, tail="ORDER BY attempt_number, routed_at, attempt_id"):
        attempts.setdefault(row["job_id"], []).append(_attempt_view(row))
    return [_job_view(known[one], attempts.get(one, []), details=details) for one in ids if one in known]


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


def job_conditions(filters: dict[str, str | None]) -> tuple[list[str], list[str]]:
    """Return the conditions of a filter and their parameters."""
    conditions, parameters = ["true"], []
    for name in JOB_FILTERS:
        if value := filters.get(name):
            conditions.append(f"contains(lower({_SEARCHED}), lower(?))" if name == "search" else f"{name} = ?")
            parameters.append(value)
    return conditions, parameters


def job_page(
    cursor: Cursor, filters: dict[str, str | None], limit: int, cursor_text: str | None
) -> tuple[list[JobView], str | None]:
    """Return a page of jobs, newest first, and where the next begins."""
    conditions, parameters = job_conditions(filters)
    if cursor_text:
        moment, _, job_id = cursor_text.partition("~")
        conditions.append("(submitted_at, job_id) < (?::TIMESTAMP, ?)")
        parameters += [moment, job_id]
    query = f"SELECT job_id, submitted_at FROM jobs WHERE {' AND '.join(conditions)}"
    some = tuples(cursor, query, parameters, tail=f"ORDER BY submitted_at DESC, job_id DESC LIMIT {limit + 1}")
    following = f"{some[limit - 1][1].isoformat()}~{some[limit - 1][0]}" if len(some) > limit else None
    return job_views(cursor, [row[0] for row in some[:limit]], details=False), following


# Events and causes


def event_cursor(text: str) -> tuple[datetime, str, int, int]:
    """Return the log time and the position that a page of events ended with.

    Raises:
        ValueError: no page gave this cursor.
    """
    moment, _, place = text.partition("~")
    position = parse_position(place)
    return datetime.fromisoformat(moment), position.topic, position.partition, position.offset


def event_page(
    cursor: Cursor, filters: dict[str, str | None], limit: int, after: tuple[datetime, str, int, int] | None
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


def dead_letter_page(
    cursor: Cursor, limit: int, after: tuple[datetime, str, int, int] | None
) -> tuple[list[EventView], str | None]:
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
    return views, f"{some[limit - 1]['log_time'].replace(tzinfo=None).isoformat()}~{views[-1].position}"


def job_events(cursor: Cursor, job_id: str) -> list[EventView]:
    """Return every record about a job in the order of their log time: those under its key, and the truths that it gave."""
    query = f"""SELECT {_EVENT} FROM events WHERE key = encode(?) OR key = encode(?) AND topic = 'controlplane.truth'
      OR (topic, partition, "offset") IN (SELECT (topic, partition, "offset") FROM assertions WHERE job_id = ?)"""
    tail = 'ORDER BY log_time, topic, partition, "offset" LIMIT 2000'
    return [event_view(row) for row in rows(cursor, query, [job_id, f"job:{job_id}", job_id], tail=tail)]


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
    query = f"SELECT {_EVENT} FROM events WHERE event_id = ?"
    some = rows(cursor, query, [reference], tail='ORDER BY topic, partition, "offset" LIMIT 1')
    return event_view(some[0]) if some else None


def submission_of(cursor: Cursor, job_id: str) -> EventView | None:
    """Return the record that submitted a job, or None."""
    some = rows(cursor, 'SELECT topic, partition, "offset" FROM first_submissions WHERE job_id = ?', [job_id])
    return event_at(cursor, some[0]["topic"], some[0]["partition"], some[0]["offset"]) if some else None


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
        places = [position.rsplit("/", 2) for position in level]
        query = f"""SELECT {_EVENT} FROM events SEMI JOIN
          (SELECT unnest(?) AS t, unnest(?) AS p, unnest(?) AS o) AS causes
          ON cause_topic = t AND cause_partition = p AND cause_offset = o"""
        tail = f'ORDER BY log_time, topic, partition, "offset" LIMIT {NODES_LIMIT}'
        lists = [[one[0] for one in places], [int(one[1]) for one in places], [int(one[2]) for one in places]]
        following: dict[str, CausationNode] = {}
        for row in rows(cursor, query, lists, tail=tail):
            view = event_view(row)
            if view.position not in seen and view.causation is not None:
                seen.add(view.position)
                node = following[view.position] = CausationNode(event=view)
                level[view.causation].effects.append(node)
        level = following
    return tree


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
