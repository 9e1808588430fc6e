"""The answer about a result tells one that is not shown from one that is null."""

from hashlib import sha256
from typing import Any

import pytest

from controlplane.events import types
from tests.unit.truthcore_projector.test_pages import get
from tests.unit.truthcore_projector.worlds import World, answering

DIGEST = sha256(b"x").hexdigest()
REFERENCE = types.ContentReference(uri=f"content://sha256/{DIGEST}", sha256=DIGEST, size_bytes=400_002)
KEY = "acme/customer-17"
SHOWN: dict[str, Any] = {"sha256": DIGEST, "size_bytes": 400_002}


def concluded(payload: types.Content, result: types.Content) -> World:
    """Return a world with one job."""
    world = World(1, 0)
    cause = world.tell(
        types.JobSubmitted(header=world._header("JobSubmitted", "job"), job_id="job", job_type="weigh", payload=payload)
    )
    world.tell(
        types.JobCompleted(
            header=world._header("JobCompleted", "job", cause), job_id="job", attempt_id="a", attempt_number=1, runner_id="r", result=result,
        )
    )  # fmt: skip
    return world


@pytest.mark.parametrize(
    ("payload", "result", "answer"),
    [
        (types.Content(data=b"1"), types.Content(data=b"null"), (None, None, None)),
        (types.Content(data=b"1"), types.Content(data=b"7"), (7, None, None)),
        (types.Content(data=b"1"), types.Content(reference=REFERENCE), (None, SHOWN, None)),
        (types.Content(data=b"?", encryption_key_id=KEY), types.Content(data=b"?", encryption_key_id=KEY), (None, None, KEY)),
        (types.Content(data=b"?", encryption_key_id=KEY), types.Content(reference=REFERENCE, encryption_key_id=KEY), (None, SHOWN, KEY)),
    ],
)  # fmt: skip
def test_a_result_says_where_it_is_or_what_it_is_encrypted_with(
    payload: types.Content, result: types.Content, answer: tuple[Any, Any, Any]
) -> None:
    with answering(concluded(payload, result)) as app:
        found = get(app, "/v1/jobs/job/result", wait_seconds=0).json()
    assert (found["phase"], found["concluded"]) == ("COMPLETED", True)
    assert (found["result"], found["result_reference"], found["encrypted_with"]) == answer
