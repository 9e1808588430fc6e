"""One line of what a record says, for people who read many of them."""

from collections.abc import Callable
from typing import Any, Final

from controlplane.api.models import EventView

Fields = dict[str, Any]


def _asserted(event: Fields) -> str:
    value = event["object"]
    shown = value["number"] if value.get("number") is not None else value.get("text")
    unit = f" {value['unit']}" if value.get("unit") else ""
    return f"{event['subject']} {event['predicate']} = {shown}{unit}, {event['confidence']:.0%} sure"


_SAYS: Final[dict[str, Callable[[Fields], str]]] = {
    "JobSubmitted": lambda event: f"{event['job_type']}, priority {event['priority']}",
    "JobRouted": lambda event: f"to {event['runner_id']}: {event['reason']}",
    "AttemptStarted": lambda event: f"attempt {event['attempt_number']} on {event['runner_id']}",
    "AttemptProgressed": lambda event: f"{event['fraction']:.1%} {event.get('message') or ''}",
    "JobLogged": lambda event: " | ".join(line["message"] for line in event["lines"][:3]),
    "TruthAsserted": _asserted,
    "RunnerRegistered": lambda event: f"{event['name']}, {event['slots']} slots",
    "RunnerHeartbeat": lambda event: f"{len(event['attempt_ids'])} attempts in flight",
    "BreakerChanged": lambda event: f"{event['subject']} {event['state'].lower()}",
    "CheckpointSigned": lambda event: f"{event['origin']}: {event['tree_size']} records",
}


def gist(record: EventView) -> str:
    """Return the most telling of a record's fields; all of them are in the record."""
    event = record.event
    try:
        if says := _SAYS.get(record.event_type):
            return says(event)
    except (KeyError, TypeError, ValueError):
        return ""  # Of a version with other fields: the record itself is shown on request.
    error = event.get("error") or {}
    return str(error.get("message") or event.get("reason") or event.get("message") or event.get("subject") or "")
