"""What an instance does beside deciding records: fires schedules, judges breakers, admits, applies bulk commands, raises alerts.

Each look is a function of what is stored; each outcome is committed only if nobody was quicker (a guarded value), and published
through the outbox. So every instance may look at everything, and a crash at any point leaves it to the next look.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import redis

from controlplane.api.cron import ScheduleInvalid
from controlplane.events.header import Cause, outside_header
from controlplane.events.identity import random_id
from controlplane.events.types import AdmissionChanged, BreakerChanged, EventHeader, ScheduleDeclared
from controlplane.jobforge_agent import schedules
from controlplane.jobforge_agent.agent import Agent
from controlplane.jobforge_agent.breakers import OPEN, THRESHOLDS, Counted, Thresholds, judge, outdated
from controlplane.jobforge_agent.bulk import Bulks
from controlplane.jobforge_agent.control_store import UNREAD
from controlplane.jobforge_agent.gauges import breakers_of, slots_of
from controlplane.jobforge_agent.moments import Now, elapsed, wall_clock
from controlplane.jobforge_agent.store import Store
from controlplane.log.producer import LogProducer, RecordTooLarge

LOOK_EVERY_SECONDS: Final = 0.25
REOPEN_BELOW: Final = 0.9
"""Submissions are admitted again when so large a part of the limit is in flight: not at the limit, or it would flutter."""

MEASURE_EVERY_SECONDS: Final = 1.0
TOLD_BY_OWNER_OF: Final = 0
"""Of this job partition there is one owner."""

logger = logging.getLogger(__name__)


class Upkeep:
    """The looks of one instance."""

    def __init__(
        self,
        agent: Agent,
        store: Store,
        producer: LogProducer,
        *,
        partitions: int,
        most_in_flight: int,
        thresholds: Thresholds = THRESHOLDS,
        now: Now = wall_clock,
    ) -> None:
        """Prepare them; `partitions` is the number of job partitions."""
        self._agent = agent
        self._store = store
        self._producer = producer
        self._partitions = partitions
        self._most_in_flight = most_in_flight
        self._thresholds = thresholds
        self._now = now
        self._measured_at = 0.0
        self.bulks = Bulks(agent, store, producer, partitions=partitions)

    async def run(self) -> None:
        """Look again and again, for as long as the task runs."""
        while True:
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            if not self._agent.assigned:
                continue
            try:
                await self.look()
            except redis.RedisError as error:
                self._agent.outage.begins(error)
            else:
                await self._agent.outage.is_over()

    async def look(self) -> None:
        """Do once whatever there is to do."""
        await self._agent.notes.refresh_controls()
        looks: tuple[Callable[[], Awaitable[None]], ...] = (
            self.measure, self.fire_schedules, self.judge_breakers, self.admit, self.bulks.apply, self.bulks.forget,
        )  # fmt: skip
        for look in looks:
            await look()

    async def measure(self) -> None:
        """Tell what the store holds: one instance for all, so that sums over instances are right."""
        metrics, notes = self._agent.metrics, self._agent.notes
        metrics.owns(len(self._agent.partitions))
        if TOLD_BY_OWNER_OF not in self._agent.partitions:
            metrics.tell_nothing()
        elif elapsed() - self._measured_at >= MEASURE_EVERY_SECONDS:
            self._measured_at = elapsed()
            runners = notes.registry.runners
            metrics.queues(await self._store.controls.depths())
            metrics.runners(slots_of(runners, await self._store.busy(), await self._store.runners.draining()))
            metrics.breakers(breakers_of(notes.controls.now.breakers.values(), runners))

    # Schedules

    async def fire_schedules(self) -> None:
        """Submit the jobs of schedules whose time has come."""
        controls, now = self._agent.notes.controls.now, self._now()
        waiting = {one.subject: one for one in controls.schedules.values() if not one.paused}
        guards = await self._store.controls.guards(list(waiting))
        for subject, schedule in waiting.items():
            last = guards[subject]
            if last.endswith(UNREAD):
                continue  # What was decided of a time is counted once it is on the log: until then, a store that is lost takes it along.
            try:
                came = schedules.due(schedule, int(last), now) if last else None
            except ScheduleInvalid as error:
                logger.debug("Schedule %s never fires: %s", schedule.schedule_id, error)
                continue
            if came is not None:
                try:
                    await self._fire(schedule, came, last)
                except RecordTooLarge as error:  # Declared on the log itself: the gateway refuses it.
                    logger.debug("Schedule %s cannot fire: %s", schedule.schedule_id, error)

    async def _fire(self, schedule: ScheduleDeclared, came: schedules.Due, last: str) -> None:
        before = self._agent.notes.controls.now.fired.get(schedule.schedule_id)
        running = False
        if before is not None and before.job_id is not None and not schedule.overlap:
            known = await self._store.jobs([before.job_id])
            running = any(not job.concluded for job in known.values())
        header = schedule.header
        place = await self._agent.notes.place_of(schedule.subject)
        if place is None:
            return
        cause = Cause(
            position=place.position, correlation_id=schedule.schedule_id, tenant=header.tenant, actor=header.actor
        )
        events = schedules.fired(schedule, came, cause, self._producer.identity, running=running)
        if await self._agent.decide_once(events, (schedule.subject, last, f"{came.at}{UNREAD}")) and came.missed:
            logger.warning("Schedule %s left %d missed times out.", schedule.schedule_id, came.missed)

    # Breakers

    async def judge_breakers(self) -> None:
        """Open, try or close circuit breakers by what was observed."""
        counts = await self._store.controls.counted()
        breakers, now = self._agent.notes.controls.now.breakers, self._now()
        for subject in counts.keys() | breakers.keys():
            breaker, counted = breakers.get(subject), counts.get(subject, Counted())
            if breaker is None and outdated(counted, now, self._thresholds):
                await self._store.controls.forget_counts(subject)
                continue
            change = judge(breaker, counted, now, self._thresholds)
            if change is None:
                continue
            event = BreakerChanged(
                header=self._header("BreakerChanged", subject), subject=subject, state=change.state, until=change.until,
                failures=counted.failures, successes=counted.successes, openings=change.openings, reason=change.reason,
            )  # fmt: skip
            known = breaker.header.event_id if breaker is not None else ""
            new = "" if change.state == "CLOSED" else event.header.event_id
            events: list[msgspec.Struct] = [event]
            opens = change.state == OPEN
            if opens != (breaker is not None and breaker.state == OPEN):
                events.append(self._agent.alerts.event("breaker_open", subject, change.reason, raised=opens))
            if await self._agent.decide_once(events, (subject, known, new)):
                await self._store.controls.forget_counts(subject)
        fresh = [subject for subject, counted in counts.items() if not counted.since]
        await self._store.controls.count_since(fresh, now)

    # Admission

    async def admit(self) -> None:
        """Stop admitting submissions while too much is in flight, and admit them again when that is worked off."""
        in_flight = await self._store.controls.in_flight(range(self._partitions))
        before = self._agent.notes.controls.now.admission
        was_open = before is None or before.open
        if was_open == (in_flight < self._most_in_flight * (1 if was_open else REOPEN_BELOW)):
            return
        if was_open:
            reason = f"{in_flight} jobs are in flight, {self._most_in_flight} may be."
        else:
            reason = f"{in_flight} jobs are in flight."
        event = AdmissionChanged(
            header=self._header("AdmissionChanged", "admission"), subject="admission", open=not was_open, reason=reason,
            in_flight=in_flight, limit=self._most_in_flight,
        )  # fmt: skip
        known = before.header.event_id if before is not None else ""
        alert = self._agent.alerts.event("admission_closed", "admission", reason, raised=was_open)
        await self._agent.decide_once([event, alert], ("admission", known, event.header.event_id))

    def _header(self, name: str, subject: str) -> EventHeader:
        """Return the header of what no single record caused."""
        return outside_header(name, random_id(), self._producer.identity, self._now(), correlation_id=subject)
