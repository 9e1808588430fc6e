"""Sees every claim and commit as the store executes it, and holds it against what is in force at that moment.

What it knows of jobs it reads off the commands themselves, so it does not rely on the sets that the scripts keep for the same end.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from controlplane.events import types
from controlplane.events.catalog import CONTROLS
from controlplane.events.codec import decode
from controlplane.events.controls import Controls
from controlplane.events.types import BulkApplied, BulkRequested
from controlplane.jobforge_agent.breakers import HALF_OPEN, OPEN, of_runner, of_type
from controlplane.jobforge_agent.bulk import matches
from controlplane.jobforge_agent.changes import decode_job
from controlplane.jobforge_agent.control_store import Place
from controlplane.jobforge_agent.state import CRITICAL, SECOND, Job
from controlplane.jobforge_agent.transitions import Phase
from controlplane.log.producer import OutgoingRecord
from tests.simulation.stores import Command, Server
from tests.simulation.world import World

FIRST_ARGUMENT: Final = 3
"""A script's ARGV[n] is part 3 + n of its command."""
CAN_DO: Final = frozenset({"light", "heavy"})
EVERY_SECONDS: Final = 4
"""Between two times of a simulated schedule."""

Subjects = frozenset[str]
_unpack_records = msgspec.msgpack.Decoder(list[OutgoingRecord]).decode


