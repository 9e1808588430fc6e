"""The scripts of the store on a real Valkey, step by step against a model of plain dictionaries."""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from controlplane.events import types
from controlplane.events.controls import Limit
from controlplane.events.types import LogPosition
from controlplane.jobforge_agent.changes import Changes
from controlplane.jobforge_agent.control_store import Noted
from controlplane.jobforge_agent.state import SECOND, Job
from controlplane.jobforge_agent.store import TRUSTED_SECONDS, Store
from controlplane.jobforge_agent.stored import Claim, Owned
from controlplane.jobforge_agent.transitions import Phase
from controlplane.log.producer import OutgoingRecord

T = TypeVar("T")
PLACE = ("controlplane.submissions", 0)
SLOTS = {"small": 2, "large": 5}
MOST = 256
SUBJECT = "key:t/k"
RECORD = OutgoingRecord(topic="controlplane.routing", partition=0, key=b"k", value=b"v")


def job(number: int, priority: int, slots: int, key: str | None) -> Job:
    position = LogPosition(topic=PLACE[0], partition=0, offset=number)
    return Job(
        job_id=f"job{number}", partition=0, submission=position, submitted_at=1_000_000 * number, correlation_id="c", tenant="t",
        actor=None, job_type="light", contract_major=1, pool="default", priority=priority, payload=types.Content(), slots=slots,
        retry=types.RetryPolicy(), attempt_timeout_micros=None, queue_timeout_micros=None, deadline=None, required_labels={},
        preferred_labels={}, parent=None, phase=Phase.QUEUED, last=position, concurrency_key=key,
    )  # fmt: skip


