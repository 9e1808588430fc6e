"""A job that is cancelled with its children, and children that come in the same moment."""

from itertools import count

import msgspec
import pytest

from controlplane.events import types
from controlplane.events.types import LogPosition
from controlplane.jobforge_agent.batch import Consumed, decide_batch
from controlplane.jobforge_agent.decide import Related
from controlplane.jobforge_agent.transitions import Phase
from tests.unit.jobforge_agent.test_decide import CANCEL, NOW, PRODUCER, REGISTRY, job, submission

PARENT = job(Phase.RUNNING, job_id="parent")
TREE = msgspec.structs.replace(CANCEL, job_id="parent", tree=True)
CHILD = submission(job_id="child", parent=types.ParentJob(job_id="parent", attempt_id="a1"))


def consumed(*events: msgspec.Struct) -> list[Consumed]:
    offsets = count(20)
    return [
        Consumed(
            position=LogPosition(topic="controlplane.submissions", partition=0, offset=next(offsets)), at=NOW, key=b"k",
            value=b"", event=event,
        )
        for event in events
    ]  # fmt: skip


@pytest.mark.parametrize("events", [(TREE, CHILD), (CHILD, TREE)])
def test_a_child_of_the_same_batch_is_cancelled_before_or_behind(events: tuple[msgspec.Struct, ...]) -> None:
    decided = decide_batch(
        consumed(*events), {"parent": PARENT}, partition=0, registry=REGISTRY, producer=PRODUCER,
        related=Related(parents={"parent": PARENT}, standing=("parent",)),
    )  # fmt: skip
    asked = [one.job_id for one in decided.events if isinstance(one, types.JobCancelRequested)]
    assert decided.jobs["child"].phase is Phase.CANCELLED or asked == ["child"]


def test_a_child_whose_parent_another_instance_cancels_never_runs() -> None:
    decided = decide_batch(
        consumed(CHILD), {}, partition=0, registry=REGISTRY, producer=PRODUCER,
        related=Related(parents={"parent": PARENT}, cancelled_trees=frozenset({"parent"})),
    )  # fmt: skip
    assert decided.jobs["child"].phase is Phase.CANCELLED


def test_a_child_that_somebody_asks_to_be_done_again_runs() -> None:
    again = msgspec.structs.replace(CHILD, retry_of="child")
    cancelled = msgspec.structs.replace(PARENT, tree_cancelled=True)
    decided = decide_batch(
        consumed(again), {}, partition=0, registry=REGISTRY, producer=PRODUCER,
        related=Related(parents={"parent": cancelled}),
    )  # fmt: skip
    assert decided.jobs["child"].phase is Phase.QUEUED
