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
from controlplane.events.catalog import SUBMISSIONS
from controlplane.events.controls import Controls
from controlplane.events.header import Cause, outside_header
from controlplane.events.identity import partition_of, random_id
from controlplane.events.types import AdmissionChanged, BreakerChanged, EventHeader, ScheduleDeclared
from controlplane.jobforge_agent import schedules
from controlplane.jobforge_agent.agent import Agent
from controlplane.jobforge_agent.breakers import OPEN, THRESHOLDS, Counted, Thresholds, is_gone, judge, outdated
from controlplane.jobforge_agent.bulk import Bulks
from controlplane.jobforge_agent.control_store import UNREAD, Place
from controlplane.jobforge_agent.gauges import breakers_of, slots_of
from controlplane.jobforge_agent.moments import Now, elapsed, wall_clock
from controlplane.jobforge_agent.store import Store
from controlplane.log.producer import LogProducer, RecordTooLarge

LOOK_EVERY_SECONDS: Final = 0.25
REOPEN_BELOW: Final = 0.9
"""Submissions are admitted again when so large a part of the limit is in flight: not at the limit, or it would flutter."""

MEASURE_EVERY_SECONDS: Final = 1.0
FORGET_EVERY_SECONDS: Final = 60.0
FAILURES_AT_ONCE: Final = 200
"""So many of them are looked at in one look: all of a million within 21 minutes."""

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
        self._forgets_after = 0.0
        self._forgetting: dict[int, int] = {}
        """Partitions of which failures are still to be looked at, each with the offset after which to go on."""
        self._bounds: dict[str, int] = {}
        """Of jobs that the store does not know: up to where their partition has to be decided, so that it would."""
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
            self.forget_failures,
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
        controls, found = await self._waiting()
        now = self._now()
        for schedule, last, place in found:
            if last.endswith(UNREAD) or place is None:
                continue  # What was decided of a time is counted once it is on the log: until then, a store that is lost takes it along.
            try:
                came = schedules.due(schedule, int(last), now) if last else None
            except ScheduleInvalid as error:
                logger.debug("Schedule %s never fires: %s", schedule.schedule_id, error)
                continue
            if came is not None:
                before = None if schedule.overlap else controls.last_job.get(schedule.schedule_id)
                try:
                    await self._fire(schedule, came, last, place, before)
                except RecordTooLarge as error:  # Declared on the log itself: the gateway refuses it.
                    logger.debug("Schedule %s cannot fire: %s", schedule.schedule_id, error)

    async def _waiting(self) -> tuple[Controls, list[tuple[ScheduleDeclared, str, Place | None]]]:
        """Return the controls and the schedules that do not rest, each with the guard of its last time and its place: all of one moment.

        Else a guard could say that a time was dealt with whose job the controls do not name yet.
        """
        live = self._agent.notes.controls
        while True:
            controls, version = live.now, live.version
            waiting = {one.subject: one for one in controls.schedules.values() if not one.paused}
            found = await self._store.controls.declared({subject: subject for subject in waiting})
            await self._agent.notes.refresh_controls()
            if live.version == version:
                return controls, [(waiting[subject], *one) for subject, one in found.items()]

    async def _fire(
        self, schedule: ScheduleDeclared, came: schedules.Due, last: str, place: Place, before: str | None
    ) -> None:
        """Deal with a time; `before` is the job that has to be concluded before there may be another one."""
        running = before is not None and not came.too_late and await self._runs(before)
        if running is None:
            return  # It is dealt with once this is known.
        header = schedule.header
        cause = Cause(
            position=place.position, correlation_id=schedule.schedule_id, tenant=header.tenant, actor=header.actor
        )
        events = schedules.fired(schedule, came, cause, self._producer.identity, running=running)
        missed = came.missed + came.too_late
        if await self._agent.decide_once(events, (schedule.subject, last, f"{came.at}{UNREAD}")) and missed:
            least = "at least " if came.missed >= schedules.MISSED_COUNTED else ""
            logger.warning("Schedule %s left %s%d missed times out.", schedule.schedule_id, least, missed)

    async def _runs(self, job_id: str) -> bool | None:
        """Say whether a job that was submitted is not concluded; None while that is not known.

        A job that the store does not know concluded long ago, or it was not decided yet. Which of the two is known once everything is decided that
        was on the log when its submission was in no outbox.
        """
        partition = partition_of(job_id.encode(), self._partitions)
        place = (SUBMISSIONS.name, partition)
        bound = self._bounds.get(job_id)
        decided = bound is not None and ((await self._store.positions([place]))[place] or 0) >= bound
        if known := await self._store.jobs([job_id]):
            self._bounds.pop(job_id, None)
            return not known[job_id].concluded
        if decided:
            del self._bounds[job_id]
            return False
        if bound is None:
            if await self._store.is_unpublished(SUBMISSIONS.name, job_id.encode()):
                return True
            self._bounds[job_id] = await self._agent.relations.submissions_so_far(partition)
        return None

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
            gone = is_gone(subject, self._agent.notes.registry.runners)
            change = judge(breaker, counted, now, self._thresholds, gone=gone)
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

    # Failures

    async def forget_failures(self) -> None:
        """Forget failed jobs that are no longer remembered, so that nobody can ask for their work again: some at each look, all of ours in turn."""
        if not self._forgetting and elapsed() >= self._forgets_after:
            self._forgets_after = elapsed() + FORGET_EVERY_SECONDS
            self._forgetting = dict.fromkeys(self._agent.partitions, -1)
        if not self._forgetting:
            return
        partition, after = self._forgetting.popitem()
        after = await self._store.controls.forget_failures(partition, after, FAILURES_AT_ONCE)
        if after >= 0:
            self._forgetting[partition] = after

    def _header(self, name: str, subject: str) -> EventHeader:
        """Return the header of what no single record caused."""
        return outside_header(name, random_id(), self._producer.identity, self._now(), correlation_id=subject)