class Witness:
    """One history's record of who waits, who runs, and when whom what was given."""

    def __init__(self, world: World, server: Server, labels: Callable[[str], Mapping[str, str] | None]) -> None:
        """Watch a server; `labels` returns those of a runner by its id."""
        self._world = world
        self._server = server
        self._labels = labels
        self._jobs: dict[str, Job] = {}
        self._waiting: dict[str, list[tuple[float, Job]]] = {}
        """Since when each waiting job can be seen, and where: one that moves in its queue is seen at its new place from then on."""
        self._looked: dict[str, float] = {}
        """When each instance looked last at what waits."""
        self._gave: dict[str, float] = {}
        """When the last job of each pool was given away, by whomever."""
        self._counts: dict[str, Subjects] = {}
        """What each attempt counts against."""
        self._starts: dict[str, deque[int]] = defaultdict(deque)
        self._debts: dict[tuple[str, str, str], float] = defaultdict(float)
        """What each other tenant of the pool was given while a tenant waited for the same, in weighted slots."""
        self._ahead: dict[tuple[str, str], float] = defaultdict(float)
        """What a tenant's critical jobs took out of turn, until it has its turn again."""
        self._last_jobs: dict[str, str] = {}
        """What each schedule submitted last."""
        self._controls: Controls | None = None
        self.forgetful = False
        """Whether the store ever forgot something."""
        self.seen: Counter[str] = Counter()
        """How often each promise was put to the test."""
        server.witness = self.saw

    def store_was_lost(self) -> None:
        """Look at the store again: it holds something else now."""
        self._controls = None
        self.forgetful = True
        self._debts.clear()
        self._ahead.clear()
        self._starts.clear()  # Which attempts started lately is known to nobody else: rates begin anew.
        names = [key for key in self._server.stored_keys() if key.startswith(f"{self._server.prefix}job:".encode())]
        values = self._server.client.mget(names) if names else []
        self._jobs = {job.job_id: job for job in map(decode_job, values)}
        self._waiting = {}
        for job in self._jobs.values():
            self._waits(job)

    def saw(self, process: str, script: str, command: Command, answer: Any) -> None:
        """Take note of a script that was executed for a process."""
        match script:
            case "heads":
                self._looked[process] = self._world.seconds
            case "control":
                self._controls = None
            case "commit" if answer == b"ok":
                self._commit(command)
            case "claim":
                self._claim(process, command, answer)

    def _in_force(self) -> Controls:
        if self._controls is None:
            found = self._server.client.hgetall(f"{self._server.prefix}controls")
            names = sorted(
                (name for name in found if name != b"version"),
                key=lambda name: (name.startswith(b"BulkApplied/"), name),
            )
            self._controls = Controls(decode(found[name]) for name in names)
        return self._controls

    # Commits

    def _commit(self, command: Command) -> None:
        fields = msgspec.msgpack.decode(command[FIRST_ARGUMENT + 2])
        for job_id, place, _ in fields["jobs"]:
            self._jobs[job_id] = job = decode_job(command[FIRST_ARGUMENT + place])
            self._waits(job)
        if fields["outbox"]:
            records = _unpack_records(command[FIRST_ARGUMENT + fields["outbox"][2]])
            for event in (decode(one.value) for one in records if one.topic == CONTROLS.name):
                if isinstance(event, BulkApplied):
                    self._bulk(event)
                elif isinstance(event, types.ScheduleFired) and event.job_id is not None:
                    self._overlap(event, event.job_id)

    def _waits(self, job: Job) -> None:
        if job.phase is not Phase.QUEUED:
            self._waiting.pop(job.job_id, None)
            return
        places = self._waiting.setdefault(job.job_id, [])
        if not places or places[-1][1].score != job.score:
            places.append((self._world.seconds, job))

    def _bulk(self, applied: BulkApplied) -> None:
        """Once a bulk cancellation is applied to a partition, no job there that it names goes on as if nothing had happened."""
        bulk = self._in_force().bulks.get(applied.bulk_id)
        if bulk is None or bulk.command.action != "cancel":
            return
        command: BulkRequested = bulk.command
        at = self._place(command.subject).at
        for job in self._jobs.values():
            if job.partition == applied.partition and not job.concluded and matches(command, job, at):
                self.seen["bulk"] += 1
                if job.cancel_reason is None:
                    self._world.fail(
                        f"{command.bulk_id} was applied to partition {applied.partition}, but {job.job_id} is {job.phase}"
                    )

    def _overlap(self, fired: types.ScheduleFired, job_id: str) -> None:
        """A schedule without overlap submits nothing while the job that it submitted last is not concluded, or not even decided on."""
        before = self._last_jobs.get(fired.schedule_id)
        self._last_jobs[fired.schedule_id] = job_id
        schedule = self._in_force().schedules.get(fired.schedule_id)
        if before is None or schedule is None or schedule.overlap or self.forgetful:
            return
        if fired.header.causation != self._place(fired.subject).position:
            return  # It was declared anew after this time was looked at.
        self.seen["overlap"] += 1
        job = self._jobs.get(before)
        if job is None or not job.concluded:
            self._world.fail(
                f"schedule {fired.schedule_id} submits {job_id} without overlap, but {before} is {job and job.phase}"
            )

    def _place(self, subject: str) -> Place:
        """Return where a schedule or a bulk command was declared."""
        text = self._server.client.hget(f"{self._server.prefix}guards", f"place/{subject}")
        return msgspec.json.decode(text, type=Place)

    # Claims

    def _claim(self, process: str, command: Command, answer: Any) -> None:
        fields = msgspec.msgpack.decode(command[FIRST_ARGUMENT + 2])
        given = [
            decode_job(command[FIRST_ARGUMENT + row[6]])
            for row, verdict in zip(fields["claims"], answer, strict=True) if verdict == 1
        ]  # fmt: skip
        for job in given:
            self._waiting.pop(job.job_id, None)
        looked = self._looked.get(process, 0.0)
        for job in given:
            before = self._jobs[job.job_id]
            self._jobs[job.job_id] = job
            self._stopped(job)
            self._limits(job)
            self._turn(before, job, looked)
        for job in given:
            self._gave[job.pool] = self._world.seconds

    def _leased(self) -> list[Job]:
        return [job for job in self._jobs.values() if job.leased]

    def _stopped(self, job: Job) -> None:
        """Nothing is given out that is paused, nor to a destination whose breaker is open; one on trial gets one attempt."""
        controls = self._in_force()
        self.seen["stopped"] += bool(controls.pauses or controls.breakers)
        if pause := controls.paused(job.pool, job.job_type):
            self._world.fail(f"{job.job_id} was routed while {pause.subject} is paused")
        for subject in (of_type(job.job_type), of_runner(job.runner_id or "")):
            breaker = controls.breakers.get(subject)
            if breaker is not None and breaker.state == OPEN:
                self._world.fail(f"{job.job_id} was routed to {job.runner_id} while {subject} is open")
        breaker = controls.breakers.get(of_runner(job.runner_id or ""))
        if breaker is not None and breaker.state == HALF_OPEN:
            held = [one.job_id for one in self._leased() if one.runner_id == job.runner_id]
            if len(held) > 1:
                self._world.fail(f"{job.runner_id} is on trial, but holds {held}")

    def _limits(self, job: Job) -> None:
        """No more attempts run, and no more start in a period, than a limit in force allows."""
        controls = self._in_force()
        limits = dict(controls.limits_of(job.job_type, job.tenant, job.concurrency_key, job.rate_key))
        breaker = controls.breakers.get(of_type(job.job_type))
        self._counts[job.attempt_id or ""] = frozenset(limits)
        now = self._world.now()
        for subject, limit in limits.items():
            running = [one.job_id for one in self._leased() if subject in self._counts.get(one.attempt_id or "", ())]
            if limit.max_running is not None:
                self.seen["running"] += 1
                if len(running) > limit.max_running:
                    self._world.fail(f"{subject} lets {limit.max_running} run, but {running} do")
            if limit.starts is not None:
                self.seen["rate"] += 1
                starts = self._starts[subject]
                starts.append(now)
                while starts[0] <= now - int(limit.period_seconds * SECOND):
                    starts.popleft()
                if len(starts) > limit.starts:
                    self._world.fail(
                        f"{subject} lets {limit.starts} start in {limit.period_seconds:g} s, but {len(starts)} did"
                    )
        if breaker is not None and breaker.state == HALF_OPEN:
            self.seen["trial"] += 1

    def _could_have(self, other: Job, job: Job) -> bool:
        """Say whether another job that waits could have had the room that a job was given."""
        labels = self._labels(job.runner_id or "")
        controls = self._in_force()
        return (
            other.pool == job.pool
            and other.slots <= job.slots
            and labels is not None
            and all(labels.get(name) == value for name, value in other.required_labels.items())
            and other.job_type in CAN_DO
            and not controls.paused(other.pool, other.job_type)
            and of_type(other.job_type) not in controls.breakers
            and not any(controls.limits_of(other.job_type, other.tenant, other.concurrency_key, other.rate_key))
        )

    def _turn(self, before: Job, job: Job, looked: float) -> None:
        """Critical jobs go first, the oldest of them; else no tenant's job before its older ones, and no tenant before its part."""
        seen = [[one for since, one in places if since < looked] for places in self._waiting.values()]
        could = [places[-1] for places in seen if places and self._could_have(places[-1], job)]
        self.seen["turn"] += len(could)
        critical = job.priority >= CRITICAL

        def comes_first(other: Job) -> str | None:
            older = other.score < before.score
            if other.priority >= CRITICAL and (older or not critical):
                return "critical"
            return "older" if older and not critical and other.tenant == job.tenant else None

        for other in could:
            _, now = self._waiting[other.job_id][-1]  # Moved back since the look, it has its turn there.
            if (kind := comes_first(other)) and comes_first(now):
                self._world.fail(
                    f"{job.job_id} was routed to {job.runner_id} before {other.job_id}, which is {kind} and waited"
                )
        self._part(job, could, critical=critical, fresh=looked > self._gave.get(job.pool, -1.0))

    def _part(self, job: Job, could: list[Job], *, critical: bool, fresh: bool) -> None:
        """A tenant that waits is passed over for no more than what the largest attempts of both take, and what its critical jobs took before."""
        controls = self._in_force()
        waits = {one.tenant for one in could if one.priority < CRITICAL} - {job.tenant}
        for pool, tenant, other in list(self._debts):
            if pool == job.pool and (tenant == job.tenant or tenant not in waits):
                del self._debts[pool, tenant, other]
        if critical:
            self._ahead[job.pool, job.tenant] += job.slots / controls.weight(job.tenant)
            return
        self._ahead.pop((job.pool, job.tenant), None)
        if not fresh:
            return
        for tenant in waits:
            self.seen["part"] += 1
            pair = job.pool, tenant, job.tenant
            self._debts[pair] += job.slots / controls.weight(job.tenant)
            bound = sum(2 / controls.weight(one) for one in (tenant, job.tenant)) + self._ahead[job.pool, tenant]
            if self._debts[pair] > bound:
                self._world.fail(
                    f"{job.tenant} was given {self._debts[pair]:g} slots while {tenant} waited for its part"
                )


