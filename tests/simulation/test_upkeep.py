"""What an instance does beside deciding records, each against a real Valkey: schedules without overlap, and what is forgotten."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from controlplane.events import types
from controlplane.events.catalog import SUBMISSIONS
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant
from controlplane.events.types import LogPosition
from controlplane.jobforge_agent.bulk import Bulks
from controlplane.jobforge_agent.changes import Changes
from controlplane.jobforge_agent.control_store import LiveControls, noted
from controlplane.jobforge_agent.state import SECOND, Job
from controlplane.jobforge_agent.store import Store
from controlplane.jobforge_agent.transitions import Phase
from controlplane.jobforge_agent.upkeep import Upkeep
from controlplane.log.producer import OutgoingRecord
from tests.simulation.test_notes import IDENTITY, PLACE, empty_store
from tests.simulation.test_recovery import SUBMITTED

EVERY: int = 60 * SECOND
DECLARED = types.ScheduleDeclared(
    header=outside_header("ScheduleDeclared", "s", IDENTITY, Instant(0), correlation_id="c"), subject="schedule:nightly",
    schedule_id="nightly", cron="* * * * *", job=types.JobTemplate(job_type="light", payload=types.Content(data=b"{}")),
    overlap=False,
)  # fmt: skip
CONTROLS = LogPosition(topic="controlplane.controls", partition=0, offset=0)


class Alone:
    """One instance's upkeep and its store; what it publishes is read at once, but for submissions, which wait for `decide`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = 0
        self.end = 0
        """Where the log of submissions ends."""
        self.waiting: list[types.JobSubmitted] = []
        self.told: list[types.ScheduleFired] = []
        self.partitions = [0]
        controls = LiveControls(store.controls)
        self.notes = SimpleNamespace(controls=controls, refresh_controls=self._refresh)
        self.relations = SimpleNamespace(submissions_so_far=self._submissions_so_far)
        producer: Any = SimpleNamespace(identity=IDENTITY)
        agent: Any = self
        self.upkeep = Upkeep(agent, store, producer, partitions=1, most_in_flight=10, now=lambda: Instant(self.now))

    async def _refresh(self) -> None:
        await self.notes.controls.follow(await self.store.controls.version())

    async def _submissions_so_far(self, partition: int) -> int:
        return self.end

    async def note(self, *events: Any) -> None:
        await self.store.controls.note([noted(one, CONTROLS, 0) for one in events])
        await self._refresh()

    async def decide_once(self, events: Sequence[Any], guard: tuple[str, str, str]) -> bool:
        changes = Changes()
        changes.guard("guards", *guard)
        if await self.store.commit(changes) != "ok":
            return False
        self.waiting += [one for one in events if isinstance(one, types.JobSubmitted)]
        self.end += len([one for one in events if isinstance(one, types.JobSubmitted)])
        fired = [one for one in events if isinstance(one, types.ScheduleFired)]
        self.told += fired
        await self.note(*fired)
        return True

    async def decide(self, phase: Phase = Phase.RUNNING) -> str:
        """Decide the submission that waits; returns its job."""
        event = self.waiting.pop()
        await self.put(msgspec.structs.replace(SUBMITTED, job_id=event.job_id, phase=phase))
        await self.store.set_positions({(SUBMISSIONS.name, 0): 0})
        await self.store._redis.hset(self.store._key("positions"), f"{SUBMISSIONS.name}/0", self.end)
        return event.job_id

    async def put(self, *jobs: Job) -> None:
        assert await self.store.commit(Changes.between([(None, job) for job in jobs])) == "ok"

    async def look_at(self, minute: int) -> str | None:
        """Look a moment after a minute; returns what is said of it, None where nothing is."""
        before, self.now = len(self.told), minute * EVERY + SECOND
        await self.upkeep.fire_schedules()
        said = self.told[before:]
        return (said[-1].reason or "submits") if said else None


