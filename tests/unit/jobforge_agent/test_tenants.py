"""A command, or a submission under a known id, of another tenant changes nothing and tells nothing."""

from typing import Any

import msgspec
import pytest

from controlplane.events import types
from controlplane.events.header import EVERY_TENANT
from controlplane.events.identity import Instant
from controlplane.events.types import LogPosition
from controlplane.jobforge_agent.batch import Consumed, Decided, decide_batch
from controlplane.jobforge_agent.bulk import matches
from controlplane.jobforge_agent.state import Job
from controlplane.jobforge_agent.transitions import Phase
from tests.unit.jobforge_agent.test_decide import CANCEL, NOW, PRODUCER, REGISTRY, header, job, submission

ACME = msgspec.structs.replace(job(Phase.QUEUED), tenant="acme")
MOVE = types.JobReprioritiseRequested(header=header("JobReprioritiseRequested"), job_id="j", priority=9)
AGAIN = types.JobRetryRequested(header=header("JobRetryRequested"), job_id="j")


def told(event: Any, tenant: str, before: Job = ACME) -> Decided:
    event = msgspec.structs.replace(event, header=msgspec.structs.replace(event.header, tenant=tenant))
    position = LogPosition(topic="controlplane.submissions", partition=0, offset=9)
    consumed = Consumed(position=position, at=Instant(NOW), key=b"j", value=b"", event=event)
    return decide_batch([consumed], {"j": before}, partition=0, registry=REGISTRY, producer=PRODUCER)


@pytest.mark.parametrize("event", [CANCEL, MOVE, AGAIN, submission()])
def test_another_tenant_is_refused_and_learns_nothing(event: Any) -> None:
    decided = told(event, "umbrella")
    [refused] = decided.events
    assert isinstance(refused, types.CommandRefused)
    assert (refused.header.tenant, decided.jobs["j"]) == ("umbrella", ACME)
    assert "acme" not in refused.error.message
    assert str(ACME.phase) not in refused.error.message


@pytest.mark.parametrize("tenant", ["acme", EVERY_TENANT])
def test_its_own_tenant_and_who_may_command_all_are_heard(tenant: str) -> None:
    decided = told(CANCEL, tenant)
    assert [type(event).__name__ for event in decided.events] == ["JobCancelled", "TruthAsserted"]
    # Whoever gave the command: what follows belongs to the job's tenant, so that its people see it.
    headers: list[types.EventHeader] = [getattr(event, "header") for event in decided.events]  # noqa: B009 -- every event has one
    assert {one.tenant for one in headers} == {"acme"}


def test_a_bulk_command_finds_jobs_of_its_own_tenant_only() -> None:
    for tenant, found in (("acme", True), (EVERY_TENANT, True), ("umbrella", False)):
        head = msgspec.structs.replace(header("BulkRequested"), tenant=tenant)
        bulk = types.BulkRequested(header=head, subject="bulk:b", bulk_id="b", action="cancel")
        assert matches(bulk, ACME, NOW + 10) is found
