"""Bulk commands: one record on the log, applied by the server to every job that its query finds.

Each instance applies a command to the partitions that it owns, a few jobs at a time. How far it came is committed together with what
was decided, so that a crash or a change of owner anywhere leaves the rest to whoever owns the partition next.
"""

import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec

from controlplane.events import types
from controlplane.events.catalog import SUBMISSIONS
from controlplane.events.controls import Bulk
from controlplane.events.header import Cause, caused_header, concerns
from controlplane.events.identity import Instant
from controlplane.jobforge_agent.agent import Agent
from controlplane.jobforge_agent.commands import DECIDERS
from controlplane.jobforge_agent.control_store import Place
from controlplane.jobforge_agent.decide import Context, Decision, Related
from controlplane.jobforge_agent.state import Job
from controlplane.jobforge_agent.store import Store
from controlplane.log.producer import LogProducer

JOBS_AT_ONCE: Final = 200
PAGES_AT_ONCE: Final = 10
"""Then others have their turn."""
DONE: Final = "done"
ACTIONS: Final = ("cancel", "retry", "reprioritise")

logger = logging.getLogger(__name__)

Progress = tuple[int, int, int]
"""After which offset to go on, how many jobs were found, how many of those refused."""


def matches(command: types.BulkRequested, job: Job, declared_at: int) -> bool:
    """Say whether a job is one that the query finds: submitted before the command, and like it says."""
    wanted: tuple[tuple[str | None, str | None], ...] = (
        (command.job_type, job.job_type),
        (command.pool, job.pool),
        (command.tenant, job.tenant),
        (command.phase, job.phase),
        (command.correlation_id, job.correlation_id),
        (command.schedule_id, job.schedule_id),
    )
    key = command.key is None or command.key in {job.concurrency_key, job.rate_key}
    allowed = concerns(command.header.tenant, job.tenant)
    return (
        allowed
        and key
        and job.submitted_at <= declared_at
        and all(wish is None or wish == found for wish, found in wanted)
    )


def as_command(bulk: types.BulkRequested, job: Job, header: types.EventHeader) -> Any:
    """Return the command that a bulk command means for one job."""
    match bulk.action:
        case "cancel":
            return types.JobCancelRequested(
                header=header, job_id=job.job_id, reason=bulk.reason, kill=bulk.kill, tree=False
            )
        case "reprioritise":
            return types.JobReprioritiseRequested(
                header=header, job_id=job.job_id, priority=bulk.priority or 0, reason=bulk.reason
            )
        case _:
            return types.JobRetryRequested(header=header, job_id=job.job_id, reason=bulk.reason)


class Bulks:
    """Applies bulk commands for one instance."""

    def __init__(self, agent: Agent, store: Store, producer: LogProducer, *, partitions: int) -> None:
        """Apply them through an agent; `partitions` is the number of job partitions."""
        self._agent = agent
        self._store = store
        self._producer = producer
        self._partitions = partitions
        self._bounds: dict[str, int] = {}

    async def apply(self) -> None:
        """Go on with every command that is not applied to a partition of ours yet."""
        for bulk in list(self._agent.notes.controls.now.bulks.values()):
            for partition in self._agent.partitions:
                for _ in range(PAGES_AT_ONCE):
                    if partition in bulk.applied or not await self._step(bulk, partition):
                        break

    async def forget(self) -> None:
        """Forget commands that were applied everywhere; the log remembers."""
        done = [bulk for bulk in self._agent.notes.controls.now.bulks.values() if len(bulk.applied) == self._partitions]
        for bulk in done:
            subject = bulk.command.subject
            names = [f"BulkRequested/{subject}", *(f"BulkApplied/{subject}/{number}" for number in bulk.applied)]
            guards = [f"place/{subject}", *(_guard(bulk, number) for number in bulk.applied)]
            await self._store.controls.forget(names, guards=guards)

    async def _step(self, bulk: Bulk, partition: int) -> bool:
        """Apply a command to the next jobs of a partition; returns whether there may be more."""
        command, guard = bulk.command, _guard(bulk, partition)
        # In one step: what another instance forgets meanwhile would else look like what nobody began.
        text, place = (await self._store.controls.declared({guard: command.subject}))[guard]
        if place is None or text == DONE or (not text and not await self._all_known(guard, partition, place.at)):
            return False
        after, found, refused = msgspec.json.decode(text, type=Progress) if text else (-1, 0, 0)
        source = self._store.controls.failed_jobs if command.action == "retry" else self._store.controls.open_jobs
        page = await source(partition, after, JOBS_AT_ONCE)
        cause = Cause(
            position=place.position,
            correlation_id=command.bulk_id,
            tenant=command.header.tenant,
            actor=command.header.actor,
        )
        not_allowed: set[str] = set()
        known = await self._store.jobs([name for name, _ in page])
        chosen = [name for name, job in known.items() if matches(command, job, place.at)]
        originals = await self._agent.relations.originals(
            {name: known[name].submission for name in chosen} if command.action == "retry" else {}
        )
        decider = self._decider(place, command, cause, Related(originals=originals), not_allowed)
        last = not page
        # What was found is part of the identity: a store that forgot how far this came may find other jobs.
        name = f"BulkApplied/{partition}/{found}/{refused}"
        applied = types.BulkApplied(
            header=caused_header(cause, name, 0, self._producer.identity, Instant(place.at)),
            subject=command.subject, bulk_id=command.bulk_id, partition=partition, matched=found, refused=refused,
        )  # fmt: skip

        def progress() -> str:
            if last:
                return DONE
            return msgspec.json.encode((page[-1][1], found + len(chosen), refused + len(not_allowed))).decode()

        await self._agent.decide_jobs(
            partition, chosen, decider, guard=(guard, text, progress), also=[applied] if last else []
        )
        return not last

    async def _all_known(self, guard: str, partition: int, at: int) -> bool:
        """Say whether every job that was submitted before the command is decided on, so that the query can find it."""
        if guard not in self._bounds:
            self._bounds[guard] = await self._agent.relations.submissions_until(partition, at)
        if not await self._agent.has_decided((SUBMISSIONS.name, partition), self._bounds[guard]):
            return False
        del self._bounds[guard]
        return True

    def _decider(
        self, place: Place, bulk: types.BulkRequested, cause: Cause, related: Related, not_allowed: set[str]
    ) -> Callable[[Job, Context], Decision]:
        def decide(job: Job, context: Context) -> Decision:
            # The command's own time, as for one about a single job: what is decided again is the same.
            now = Instant(place.at)
            scoped = msgspec.structs.replace(
                cause, scope=job.job_id, correlation_id=job.correlation_id, tenant=job.tenant
            )
            header = caused_header(scoped, type(bulk).__name__, 0, self._producer.identity, now)
            command = as_command(bulk, job, header)
            decision = DECIDERS[type(command)](
                job, command, msgspec.structs.replace(context, cause=scoped, now=now, related=related)
            )
            if any(isinstance(event, types.CommandRefused) for event in decision.events):
                not_allowed.add(job.job_id)
            return decision

        return decide


def _guard(bulk: Bulk, partition: int) -> str:
    return f"{bulk.command.subject}/{partition}"
