"""Ids of new jobs: none of them is a path below another job, whichever way it comes in."""

import json

import pytest
from pydantic import ValidationError

from controlplane.api.job_ids import RESERVED_ENDINGS
from controlplane.api.models import JobRequest
from controlplane.api.submissions import OptionInvalid
from controlplane.client import LogClient
from controlplane.events.identity import name_based_id, random_id
from controlplane.gateway.service import create_app
from controlplane.settings import Settings

JOB = "/v1/jobs/{job_id}"


def test_every_path_below_a_job_is_reserved() -> None:
    """A new route below a job is one more ending that no new job may have."""
    paths = create_app(Settings()).openapi()["paths"]
    assert {path.removeprefix(JOB) for path in paths if path.startswith(f"{JOB}/")} == set(RESERVED_ENDINGS)


@pytest.mark.parametrize("ending", RESERVED_ENDINGS)
def test_a_reserved_ending_is_refused_with_its_name(ending: str) -> None:
    words = ", ".join(RESERVED_ENDINGS)
    with pytest.raises(ValidationError, match=words) as caught:
        JobRequest.model_validate_json(json.dumps({"job_type": "t", "job_id": f"nightly{ending}"}))
    assert [fault["loc"] for fault in caught.value.errors()] == [("job_id",)]
    with pytest.raises(OptionInvalid, match=rf"{words}.*but found 'nightly{ending}'"):
        LogClient("nowhere:1").submission("t", job_id=f"nightly{ending}")


@pytest.mark.parametrize(
    "job_id", ["nightly", "events", "result", "a/events/b", "a/my-events", "a/eventS", "a/stream", "a/result/1"]
)
def test_other_ids_are_as_free_as_before(job_id: str) -> None:
    assert JobRequest(job_type="t", job_id=job_id).job_id == job_id
    assert LogClient("nowhere:1").submission("t", job_id=job_id).job_id == job_id


def test_ids_that_are_made_end_in_none_of_them() -> None:
    for made in (random_id(), name_based_id("job-1/child/key/result"), name_based_id("schedule/nightly/events/5")):
        assert "/" not in made
        assert JobRequest(job_type="t", job_id=made).job_id == made
