"""What must hold in every history, whatever happens: looked at while it runs and when it is over."""

import contextlib
import hashlib
from collections import defaultdict
from typing import Any, Final

import msgspec

from controlplane.events import types
from controlplane.events.catalog import CONTROLS, EVENT_TYPES, JOBS, ROUTING, SUBMISSIONS, TERMINAL, Service
from controlplane.events.codec import UndecodableRecord, decode
from controlplane.events.types import LogPosition
from controlplane.jobforge_agent.breakers import OPEN
from controlplane.jobforge_agent.changes import decode_job
from controlplane.jobforge_agent.control_store import VERSION, noted
from controlplane.jobforge_agent.recovery import Recorded
from controlplane.jobforge_agent.state import Job
from tests.simulation.logs import Record, SimulatedLog
from tests.simulation.stores import Server
from tests.simulation.witness import bulks_left, schedules_kept
from tests.simulation.world import World

_TOLD: Final = ("job_id", "attempt_id", "runner_id", "priority", "reason", "subject")
NOT_CONTENT: Final = ("producer",)
"""What may differ between two copies of an event: which instance wrote it."""


class Checks:
    """The promises, and what has to be remembered to hold them against a history."""

    def __init__(self, world: World, log: SimulatedLog, server: Server) -> None:
        """Watch the log and the store."""
        self.submitted: set[str] = set()
        """Jobs whose submission was acknowledged."""
        self._world = world
        self._log = log
        self._server = server
        self._events: list[tuple[Record, Any]] = []
        self._read = 0

    # When it is quiet

    def events(self, *topics: str) -> list[tuple[Record, Any]]:
        """Return the events on topics, in the order in which they were appended."""
        for record in self._log.appended[self._read :]:
            with contextlib.suppress(UndecodableRecord):
                self._events.append((record, decode(record.value)))
        self._read = len(self._log.appended)
        return [one for one in self._events if not topics or one[0].topic in topics]

    def _concluded(self) -> set[str]:
        return {event.job_id for _, event in self.events(JOBS.name) if type(event) in TERMINAL}

    def _expected(self) -> set[str]:
        """Return the jobs that have to conclude: every submission on the log, whoever wrote it."""
        return {event.job_id for _, event in self.events(SUBMISSIONS.name) if isinstance(event, types.JobSubmitted)}

    def quiet(self, instances: list[Any]) -> bool:
        """Say whether nothing is left to do."""
        pending = any(one.outbox.pending for one in instances if one.alive)
        concluded = self._expected() <= self._concluded()
        left = self._bulks_left() or self._leftovers() or self._controls_differ() or self._alerts_left()
        return concluded and not pending and not left

    def _bulks_left(self) -> list[str]:
        return bulks_left([event for _, event in self.events(CONTROLS.name)], self._log.counts[SUBMISSIONS.name])

    def _names(self) -> dict[str, bytes]:
        return {key.decode().removeprefix(self._server.prefix): key for key in self._server.stored_keys()}

    def jobs(self) -> dict[str, Job]:
        """Return every job that the store knows."""
        keys = [key for name, key in self._names().items() if name.startswith("job:")]
        values = self._server.client.mget(keys) if keys else []
        return {job.job_id: job for job in map(decode_job, values)}

    def _leftovers(self) -> list[str]:
        """Return what an idle store must not hold."""
        found = []
        for name, key in self._names().items():
            kind = name.partition(":")[0]
            if kind in {"ready", "depths", "due", "open", "held", "outbox", "running", "parked", "lane", "children"}:
                found.append(name)
            elif kind == "busy":
                busy = self._server.client.hgetall(key)
                found += [f"{slots.decode()} busy slots of {one.decode()}" for one, slots in busy.items() if int(slots)]
            elif kind == "guards":  # Schedules are removed and commands to many done by now.
                places = [one.decode() for one in self._server.client.hkeys(key) if one.startswith(b"place/")]
                found += [f"the guard {one}" for one in places]
        return found

    def _controls_differ(self) -> list[str]:
        """Return what was declared and is not in the store what it is on the log; commands to many are forgotten once they are done."""
        declared: dict[str, bytes] = {}
        for record, event in self.events(CONTROLS.name):
            position = LogPosition(topic=record.topic, partition=record.partition, offset=record.offset)
            declared |= noted(event, position, record.timestamp * 1000).fields
        kept = self._server.client.hgetall(f"{self._server.prefix}controls")
        names = declared.keys() | {name.decode() for name in kept if name != VERSION}
        return sorted(
            name for name in names
            if not name.startswith("Bulk") and kept.get(name.encode(), b"") != declared.get(name, b"")
        )  # fmt: skip

    def alerts(self, kind: str) -> list[types.AlertRaised | types.AlertCleared]:
        """Return the last that was said of each condition of a kind."""
        last: dict[str, types.AlertRaised | types.AlertCleared] = {}
        said: set[str] = set()
        for _, event in self.events(JOBS.name):
            if isinstance(event, types.AlertRaised | types.AlertCleared) and event.kind == kind:
                if event.header.event_id not in said:
                    last[event.subject] = event
                said.add(event.header.event_id)
        return list(last.values())

    def _alerts_left(self) -> list[str]:
        """Return the alerts that say what is not so, once the store answers and instances live."""
        controls: dict[str, Any] = {}
        said: set[str] = set()
        for _, event in self.events(CONTROLS.name):
            if isinstance(event, types.BreakerChanged | types.AdmissionChanged):
                # Read as the alerts are: what a store that went back repeats is no news.
                if event.header.event_id not in said:
                    controls[event.subject] = event
                said.add(event.header.event_id)
        opened = {
            subject for subject, event in controls.items()
            if (event.state == OPEN if isinstance(event, types.BreakerChanged) else not event.open)
        }  # fmt: skip
        told = self.alerts("store_unavailable") + self.alerts("breaker_open") + self.alerts("admission_closed")
        raised = {one.subject for one in told if isinstance(one, types.AlertRaised)}
        return sorted(raised ^ opened)

    # At the end

    def at_the_end(self, until: int, *, clocks_agree: bool, forgetful: bool) -> None:
        """Hold every promise about the log and the store against what is there; `until` is when the calm began."""
        self._one_conclusion_each()
        self._no_event_id_twice()
        self._causes_come_first()
        self._attempts_are_real()
        self._store_is_fold()
        controls = [event for _, event in self.events(CONTROLS.name, SUBMISSIONS.name)]
        schedules_kept(self._world, controls, until if clocks_agree else 0, forgetful=forgetful)
        for subject in self._alerts_left():
            self._world.fail(f"the alert of {subject} does not say what is so")
        for bulk_id in self._bulks_left():
            self._world.fail(f"{bulk_id} was not applied to every partition")

    def _one_conclusion_each(self) -> None:
        conclusions: dict[str, dict[str, str]] = defaultdict(dict)
        for _, event in self.events(JOBS.name):
            if type(event) in TERMINAL:
                conclusions[event.job_id][event.header.event_id] = type(event).__name__
        for job_id, found in conclusions.items():
            if len(found) > 1:
                self._world.fail(f"{job_id} concluded {len(found)} times: {', '.join(found.values())}")
        for job_id in sorted((self._expected() | self.submitted) - set(conclusions)):
            self._world.fail(f"{job_id} was lost: it was submitted and never concluded")
        for leftover in self._leftovers():
            self._world.fail(f"the store is idle, but holds {leftover}")

    def _no_event_id_twice(self) -> None:
        seen: dict[str, Any] = {}
        for _, event in self.events():
            header = event.header
            if header.event_id in seen and (found := _difference(seen[header.event_id], event)):
                self._world.fail(f"two events have the id {header.event_id}, but {found}")
            seen.setdefault(header.event_id, event)

    def _causes_come_first(self) -> None:
        for record, event in self.events():
            cause = event.header.causation
            if cause is None or event.header.producer.service != Service.JOBFORGE:
                continue
            causes = self._log.partitions[(cause.topic, cause.partition)]
            if cause.offset >= len(causes) or causes[cause.offset].order >= record.order:
                self._world.fail(f"{type(event).__name__} names as its cause what was not appended before it: {cause}")

    def _attempts_are_real(self) -> None:
        """A job completes with what its runner observed under the lease that the log gave it."""
        routed = {
            event.attempt_id: event for _, event in self.events(ROUTING.name) if isinstance(event, types.JobRouted)
        }
        observed = {
            (event.attempt_id, event.result.data)
            for _, event in self.events() if isinstance(event, types.AttemptSucceeded)
        }  # fmt: skip
        for _, event in self.events(JOBS.name):
            if isinstance(event, types.JobCompleted):
                if event.attempt_id not in routed:
                    self._world.fail(f"{event.job_id} completed under {event.attempt_id}, which was never routed")
                elif (event.attempt_id, event.result.data) not in observed:
                    self._world.fail(f"{event.job_id} completed with a result that no runner reported")

    def recorded(self) -> dict[str, Recorded]:
        """Return what the log says JobForge decided, by job."""
        found: dict[str, Recorded] = {}
        for _, event in self.events(JOBS.name, ROUTING.name):
            if EVENT_TYPES[type(event).__name__].key_field == "job_id":
                found.setdefault(event.job_id, Recorded()).take(event)
        return found

    def _store_is_fold(self) -> None:
        live = self.jobs()
        for job_id, recorded in self.recorded().items():
            job = live.get(job_id)
            if job is None:
                if recorded.conclusion is None:
                    self._world.fail(f"the log decided on {job_id}, but the store does not know it")
                continue
            folded = recorded.restore(job)
            if folded.phase is not job.phase:
                self._world.fail(f"{job_id} is {job.phase} in the store, but {folded.phase} on the log")
        for name in self._controls_differ():
            self._world.fail(f"{name} is not in the store what it is on the log")

    def story(self) -> list[tuple[float, str]]:
        """Return what the log got, as lines with their times; without heartbeats."""
        lines = []
        for record, event in self.events():
            if not isinstance(event, types.RunnerHeartbeat | types.TruthAsserted):
                told = [str(getattr(event, name)) for name in _TOLD if getattr(event, name, None) is not None]
                place = f"{record.topic.removeprefix('controlplane.')}/{record.partition}/{record.offset}"
                lines.append((record.seconds, f"    {place:20} {type(event).__name__} {' '.join(told)}"))
        return lines

    def digest(self) -> str:
        """Return the digest of everything appended: equal for equal seeds."""
        sha = hashlib.sha256()
        for record in self._log.appended:
            sha.update(f"{record.topic}/{record.partition}/{record.timestamp}".encode() + record.value)
        return sha.hexdigest()[:16]


def _difference(one: Any, other: Any) -> str | None:
    """Return where two events of one id differ, apart from who wrote them."""
    if type(one) is not type(other):
        return f"one is a {type(one).__name__} and one a {type(other).__name__}"
    left, right = msgspec.to_builtins(one), msgspec.to_builtins(other)
    for side in (left, right):
        for name in NOT_CONTENT:
            side["header"].pop(name)
    places = _places(left, right)
    return f"{type(one).__name__} of {getattr(one, 'job_id', '')} differs: {'; '.join(places)}" if places else None


def _places(left: Any, right: Any, path: str = "") -> list[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        names = sorted(set(left) | set(right))
        return [place for name in names for place in _places(left.get(name), right.get(name), f"{path}.{name}")]
    return [] if left == right else [f"{path[1:]} is {left!r} and {right!r}"]
