"""Options that no job can have are refused by name, and never stop the jobs behind them."""

from typing import Any

import msgspec
import pytest

from controlplane.events import types
from controlplane.events.types import LogPosition, RetryPolicy, Timeouts
from controlplane.jobforge_agent.batch import Consumed, decide_batch
from controlplane.jobforge_agent.changes import encode_job
from controlplane.jobforge_agent.decide import Decision
from controlplane.jobforge_agent.retry import backoff_micros
from controlplane.jobforge_agent.transitions import Phase
from tests.unit.jobforge_agent.test_decide import NOW, PRODUCER, REGISTRY, submission, submitted

NOT_A_NUMBER = float("nan")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"timeouts": Timeouts(total_seconds=1e300)}, "timeouts.total_seconds"),
        ({"timeouts": Timeouts(attempt_seconds=NOT_A_NUMBER)}, "timeouts.attempt_seconds"),
        ({"timeouts": Timeouts(queue_seconds=-1.0)}, "timeouts.queue_seconds"),
        ({"retry": RetryPolicy(initial_backoff_seconds=float("inf"))}, "retry.initial_backoff_seconds"),
        ({"retry": RetryPolicy(max_attempts=0)}, "retry.max_attempts"),
        ({"slots": 0}, "slots"),
        ({"priority": 10}, "priority"),
    ],
)
def test_what_no_job_can_ask_for_is_rejected_by_name(options: dict[str, Any], field: str) -> None:
    decision = submitted(**options)
    rejected = decision.events[0]
    assert isinstance(rejected, types.JobRejected)
    assert (rejected.error.code, rejected.error.field) == ("request_invalid", field)
    assert decision.job is not None
    assert decision.job.phase is Phase.REJECTED
    assert encode_job(decision.job)


def test_a_decision_that_cannot_be_written_is_set_aside_alone() -> None:
    def consumed(name: str, offset: int) -> Consumed:
        event = msgspec.structs.replace(submission(), job_id=name)
        place = LogPosition(topic="controlplane.submissions", partition=0, offset=offset)
        return Consumed(position=place, at=NOW, key=name.encode(), value=b"", event=event)

    def proof(decision: Decision) -> None:
        if decision.job is not None and decision.job.job_id == "poison":
            raise OverflowError("int too big to convert")

    batch = [consumed("before", 0), consumed("poison", 1), consumed("after", 2)]
    decided = decide_batch(batch, {}, partition=0, registry=REGISTRY, producer=PRODUCER, proof=proof)
    assert set(decided.jobs) == {"before", "after"}
    letters = [event for event in decided.events if isinstance(event, types.RecordRefused)]
    assert [(one.position.offset, one.error.code) for one in letters] == [(1, "record_poisonous")]


def test_backoff_grows_to_its_bound_and_no_further() -> None:
    policy = RetryPolicy(initial_backoff_seconds=1.0, multiplier=1000.0, max_backoff_seconds=60.0)
    assert 0 <= backoff_micros(policy, 999, "attempt") <= 60_000_000
    patient = RetryPolicy(initial_backoff_seconds=0.0, multiplier=1000.0)
    assert backoff_micros(patient, 999, "attempt") == 0
