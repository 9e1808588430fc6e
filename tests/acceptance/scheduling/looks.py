"""What the scheduling tests look at, and how they wait for it."""

from datetime import datetime
from typing import Any, Final

from controlplane.client import Client, JobHandle
from tests.acceptance.test_stack import until

WAIT_SECONDS: Final = 60.0
MOST_IN_FLIGHT: Final = 60


def waits(handle: JobHandle, *words: str) -> str:
    """Return why a job waits, once it says so in these words."""

    def look() -> str | None:
        said = handle.status().waiting_for or ""
        return said if all(word in said for word in words) else None

    found: str = until(look)
    return found


def runs(handle: JobHandle) -> bool:
    """Return once a job runs."""
    return bool(until(lambda: handle.status().phase == "RUNNING"))


def happened(client: Client, event_type: str, **fields: Any) -> list[dict[str, Any]]:
    """Return the events of a type that have these fields, the newest first."""
    found = client.request("GET", "/v1/events", query={"event_type": event_type, "limit": 500})["events"]
    return [one for one in found if all(one["event"].get(name) == value for name, value in fields.items())]


def routed_at(client: Client, handles: list[JobHandle]) -> list[datetime]:
    """Return when JobForge handed each job out, by its own clock."""
    when = {one["event"]["job_id"]: one["occurred_at"] for one in happened(client, "JobRouted")}
    return [datetime.fromisoformat(when[one.job_id]) for one in handles]


class Paused:
    """A pool or a job type that rests while a block runs."""

    def __init__(self, client: Client, subject: str) -> None:
        self._client, self._path = client, f"/v1/pauses/{subject}"

    def __enter__(self) -> None:
        self._client.request("PUT", self._path, body={"reason": "maintenance"})

    def __exit__(self, *_: object) -> None:
        self._client.request("DELETE", self._path)
