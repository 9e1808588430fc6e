"""One history: what clients, runners, instances and the store do, and what goes wrong, all drawn from the seed.

A history draws which kinds of faults it may meet at all, and how busy it is: histories that differ in what they leave out find more
than histories that all have a little of everything (Groce and others, "Swarm Testing", ISSTA 2012). It has a stormy part and a calm one: once
calm, everything accepted has to conclude.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Final

import msgspec

from controlplane.events import types
from controlplane.events.catalog import SUBMISSIONS, Service
from controlplane.events.header import EVERY_TENANT, outside_header
from controlplane.events.identity import Instant
from controlplane.log.producer import OutgoingRecord
from tests.simulation.checks import Checks
from tests.simulation.instances import SESSION_SECONDS, Group, Instance, at_leisure, simulated_surroundings
from tests.simulation.logs import Link, SimulatedLog, SimulatedProducer
from tests.simulation.operators import Operators
from tests.simulation.runners import Behaviour, Runner
from tests.simulation.stores import Server, Snapshot
from tests.simulation.witness import Witness
from tests.simulation.world import Faults, Process, World

STORM_SECONDS: Final = (8.0, 16.0, 25.0)
CALM_SECONDS: Final = 900.0
"""Accepted work that did not conclude so long after the storm is lost: longer than a circuit breaker rests at most."""
CALM_ATTEMPT_SECONDS: Final = 0.2
LOOK_EVERY_SECONDS: Final = 2.0

BADLY: Final = {"fails": 0.25, "breaks": 0.05, "hangs": 0.08, "forgets": 0.08, "ignores_revocation": 0.3}
"""How attempts end when they may end badly."""
FAULTS: Final = (
    "instances_crash", "instances_freeze", "instances_deaf", "clocks_jump", "store_past", "store_empty", "store_down",
    "store_refuses", "store_answer_lost", "log_gives_up", "redelivered", "slow_step", "runners_vanish", "runners_freeze",
    "runners_drain", "attempts_end_badly", "reports_twice", "children", "commands", "poison", "limits_of_time", "limits", "shares",
    "pauses", "schedules", "bulk", "outages", "rush",
)  # fmt: skip
"""What a history may be chosen to meet."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a seed stands for."""

    meets: frozenset[str]
    instances: int
    runners: int
    jobs: int
    job_partitions: int
    storm_seconds: float
    at_leisure: bool
    """Whether instances look about less often than the shipped ones already in the storm; in the calm they always do."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a history."""

    seed: int
    failures: tuple[str, ...]
    story: tuple[str, ...]
    """The history for a reader: what was planned, what happened, and what the log got, in order."""
    digest: str
    """Of everything on the log: equal seeds, equal digests."""


