"""One job from its rows: what the views `jobs` and `attempts` say, for few jobs without planning a query over views.

To plan the views takes ten times as long as to read one job's rows. A test holds both to the same answers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

Row = Mapping[str, Any]

RANK: Final = {"ROUTED": 1, "STARTED": 2, "PROGRESSED": 3, "LOST": 5, "RETRYING": 6}
ENDED: Final = 4
"""The rank of whatever else ends an attempt."""
FAULTS: Final = frozenset({"FAILED", "LOST", "RETRYING"})
ENDS: Final = frozenset({"SUCCEEDED", "FAILED", "CANCELLED", "LOST"})

_offset = itemgetter("offset")


def job_row(
    submissions: Sequence[Row], conclusions: Sequence[Row], stages: Sequence[Row], changes: Sequence[Row], *, accepted: bool
) -> dict[str, Any]:  # fmt: skip
    """Return the row of `jobs` that follows from one job's rows; `accepted` matters where there is neither a conclusion nor a stage."""
    submission = min(submissions, key=_offset)
    conclusion = min(conclusions, key=_offset) if conclusions else dict[str, Any]()
    retries = [one for one in changes if one["kind"] == "RETRIED"]
    priorities = [one for one in changes if one["kind"] == "REPRIORITISED" and one["priority"] is not None]
    run_now = max((one["offset"] for one in retries if one["retry_job_id"] is None), default=None)
    outcome = ("error_code", "error_message", "result", "result_sha256", "result_size_bytes")
    return {
        **submission,
        **{name: conclusion.get(name) for name in outcome},
        "priority": max(priorities, key=_offset)["priority"] if priorities else submission["priority"],
        "submitted_at": submission["log_time"],
        "concluded_at": conclusion.get("log_time"),
        "retried_as": max((one["retry_job_id"] for one in retries if one["retry_job_id"] is not None), default=None),
        "phase": conclusion.get("phase") or _phase(submission, stages, run_now, accepted=accepted),
    }


def _phase(submission: Row, stages: Sequence[Row], run_now: int | None, *, accepted: bool) -> str:
    """Return where a job stands that is not concluded."""
    if stages:
        last = max(stages, key=lambda one: (one["attempt_number"] * 10 + _rank(one), -one["offset"]))
        if last["stage"] in ("RETRYING", "LOST"):
            return "QUEUED" if run_now is not None and run_now > last["offset"] else "RETRYING"
        return "ROUTED" if last["stage"] == "ROUTED" else "RUNNING"
    if not accepted:
        return "SUBMITTED"
    delayed = submission["not_before"] is not None and submission["not_before"] > submission["log_time"]
    return "DELAYED" if delayed and run_now is None else "QUEUED"


def attempt_rows(stages: Iterable[Row]) -> list[dict[str, Any]]:
    """Return the rows of `attempts` that follow from one job's stages, in their order."""
    by_attempt: dict[str, list[Row]] = {}
    for one in stages:
        if one["attempt_id"] is not None:
            by_attempt.setdefault(one["attempt_id"], []).append(one)
    found = [_attempt(attempt_id, some) for attempt_id, some in by_attempt.items()]
    return sorted(
        found, key=lambda one: (one["attempt_number"], one["routed_at"] is None, one["routed_at"], one["attempt_id"])
    )


def _attempt(attempt_id: str, stages: Sequence[Row]) -> dict[str, Any]:
    routed = [one for one in stages if one["stage"] == "ROUTED"]
    progressed = [one for one in stages if one["stage"] == "PROGRESSED"]
    faults = [one for one in stages if one["stage"] in FAULTS]
    phase = _last([one for one in stages if one["stage"] != "RETRYING"], "stage", _first_of_rank) or "FAILED"
    return {
        "attempt_id": attempt_id,
        "attempt_number": max(one["attempt_number"] for one in stages),
        "runner_id": max((one["runner_id"] for one in stages if one["runner_id"] is not None), default=None),
        "phase": "STARTED" if phase == "PROGRESSED" else phase,
        "routed_at": min((one["log_time"] for one in routed), default=None),
        "started_at": min((one["log_time"] for one in stages if one["stage"] == "STARTED"), default=None),
        "ended_at": min((one["log_time"] for one in stages if one["stage"] in ENDS), default=None),
        "fraction": _last(progressed, "fraction", _offset),
        "message": _last(progressed, "message", _offset),
        "error_code": _last(faults, "error_code", lambda one: -_first_of_rank(one)),
        "error_message": _last(faults, "message", lambda one: -_first_of_rank(one)),
        "routing_reason": _last(routed, "message", lambda one: -one["offset"]),
    }  # fmt: skip


def _rank(stage: Row) -> int:
    return RANK.get(stage["stage"], ENDED)


def _first_of_rank(stage: Row) -> int:
    """Order stages by rank; of two of one rank, which are in one partition, the first stands."""
    return int(_rank(stage) * 10_000_000_000_000 - stage["offset"])


def _last(stages: Sequence[Row], column: str, order: Callable[[Row], int]) -> Any:
    """Return the value of the last stage, in this order, that has one."""
    return max((one for one in stages if one[column] is not None), key=order, default={column: None})[column]
