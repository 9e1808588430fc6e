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
    wanted = {one.job_id for one in handles}

    def found() -> dict[str, str] | None:
        # A conclusion may be reflected before the hand-over, which stands in another partition.
        when = {one["event"]["job_id"]: one["occurred_at"] for one in happened(client, "JobRouted")}
        return when if wanted <= when.keys() else None

    when = until(found)
    return [datetime.fromisoformat(when[one.job_id]) for one in handles]


class Paused:
    """A pool or a job type that rests while a block runs."""

    def __init__(self, client: Client, subject: str) -> None:
        self._client, self._subject, self._path = client, subject, f"/v1/pauses/{subject}"

    def __enter__(self) -> None:
        """Return once JobForge knows: what is submitted from now on waits."""
        self._client.request("PUT", self._path, body={"reason": "maintenance"})
        kind, name = self._subject.split(":")
        where: dict[str, Any] = {"pool": name} if kind == "pool" else {}
        while not self._stays(self._client.submit("s.echo" if kind == "pool" else name, {}, tenant="probe", **where)):
            pass

    def _stays(self, probe: JobHandle) -> bool:
        """Say whether a job is held back: JobForge keeps a pause for all instances from the moment that one of them notes it."""
        until(lambda: probe.status().phase != "SUBMITTED")
        held = probe.status().phase == "QUEUED"
        probe.cancel()
        return probe.wait(WAIT_SECONDS).attempts == [] and held

    def __exit__(self, *_: object) -> None:
        self._client.request("DELETE", self._path)


class Busy:
    """The only slot of pool narrow is taken while a block runs: whatever is submitted in it waits, and is then handed out in its order."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __enter__(self) -> JobHandle:
        self._handle = self._client.submit("s.hang", {}, pool="narrow", retry={"max_lost_attempts": 100})
        assert runs(self._handle)
        return self._handle

    def __exit__(self, *_: object) -> None:
        self._handle.cancel()
        assert self._handle.wait(WAIT_SECONDS).phase == "CANCELLED"