def play(url: str, story: Callable[[Alone], Awaitable[None]], *events: Any) -> None:
    async def whole() -> None:
        async with empty_store(url) as store:
            await store.controls.note([], fold={PLACE: 0})
            alone = Alone(store)
            await alone.note(*events)
            await story(alone)

    asyncio.run(whole())


WAITS = "The job before is not concluded."


def test_a_job_that_runs_keeps_out_every_time_of_a_schedule_without_overlap(redis_url: str) -> None:
    async def story(alone: Alone) -> None:
        assert await alone.look_at(1) == "submits"
        job_id = await alone.decide()
        assert [await alone.look_at(minute) for minute in range(2, 6)] == [WAITS] * 4
        ended = msgspec.structs.replace(SUBMITTED, job_id=job_id).tombstone(Phase.COMPLETED, None)
        await alone.put(ended)
        assert [await alone.look_at(minute) for minute in (6, 7)] == ["submits", None]

    play(redis_url, story, DECLARED)


def test_a_job_that_is_not_decided_yet_runs_and_one_that_was_forgotten_does_not(redis_url: str) -> None:
    async def story(alone: Alone) -> None:
        assert await alone.look_at(1) == "submits"
        # It waits behind others: what became of it is not known, and nothing is said before it is.
        assert [await alone.look_at(minute) for minute in (2, 3, 3)] == [None] * 3
        job_id = await alone.decide()
        assert [await alone.look_at(3), alone.told[-1].missed] == [WAITS, 1]
        await alone.store._redis.delete(alone.store._key(f"job:{job_id}"))
        # Everything that was on the log is decided, and the job is not known: its tombstone is gone.
        assert [await alone.look_at(4), await alone.look_at(4)] == [None, "submits"]
        assert not alone.upkeep._bounds

    play(redis_url, story, DECLARED)


def test_a_job_whose_submission_is_in_an_outbox_runs(redis_url: str) -> None:
    async def story(alone: Alone) -> None:
        assert await alone.look_at(1) == "submits"
        (event,) = alone.waiting
        record = OutgoingRecord(topic=SUBMISSIONS.name, partition=0, key=event.job_id.encode(), value=b"")
        await alone.store.commit(Changes(), outbox=("1", [record]))
        await alone.store.touch(0, {})
        assert await alone.look_at(2) == WAITS
        await alone.store.published(["1"])
        await alone.decide()
        assert await alone.look_at(3) == WAITS

    play(redis_url, story, DECLARED)


def test_a_store_that_is_folded_from_the_log_knows_the_last_job_of_a_schedule(redis_url: str) -> None:
    async def story(alone: Alone) -> None:
        await alone.look_at(1)
        job_id = await alone.decide()
        await alone.look_at(2)
        live = await alone.store._redis.hgetall(alone.store._key("controls"))
        await alone.store._redis.delete(alone.store._key("controls"), alone.store._key("guards"))
        await alone.store.controls.note([noted(one, CONTROLS, 0) for one in (DECLARED, *alone.told)], fold={PLACE: 3})
        folded = await alone.store._redis.hgetall(alone.store._key("controls"))
        assert {**folded, b"version": b""} == {**live, b"version": b""}
        assert (await alone.store.controls.load())[1].last_job == {"nightly": job_id}
        assert await alone.look_at(3) == WAITS

    play(redis_url, story, DECLARED)


def test_a_guard_and_the_controls_are_of_one_moment(redis_url: str) -> None:
    async def story(alone: Alone) -> None:
        await alone.look_at(1)
        await alone.decide()
        declared = alone.store.controls.declared

        async def meanwhile(guards: Any) -> Any:
            alone.store.controls.declared = declared  # type: ignore[method-assign]
            # Another instance deals with the second minute, and that is noted, between the look at the controls and at the guards.
            ended = msgspec.structs.replace(SUBMITTED, job_id=alone.told[0].job_id or "")
            await alone.put(ended.tombstone(Phase.COMPLETED, None))
            other = Alone(alone.store)
            await other._refresh()
            assert await other.look_at(2) == "submits"
            alone.waiting, alone.end = other.waiting, 2
            await alone.decide()
            return await declared(guards)

        alone.store.controls.declared = meanwhile  # type: ignore[method-assign]
        assert await alone.look_at(3) == WAITS

    play(redis_url, story, DECLARED)