class History:
    """Runs one history to its end."""

    def __init__(self, world: World, server: Server, meets: frozenset[str] | None = None) -> None:
        """Draw the plan; `meets` replaces the drawn faults, to find out which ones a failure needs."""
        self.world = world
        draw = world.random
        chosen = {name for name in FAULTS if draw.random() < 0.35}
        self.plan = Plan(
            meets=frozenset(chosen) if meets is None else meets, instances=draw.choice((1, 2, 2, 3)),
            runners=draw.randint(1, 4), jobs=draw.choice((8, 15, 25, 40)), job_partitions=draw.choice((1, 2, 3)),
            storm_seconds=draw.choice(STORM_SECONDS), at_leisure=draw.random() < 0.75,
        )  # fmt: skip
        self.server = server
        self.log = SimulatedLog.empty(world, self.plan.job_partitions, 4, 2)
        self.group = Group(world, self.log)
        self.instances: list[Instance] = []
        self.runners: list[Runner] = []
        self.checks = Checks(world, self.log, server)
        self.witness = Witness(world, server, self._labels)
        self.client = Process(world, "client")
        self._producer = SimulatedProducer(
            Link(bootstrap="simulated", log=self.log, process=self.client), Service.GATEWAY
        )
        self._operators = Operators(world, self._send, self._producer.identity, self.plan.meets)
        self._snapshots: list[Snapshot] = []
        self._calm = False

    def _meets(self, fault: str) -> bool:
        return fault in self.plan.meets

    def _labels(self, runner_id: str) -> Mapping[str, str] | None:
        return next((one.labels for one in self.runners if one.runner_id == runner_id), None)

    # Cast

    def _start_instance(self) -> None:
        self.instances.append(Instance(self.world, self.world.new_id("jobforge-"), self.log, self.server, self.group))

    def _start_runner(self, name: str) -> None:
        draw = self.world.random
        behaviour = Behaviour(longest_seconds=draw.choice((0.2, 1.5, 3.0)))
        if not self._calm:
            badly = self._meets("attempts_end_badly")
            behaviour = msgspec.structs.replace(
                behaviour,
                **(BADLY if badly else {}),
                has_children=0.2 if self._meets("children") else 0.0,
                reports_twice=0.3 if self._meets("reports_twice") else 0.0,
                outage=draw.choice((None, "destination_unavailable", "runner_broken"))
                if self._meets("outages")
                else None,
            )
        labels = {"place": draw.choice(("here", "there"))}
        slots = draw.choice((2, 3, 5))
        if self._calm:
            labels, slots = {"place": name.rpartition("/")[2]}, 4
            behaviour = Behaviour(longest_seconds=CALM_ATTEMPT_SECONDS)
        self.runners.append(Runner(self.world, self.log, name, slots=slots, labels=labels, behaviour=behaviour))

    async def _keep_instances(self) -> None:
        """Start another instance for each that ended, as the supervisor does."""
        while True:
            await asyncio.sleep(self.world.random.uniform(0.3, 1.5))
            self.instances = [one for one in self.instances if one.alive]
            if len(self.instances) < self.plan.instances:
                self._start_instance()

    # What clients do

    async def _send(self, event: Any) -> None:
        await self._producer.deliver(self._producer.record(event))

    def _submission(self, job_id: str) -> types.JobSubmitted:
        draw = self.world.random
        job_type = draw.choice(("light", "light", "heavy"))
        limits = types.Timeouts()
        not_before: Instant | None = None
        deadline: Instant | None = None
        if self._meets("limits_of_time"):
            limits = types.Timeouts(
                attempt_seconds=draw.choice((None, 0.5, 2.0)), queue_seconds=draw.choice((None, None, 1.0, 5.0)),
                total_seconds=draw.choice((None, None, 4.0, 15.0)),
            )  # fmt: skip
            not_before = draw.choice((None, None, Instant(self.world.now() + 3_000_000)))
            deadline = draw.choice((None, None, None, Instant(self.world.now() + 8_000_000)))
        payload = types.Content(data=b'{"size": 1}')
        limited = self._meets("limits")
        if self._meets("poison") and draw.random() < 0.1:
            job_type, payload = draw.choice((("unknown", payload), ("light", types.Content(data=b"{}"))))
        return types.JobSubmitted(
            header=outside_header(
                "JobSubmitted", job_id, self._producer.identity, self.client.now(), tenant=draw.choice(("red", "green"))
            ),
            job_id=job_id, job_type=job_type, payload=payload, priority=draw.choice((9, 7, 5, 5, 5, 2)),
            required_labels=draw.choice(({}, {}, {"place": draw.choice(("here", "there"))})),
            concurrency_key=draw.choice((None, None, "k1", "k2")) if limited else None,
            rate_key=draw.choice((None, None, "r1")) if limited else None,
            slots=draw.choice((None, None, 1, 2)), timeouts=limits, not_before=not_before, deadline=deadline,
            retry=draw.choice((None, types.RetryPolicy(max_attempts=2, initial_backoff_seconds=0.1, max_lost_attempts=2))),
        )  # fmt: skip

    async def _submit_all(self) -> None:
        draw = self.world.random
        for number in range(self.plan.jobs):
            if not self._meets("rush"):
                await asyncio.sleep(
                    draw.choice((0.0, 0.0, 0.05, 2 * self.plan.storm_seconds / self.plan.jobs * draw.random()))
                )
            event = self._submission(f"job{number + 1}")
            await self._send(event)
            self.checks.submitted.add(event.job_id)
            if draw.random() < 0.1:
                self.client.start(self._later(event))
            if self._meets("commands") and draw.random() < 0.25:
                self.client.start(self._later(self._command(event.job_id)))
            if self._meets("poison") and draw.random() < 0.1:
                place = draw.randrange(self.plan.job_partitions)
                record = OutgoingRecord(topic=SUBMISSIONS.name, partition=place, key=b"poison", value=b"no event")
                await self._producer.deliver(record)

    def _command(self, job_id: str) -> Any:
        draw = self.world.random
        name = draw.choice(("JobCancelRequested", "JobCancelRequested", "JobReprioritiseRequested"))
        header = outside_header(
            name, f"{name}-{job_id}", self._producer.identity, self.client.now(), tenant=EVERY_TENANT
        )
        if name == "JobReprioritiseRequested":
            return types.JobReprioritiseRequested(header=header, job_id=job_id, priority=draw.randint(0, 9))
        return types.JobCancelRequested(header=header, job_id=job_id, reason="enough", kill=draw.random() < 0.3)

    async def _later(self, event: Any) -> None:
        await asyncio.sleep(self.world.random.uniform(0, 6))
        await self._send(event)

    # What goes wrong

    async def _storm(self) -> None:
        draw = self.world.random
        faults = Faults(
            store_refuses=0.01 if self._meets("store_refuses") else 0.0,
            store_answer_lost=0.01 if self._meets("store_answer_lost") else 0.0,
            log_gives_up=0.03 if self._meets("log_gives_up") else 0.0,
            redelivered=0.1 if self._meets("redelivered") else 0.0,
            slow_step=0.001 if self._meets("slow_step") else 0.0,
        )
        self.world.faults = faults
        mishaps: dict[str, Callable[[], None]] = {
            "instances_crash": self._crash, "instances_freeze": self._freeze_instance, "instances_deaf": self._deafen,
            "clocks_jump": self._jump, "store_past": self._store_past, "store_empty": self._store_empty,
            "store_down": self._store_down, "runners_vanish": self._vanish, "runners_freeze": self._freeze_runner,
            "runners_drain": self._drain,
        }  # fmt: skip
        chosen = [mishap for name, mishap in mishaps.items() if self._meets(name)]
        while self.world.seconds < self.plan.storm_seconds:
            await asyncio.sleep(draw.uniform(0.2, self.plan.storm_seconds / 4))
            if self._meets("store_past") and draw.random() < 0.7:
                self._snapshots.append(self.server.snapshot())
            if chosen:
                draw.choice(chosen)()

    def _crash(self) -> None:
        if living := [one for one in self.instances if one.alive]:
            self.world.random.choice(living).crash("killed")

    def _freeze_instance(self) -> None:
        if living := [one for one in self.instances if one.alive and not one.frozen]:
            self._freeze(self.world.random.choice(living))

    def _freeze(self, process: Process) -> None:
        draw, loop = self.world.random, self.world.loop
        seconds = draw.choice((0.5, 3.0, SESSION_SECONDS + 4.0, 15.0))
        self.world.note(f"{process.name} freezes for {seconds:g} s")
        process.freeze()
        if isinstance(process, Instance) and seconds > SESSION_SECONDS:
            loop.call_later(SESSION_SECONDS, self.group.check, process)
        loop.call_later(seconds, self._thaw, process)

    def _thaw(self, process: Process) -> None:
        process.thaw()
        if isinstance(process, Instance):
            self.world.loop.call_later(self.world.random.uniform(0, 1), self.group.join, process)

    def _deafen(self) -> None:
        if living := [one for one in self.instances if one.alive]:
            instance = self.world.random.choice(living)
            self.group.deaf.add(instance.name)
            self.world.loop.call_later(SESSION_SECONDS, self.group.check, instance)
            self.world.loop.call_later(SESSION_SECONDS + self.world.random.uniform(1, 8), self._hear, instance)

    def _hear(self, instance: Instance) -> None:
        self.group.deaf.discard(instance.name)
        self.group.join(instance)

    def _jump(self) -> None:
        if self.instances:
            instance = self.world.random.choice(self.instances)
            seconds = self.world.random.choice((-60, -5, -1, 1, 5, 60))
            instance.clock_off_micros += seconds * 1_000_000
            self.world.note(f"the clock of {instance.name} jumps by {seconds} s")

    def _store_past(self) -> None:
        if self._snapshots:
            at = self.world.random.randrange(len(self._snapshots))
            self.world.note(f"the store is back at snapshot {at + 1} of {len(self._snapshots)}")
            self.server.restore(self._snapshots[at])
            self.witness.store_was_lost()

    def _store_empty(self) -> None:
        self.world.note("the store is empty")
        self.server.restore(None)
        self.witness.store_was_lost()

    def _store_down(self) -> None:
        seconds = self.world.random.choice((0.5, 2.0, 8.0))
        self.world.note(f"the store is down for {seconds:g} s")
        self.server.down = True
        self.world.loop.call_later(seconds, self._store_up)

    def _store_up(self) -> None:
        self.server.down = False

    def _living_runners(self) -> list[Runner]:
        return [one for one in self.runners if one.alive and not one.draining]

    def _vanish(self) -> None:
        if living := self._living_runners():
            runner = self.world.random.choice(living)
            self.world.note(f"{runner.name} vanishes with {sorted(runner.held)}")
            runner.vanish()
            self.world.loop.call_later(self.world.random.uniform(0.1, 10), self._start_runner, runner.kind)

    def _freeze_runner(self) -> None:
        if living := self._living_runners():
            self._freeze(self.world.random.choice(living))

    def _drain(self) -> None:
        if living := self._living_runners():
            runner = self.world.random.choice(living)
            self.world.note(f"{runner.name} drains")
            runner.start(runner.drain())
            self.world.loop.call_later(self.world.random.uniform(0.1, 5), self._start_runner, runner.kind)

    # The whole

    async def run(self) -> None:
        """Play the storm, then the calm, then look at what is left."""
        with simulated_surroundings(self.world), ExitStack() as leisure:
            if self.plan.at_leisure:
                leisure.enter_context(at_leisure())
            for number in range(self.plan.runners):
                self._start_runner(f"runner{number + 1}")
            await asyncio.sleep(0.5)  # A job type that nobody ever offered would be rejected.
            await self._operators.begin()
            supervisor = asyncio.create_task(self._keep_instances())
            meddling = asyncio.create_task(self._operators.meddle(self.plan.storm_seconds))
            submissions = asyncio.create_task(self._submit_all())
            await self._storm()
            await submissions
            await meddling
            await self._heal()
            leisure.enter_context(at_leisure())
            until = self.world.now()
            await self._operators.calm()
            await self._until_quiet()
            supervisor.cancel()
            self.checks.at_the_end(until, clocks_agree=not self._meets("clocks_jump"), forgetful=self.witness.forgetful)
            for process in (*self.instances, *self.runners, self.client):
                process.die()
            await asyncio.sleep(0)

    def outcome(self) -> Outcome:
        """Return what became of it; the story only of a history that failed, or that is told anyway."""
        plan = self.plan
        head = (
            f"seed {self.world.seed}: {plan.jobs} jobs in {plan.job_partitions} partitions, {plan.instances} instances, "
            f"{plan.runners} runners; meets {', '.join(sorted(plan.meets)) or 'nothing'}"
        )
        lines = sorted(self.world.journal + self.checks.story(), key=lambda line: line[0])
        story = (head, *(f"{seconds:9.3f} s  {text}" for seconds, text in lines), *self.world.failures)
        return Outcome(
            seed=self.world.seed, failures=tuple(self.world.failures), story=story, digest=self.checks.digest()
        )

    async def _heal(self) -> None:
        self._calm = True
        self.world.note("calm")
        self.world.faults = Faults()
        self.server.down = False
        self.group.deaf.clear()
        for instance in self.instances:
            instance.clock_off_micros = 0
            if instance.alive:
                self._thaw(instance)
        for runner in self.runners:
            if runner.alive:
                runner.vanish()  # With whatever hangs; the calm ones take over.
        self._start_runner("calm/here")
        self._start_runner("calm/there")

    async def _until_quiet(self) -> None:
        until = self.world.seconds + CALM_SECONDS
        while self.world.seconds < until:
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            if self.checks.quiet(self.instances):
                return