class Scripts(RuleBasedStateMachine):
    """What the scripts answer and keep is what the dictionaries say."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.store = Store(url, f"model-{uuid.uuid4().hex[:8]}", "instance")
        self.owned = Owned(epoch="", revision=0)
        self.jobs: dict[str, Job] = {}
        self.position = 0
        self.numbers = 0
        self.parked: set[str] = set()
        self.limit = 2
        self.outbox: set[str] = set()
        self.version = "0"

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        async def clear() -> None:
            client: Any = self.store._redis
            if keys := await client.keys(self.store._prefix.replace("{", "[{]").replace("}", "[}]") + "*"):
                await client.delete(*keys)
            await self.store.close()

        self.do(clear())
        self.runner.close()

    @initialize()
    def begin(self) -> None:
        assert self.do(self.store.controls.note([])) is False  # Nothing is noted in a store that was never folded.
        assert self.do(self.store.controls.note([], fold={"controlplane.controls/0": 3}))
        self.version = self.do(self.store.controls.version())
        self.owned = self.do(self.store.own(0))
        self.do(self.store.set_positions({PLACE: 0}))

    # What the model knows

    def waiting(self) -> list[Job]:
        return [one for one in self.jobs.values() if one.phase is Phase.QUEUED]

    def leased(self) -> list[Job]:
        return [one for one in self.jobs.values() if one.leased]

    def busy(self) -> dict[str, int]:
        found: dict[str, int] = defaultdict(int)
        for one in self.leased():
            found[str(one.runner_id)] += one.slots
        return dict(found)

    def running(self) -> set[str]:
        return {str(one.attempt_id) for one in self.leased() if SUBJECT in one.holds}

    # Steps

    def commit(self, pairs: list[tuple[Job | None, Job]], owned: Owned, before: int, after: int) -> str:
        if owned is self.owned:  # However slow this test is.
            owned.seen_at = self.do(self.store.now())
        self.numbers += 1
        name = f"{self.numbers:x}"
        verdict = self.do(
            self.store.commit(
                Changes.between(pairs), owned={0: owned}, expect={PLACE: (before, after)}, outbox=(name, [RECORD])
            )
        )
        if verdict == "ok":
            self.position = after
            self.outbox.add(name)
            for _, one in pairs:
                self.jobs[one.job_id] = one
        return verdict

    @rule(priority=st.integers(0, 9), slots=st.integers(1, 3), keyed=st.booleans())
    def submit(self, priority: int, slots: int, keyed: bool) -> None:
        one = job(len(self.jobs) + 1, priority, slots, "k" if keyed else None)
        assert self.commit([(None, one)], self.owned, self.position, self.position + 1) == "ok"
        self.parked.discard(one.queue)

    @rule(kind=st.sampled_from(("epoch", "revision", "position", "moment")))
    def submit_as_a_zombie(self, kind: str) -> None:
        self.owned.seen_at = self.do(self.store.now())
        epoch = "0" if kind == "epoch" else self.owned.epoch
        seen_at = self.owned.seen_at - (kind == "moment") * int(TRUSTED_SECONDS * SECOND)
        owned = Owned(epoch=epoch, revision=self.owned.revision + (kind == "revision"), seen_at=seen_at)
        before = self.position + (kind == "position")
        expected = {"epoch": "fenced", "moment": "late"}.get(kind, "lost")
        assert self.commit([(None, job(999, 5, 1, None))], owned, before, before + 1) == expected

    @rule()
    def submit_a_child_while_its_parent_is_cancelled(self) -> None:
        """Who read that the parent stands decides again."""
        self.numbers += 1
        parent = f"parent{self.numbers}"
        changes = Changes()
        changes.standing.append(parent)

        async def committed() -> str:
            self.owned.seen_at = await self.store.now()
            return await self.store.commit(changes, owned={0: self.owned})

        assert self.do(self.store.controls.cancelled_trees([parent])) == frozenset()
        assert self.do(committed()) == "ok"
        self.do(self.store.controls.cancel_trees([parent]))
        assert self.do(committed()) == "conflict"
        assert self.do(self.store.controls.cancelled_trees([parent, "other"])) == {parent}

    @rule(late=st.booleans(), fenced=st.booleans())
    def touch(self, late: bool, fenced: bool) -> None:
        """Whoever hears of the store in time, and owns what it thinks that it does, goes on trusting it."""
        before = self.do(self.store.now()) - late * int(TRUSTED_SECONDS * SECOND)
        owned = Owned(epoch="0" if fenced else self.owned.epoch, revision=0, seen_at=before)
        self.do(self.store.touch(0, {}, {0: owned}))
        assert (owned.seen_at > before) == (not late and not fenced)

    @rule()
    def take_over(self) -> None:
        before = self.owned
        self.owned = self.do(self.store.own(0))
        assert int(self.owned.epoch) > int(before.epoch)
        assert self.owned.revision == before.revision

    @precondition(lambda self: self.waiting())
    @rule(data=st.data(), runner=st.sampled_from(sorted(SLOTS)), stale=st.integers(0, 9))
    def claim(self, data: st.DataObject, runner: str, stale: int) -> None:
        """Two claims of one batch: the second meets what the first left."""
        chosen = [data.draw(st.sampled_from(self.waiting()), label="job") for _ in range(2)]
        claims: list[Claim] = []
        expected: list[bool | None] = []
        for one in chosen:
            self.numbers += 1
            limits = ((SUBJECT, Limit(max_running=self.limit)),) if one.concurrency_key else ()
            leased = msgspec.structs.replace(
                one, phase=Phase.ROUTED, attempt_id=f"attempt{self.numbers}", runner_id=runner, attempt_number=1,
                holds=tuple(subject for subject, _ in limits),
            )  # fmt: skip
            claims.append(
                Claim(job=leased, queue=one.queue, capacity=SLOTS[runner], record=RECORD, cost=1.0, limits=limits)
            )
            fits = self.busy().get(runner, 0) + one.slots <= SLOTS[runner]
            allowed = not limits or len(self.running()) < self.limit
            could = stale > 0 and self.jobs[one.job_id].phase is Phase.QUEUED and allowed
            left_out = None in expected or (could and not fits)
            expected.append(None if left_out else could)
            if expected[-1]:
                self.jobs[one.job_id] = leased
                self.outbox.add(str(leased.attempt_id))
        version = self.version if stale else "another"
        assert self.do(self.store.claim(claims, version=version)) == expected

    @precondition(lambda self: self.waiting())
    @rule(data=st.data(), priority=st.integers(0, 9))
    def claim_what_moved_meanwhile(self, data: st.DataObject, priority: int) -> None:
        """One that went back is refused; nothing behind one that came forward goes before it."""
        one = data.draw(st.sampled_from(self.waiting()))
        moved = msgspec.structs.replace(one, priority=priority)
        assert self.commit([(one, moved)], self.owned, self.position, self.position) == "ok"
        if moved.score != one.score:
            seen = msgspec.structs.replace(one, phase=Phase.ROUTED, attempt_id="seen", runner_id=min(SLOTS))
            claim = Claim(job=seen, queue=one.queue, capacity=9, record=RECORD, cost=1.0, limits=())
            verdict = None if moved.score < one.score else False
            assert self.do(self.store.claim([claim], version=self.version)) == [verdict]

    @precondition(lambda self: self.leased())
    @rule(data=st.data(), again=st.booleans())
    def end(self, data: st.DataObject, again: bool) -> None:
        """Conclude a leased job, or queue it again."""
        one = data.draw(st.sampled_from(self.leased()))
        queued = msgspec.structs.replace(one, phase=Phase.QUEUED, attempt_id=None, runner_id=None, holds=())
        after = queued if again else one.tombstone(Phase.COMPLETED, one.last)
        assert self.commit([(one, after)], self.owned, self.position, self.position) == "ok"
        if one.holds:
            self.parked.clear()
        if again:
            self.parked.discard(one.queue)

    @precondition(lambda self: self.leased())
    @rule(data=st.data())
    def decide_what_a_router_leased_meanwhile(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.leased()))
        waited = msgspec.structs.replace(one, phase=Phase.QUEUED, attempt_id=None, runner_id=None, holds=())
        cancelled = waited.tombstone(Phase.CANCELLED, None)
        assert self.commit([(waited, cancelled)], self.owned, self.position, self.position) == "conflict"

    @rule(late=st.booleans())
    def park(self, late: bool) -> None:
        """Set the queue of a key aside; a router that comes late saw limits that are not in force any more."""
        queue = job(1, 5, 1, "k").queue
        self.do(self.store.park([(queue, SUBJECT, self.limit)], [], version="another" if late else self.version))
        if len(self.running()) >= self.limit and not late:
            self.parked.add(queue)

    @rule(limit=st.integers(1, 3))
    def declare(self, limit: int) -> None:
        self.limit = limit
        assert self.do(self.store.controls.note([Noted(fields={})]))
        after = self.do(self.store.controls.version())
        assert int(after) > int(self.version)
        self.version = after
        self.parked.clear()

    @rule()
    def publish(self) -> None:
        self.do(self.store.published(sorted(self.outbox)))
        self.outbox.clear()

    @rule(meanwhile=st.booleans())
    def publish_on_its_behalf(self, meanwhile: bool) -> None:
        """Another instance takes this one for dead; it may have been slow only, and decides once more."""
        entries = self.do(self.store.outbox("instance"))
        if meanwhile:
            self.submit(5, 1, False)
        self.do(self.store.drop_outbox("instance", sorted(entries)))
        self.outbox -= entries.keys()

    # What must be so after each

    @invariant()
    def heads_are_the_first_of_each_lane(self) -> None:
        heads = self.do(self.store.heads(0, MOST, SLOTS))
        free = sum(slots - self.busy().get(name, 0) for name, slots in SLOTS.items())
        lanes: dict[str, list[Job]] = defaultdict(list)
        if free > 0:
            for one in self.waiting():
                if one.queue not in self.parked:
                    lanes[one.lane_name].append(one)
        found: dict[str, list[str]] = defaultdict(list)
        for one in heads.jobs:
            found[one.lane_name].append(one.job_id)
        ordered = {name: sorted(jobs, key=lambda one: (one.score, one.job_id)) for name, jobs in lanes.items()}
        assert found == {name: [one.job_id for one in jobs[:free]] for name, jobs in ordered.items()}
        assert heads.lanes == {name: float(jobs[0].score) for name, jobs in ordered.items()}

    @invariant()
    def what_is_kept_is_what_runs(self) -> None:
        assert self.do(self.store.busy()) == self.busy()
        assert self.do(self.store.usage({SUBJECT: Limit(max_running=1)}, 0))[SUBJECT].running == len(self.running())
        assert set(self.do(self.store.outbox("instance"))) == self.outbox
        assert (
            self.do(self.store.unpublished()).get("instance", set()) == self.outbox
        )  # Else nobody would ever find them.
        for name in SLOTS:
            held = {str(one.attempt_id): one.job_id for one in self.leased() if one.runner_id == name}
            assert self.do(self.store.held(name)) == held
        assert self.do(self.store.positions([PLACE]))[PLACE] == self.position
        assert self.do(self.store.jobs(sorted(self.jobs))) == self.jobs


@pytest.mark.timeout(300)
def test_the_scripts_do_what_the_model_does(redis_url: str) -> None:
    class Here(Scripts):
        def __init__(self) -> None:
            super().__init__(redis_url)

    run_state_machine_as_test(Here, settings=settings(max_examples=20, stateful_step_count=20, deadline=None))