def test_a_missed_time_is_warned_of(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def story(alone: Alone) -> None:
        alone.now = 3 * EVERY - 1
        with caplog.at_level(logging.WARNING):
            await alone.upkeep.fire_schedules()
        (told,) = alone.told
        assert (told.job_id, told.missed, told.reason) == (None, 1, "Its time was missed by more than 5 s.")
        assert "left 2 missed times out" in caplog.text

    play(redis_url, story, msgspec.structs.replace(DECLARED, catch_up_seconds=0.0))


def test_nothing_is_left_of_a_schedule_that_was_removed_nor_of_a_bulk_command_that_was_applied(redis_url: str) -> None:
    async def story(alone: Alone) -> None:
        await alone.look_at(1)
        header = outside_header("ScheduleRemoved", "r", IDENTITY, Instant(1), correlation_id="c")
        await alone.note(types.ScheduleRemoved(header=header, subject=DECLARED.subject, schedule_id="nightly"))
        command = types.BulkRequested(header=header, subject="bulk:b", bulk_id="b", action="cancel")
        applied = types.BulkApplied(header=header, subject="bulk:b", bulk_id="b", partition=0, matched=0, refused=0)
        await alone.note(command, applied)
        found = await alone.store.controls.declared({"bulk:b/0": "bulk:b"})
        assert found["bulk:b/0"][1] is not None
        agent: Any = alone
        producer: Any = None
        bulks = Bulks(agent, alone.store, producer, partitions=1)
        await bulks.forget()
        await alone._refresh()
        assert not await alone.store._redis.exists(alone.store._key("guards"))
        assert await alone.store._redis.hkeys(alone.store._key("controls")) == [b"version"]
        await bulks.apply()  # Nor is it applied again.

    play(redis_url, story, DECLARED)


def test_failed_jobs_are_forgotten_with_their_tombstones_a_page_at_each_look(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.jobforge_agent.upkeep.FAILURES_AT_ONCE", 3)
    monkeypatch.setattr("controlplane.jobforge_agent.upkeep.FORGET_EVERY_SECONDS", 0.0)

    async def story(alone: Alone) -> None:
        alone.partitions = [0, 1]
        failed = [
            msgspec.structs.replace(
                SUBMITTED, job_id=f"job{partition}-{offset}", partition=partition,
                submission=LogPosition(topic=SUBMISSIONS.name, partition=partition, offset=offset),
            ).tombstone(Phase.FAILED, None)
            for partition in (0, 1) for offset in range(7)
        ]  # fmt: skip
        await alone.put(*failed)
        kept = {"job0-0", "job0-5", "job1-6"}
        for name in {job.job_id for job in failed} - kept:
            await alone.store._redis.delete(alone.store._key(f"job:{name}"))
        looks, left = 0, [14]
        while left[-1] > len(kept):
            await alone.upkeep.forget_failures()
            looks += 1
            left.append(sum([len(await alone.store.controls.failed_jobs(one, -1, 100)) for one in (0, 1)]))
            assert left[-2] - left[-1] <= 3
        assert looks <= 6
        assert {name for one in (0, 1) for name, _ in await alone.store.controls.failed_jobs(one, -1, 100)} == kept

    play(redis_url, story)


def test_an_instance_without_partitions_forgets_nothing(redis_url: str) -> None:
    async def story(alone: Alone) -> None:
        alone.partitions = []
        await alone.upkeep.forget_failures()

    play(redis_url, story)
