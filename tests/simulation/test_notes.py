"""What is noted of runners and controls is what the log says, whoever comes late with what, and however often: on a real Valkey."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.events import types
from controlplane.events.catalog import Service
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant
from controlplane.events.types import LogPosition
from controlplane.jobforge_agent.changes import Changes
from controlplane.jobforge_agent.control_store import UNREAD, VERSION, Guard, Noted, noted
from controlplane.jobforge_agent.store import Store

PLACE = "controlplane.controls/0"
IDENTITY = types.Producer(service=Service.JOBFORGE, version="1", instance="one")
BREAKER, ADMISSION, SCHEDULE = "breaker:type:light", "admission", "schedule:nightly"


@asynccontextmanager
async def empty_store(url: str) -> AsyncIterator[Store]:
    store = Store(url, f"notes-{uuid.uuid4().hex[:8]}", "instance")
    try:
        yield store
    finally:
        client: Any = store._redis
        if keys := await client.keys(store._prefix.replace("{", "[{]").replace("}", "[}]") + "*"):
            await client.delete(*keys)
        await store.close()


def declared(kind: str, number: int) -> Any:
    """Return the event of a kind at a place of the log: every other one takes back what the ones before said."""
    on = number % 2 == 0
    header = outside_header(kind, f"{kind}/{number}", IDENTITY, Instant(number), correlation_id="c")
    match kind:
        case "LimitDeclared":
            return types.LimitDeclared(header=header, subject="type:light", max_running=number + 1 if on else None)
        case "PauseDeclared":
            return types.PauseDeclared(header=header, subject="pool:default", paused=on)
        case "BreakerChanged":
            return types.BreakerChanged(
                header=header, subject=BREAKER, state="OPEN" if on else "CLOSED", until=None, failures=1, successes=0,
                openings=number, reason="drawn",
            )  # fmt: skip
        case _:
            return types.AdmissionChanged(
                header=header, subject=ADMISSION, open=on, reason="drawn", in_flight=1, limit=number
            )


KINDS = ("LimitDeclared", "PauseDeclared", "BreakerChanged", "AdmissionChanged")
READS = st.lists(st.tuples(st.integers(0, 7), st.integers(1, 4)), max_size=20)
"""Batches as instances come with them, in whatever order: from which offset, and how many."""


@given(kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=8), reads=READS)
@settings(max_examples=60, deadline=None)
def test_controls_are_the_fold_of_the_log_in_whatever_order_instances_come_with_them(
    kinds: list[str], reads: list[tuple[int, int]], redis_url: str
) -> None:
    log = [declared(kind, number) for number, kind in enumerate(kinds)]
    changes = [
        noted(one, LogPosition(topic="controlplane.controls", partition=0, offset=number), number)
        for number, one in enumerate(log)
    ]

    async def play() -> None:
        async with empty_store(redis_url) as store:
            assert await store.controls.note([], fold={PLACE: 0})
            reached = 0
            for start, count in (*reads, *((number, 1) for number in range(len(log)))):
                end = min(len(log), start + count)
                if start < end:
                    taken = await store.controls.note(changes[start:end], expect={PLACE: (start, end)})
                    assert taken == (start == reached)
                    reached = end if taken else reached
                await is_fold(store, changes[:reached])
            assert reached == len(log)

    asyncio.run(play())


async def is_fold(store: Store, changes: list[Noted]) -> None:
    """Check that the store holds what the changes, one after another, leave."""
    fields: dict[str, bytes] = {}
    guards: dict[str, str] = {}
    for one in changes:
        fields |= one.fields
        guards |= {guard.name: guard.value for guard in one.guards}
    kept = await store._redis.hgetall(store._prefix + "controls")
    assert {name.decode(): value for name, value in kept.items() if name != VERSION} == {
        name: value for name, value in fields.items() if value
    }
    assert await store.controls.guards([BREAKER, ADMISSION]) == {
        name: guards.get(name, "") for name in (BREAKER, ADMISSION)
    }


@pytest.mark.parametrize(("kind", "subject"), [("BreakerChanged", BREAKER), ("AdmissionChanged", ADMISSION)])
def test_a_note_that_comes_late_undoes_no_decision(kind: str, subject: str, redis_url: str) -> None:
    first, second = declared(kind, 0), declared(kind, 2)
    place = LogPosition(topic="controlplane.controls", partition=0, offset=0)

    async def play() -> None:
        async with empty_store(redis_url) as store:
            await store.controls.note([], fold={PLACE: 0})
            note = [noted(first, place, 0)]
            assert await store.controls.note(note, expect={PLACE: (0, 1)})
            decision = Changes()
            decision.guard("guards", subject, first.header.event_id, second.header.event_id)
            assert await store.commit(decision) == "ok"
            # A process that read the first before it was stopped goes on: the second would be decided once more.
            assert not await store.controls.note(note, expect={PLACE: (0, 1)})
            assert (await store.controls.guards([subject]))[subject] == second.header.event_id

    asyncio.run(play())


def scheduled(number: int, cron: str = "* * * * *", *, paused: bool = False) -> Noted:
    """Return what is noted of a schedule that is declared at a place of the log, at a time of the same number."""
    header = outside_header("ScheduleDeclared", f"schedule/{number}", IDENTITY, Instant(number), correlation_id="c")
    job = types.JobTemplate(job_type="light", payload=types.Content(data=b"{}"))
    event = types.ScheduleDeclared(
        header=header, subject=SCHEDULE, schedule_id="nightly", cron=cron, job=job, paused=paused
    )
    return noted(event, LogPosition(topic="controlplane.controls", partition=0, offset=number), number)


def fired(number: int, due_at: int) -> Noted:
    header = outside_header("ScheduleFired", f"fired/{number}", IDENTITY, Instant(number), correlation_id="c")
    event = types.ScheduleFired(header=header, subject=SCHEDULE, schedule_id="nightly", due_at=due_at, job_id="job")
    return noted(event, LogPosition(topic="controlplane.controls", partition=0, offset=number), number)


def decided(due_at: int) -> Noted:
    """Return what an instance keeps that dealt with a time, before it reads so."""
    return Noted(fields={}, guards=(Guard(SCHEDULE, f"{due_at}{UNREAD}"),))


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    ("changes", "dealt_with"),
    [
        ([scheduled(1), scheduled(2)], 1),  # Seed 1062: what came due between the two is still due.
        ([scheduled(1), fired(2, 20), scheduled(3)], 20),
        ([scheduled(1), fired(2, 20), fired(3, 10)], 20),
        ([scheduled(1), scheduled(2, "0 * * * *")], 2),
        ([scheduled(1), scheduled(2, paused=True), scheduled(3)], 3),
        ([scheduled(1), Noted(fields={}, guards=(Guard(SCHEDULE, ""),)), scheduled(3)], 3),
        ([scheduled(1), decided(20)], "20?"),
        ([scheduled(1), decided(20), fired(2, 20)], 20),
        ([scheduled(1), decided(20), fired(2, 10)], "20?"),
    ],
)
def test_the_times_of_a_schedule_go_on_when_it_is_declared_again_and_begin_anew_when_it_changed(
    changes: list[Noted], dealt_with: int | str, at_once: bool, redis_url: str
) -> None:
    async def play() -> None:
        async with empty_store(redis_url) as store:
            await store.controls.note([], fold={PLACE: 0})
            for one in [changes] if at_once else [[change] for change in changes]:
                await store.controls.note(one)
            assert await store.controls.guards([SCHEDULE]) == {SCHEDULE: str(dealt_with)}

    asyncio.run(play())


def test_a_heartbeat_that_comes_late_and_a_repeated_registration_take_nothing_back(redis_url: str) -> None:
    header = outside_header("RunnerRegistered", "r", IDENTITY, Instant(0), correlation_id="c")
    runner = types.RunnerRegistered(
        header=header, runner_id="r", name="runner", slots=1, labels={}, capabilities=(), inbox_partition=0, heartbeat_seconds=5.0
    )  # fmt: skip

    async def play() -> None:
        async with empty_store(redis_url) as store:
            await store.runners.register(runner, 10)
            assert await store.runners.beats() == {"r": (10, ())}
            await store.runners.beat("r", 30, ["attempt"], draining=True)
            await store.runners.beat("r", 20, [], draining=False)
            await store.runners.register(msgspec.structs.replace(runner, slots=2), 40)
            assert await store.runners.beats() == {"r": (30, ("attempt",))}
            assert await store.runners.draining() == {"r"}
            assert (await store.runners.registered())["r"].slots == 2

    asyncio.run(play())


def test_no_owner_takes_an_older_store_for_the_one_that_it_took_a_partition_over_in(redis_url: str) -> None:
    async def play() -> None:
        async with empty_store(redis_url) as store:
            before = [await store.own(0), await store.own(0)]
            await store._redis.delete(store._key("epoch"))
            after = [await store.own(0), await store.own(0)]
            assert len({one.epoch for one in (*before, *after)}) == 4

    asyncio.run(play())