def schedules_kept(world: World, events: list[Any], until: int, *, forgetful: bool) -> None:
    """Each time of a schedule is dealt with once, unless the store forgot; all times are that came between its first declaration and `until`."""
    fired: dict[str, dict[int, types.ScheduleFired]] = defaultdict(dict)
    declared: dict[str, list[types.ScheduleDeclared]] = defaultdict(list)
    for event in events:
        if isinstance(event, types.ScheduleDeclared) and event not in declared[event.schedule_id]:
            declared[event.schedule_id].append(event)
        elif isinstance(event, types.ScheduleFired):
            first = fired[event.schedule_id].setdefault(event.due_at, event)
            again = first.header.event_id != event.header.event_id and first.header.causation == event.header.causation
            if again and not forgetful:
                world.fail(f"schedule {event.schedule_id} was dealt with twice for {event.due_at}")
    for name, declarations in declared.items():
        begins, every = declarations[0].header.occurred_at + SECOND, EVERY_SECONDS * SECOND
        came = max(0, until // every - begins // every)
        told = {moment for at, one in fired[name].items() for moment in range(at - one.missed * every, at + 1, every)}
        dealt = sum(begins <= moment <= until for moment in told)
        if dealt < came:
            world.fail(f"schedule {name} had {came} times, but only {dealt} were dealt with")


def bulks_left(events: list[Any], partitions: int) -> list[str]:
    """Return which bulk commands are not applied to every partition yet."""
    applied: dict[str, set[int]] = defaultdict(set)
    for event in events:
        if isinstance(event, BulkApplied):
            applied[event.bulk_id].add(event.partition)
    asked = [event.bulk_id for event in events if isinstance(event, BulkRequested)]
    return [one for one in asked if len(applied[one]) < partitions]
