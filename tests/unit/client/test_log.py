"""What a conclusion tells of its result, and what waiting for conclusions says when it ends."""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controlplane.client import Conclusion, ControlPlaneError, LogClient
from controlplane.client.log import NAMED_JOBS, _still_open
from controlplane.contents import ContentStore
from controlplane.events.types import Content, ContentReference, LogPosition
from examples.webhook import told

LARGE = b'"' + b"x" * 20 + b'"'


class Completed(msgspec.Struct):
    """Stands for JobCompleted."""

    result: Content


def concluded(result: Content) -> Conclusion:
    position = LogPosition(topic="controlplane.jobs", partition=0, offset=0)
    return Conclusion(job_id="job-1", outcome="completed", position=position, at=0, event=Completed(result))


def elsewhere() -> Content:
    digest = hashlib.sha256(LARGE).hexdigest()
    reference = ContentReference(uri=f"content://sha256/{digest}", sha256=digest, size_bytes=len(LARGE))
    return Content(data=b"", reference=reference)


@pytest.mark.parametrize(
    ("result", "found"),
    [
        (elsewhere(), "it has 22 bytes and is kept outside of the log"),
        (Content(data=b"\x00\x01", encryption_key_id="acme/customer-17"), "it is encrypted with acme/customer-17"),
    ],
)
def test_a_result_that_is_not_on_the_log_says_what_it_takes(result: Content, found: str) -> None:
    with pytest.raises(ControlPlaneError, match=r"Expected `contents`.* the result of job job-1") as caught:
        concluded(result).result()
    assert caught.value.code == "result_elsewhere"
    assert str(caught.value).endswith(f"but found none: {found}.")
    body = told(concluded(result))  # The webhook goes on.
    assert (body["result"], body["kept"]) == (None, str(caught.value))


def test_a_large_result_is_read_from_the_store(tmp_path: Path) -> None:
    store = ContentStore(tmp_path.as_uri(), inline_limit_bytes=10)
    kept = store.check_in(Content(data=LARGE))
    assert kept.reference is not None
    assert concluded(kept).result(contents=store) == "x" * 20
    assert concluded(Content(data=b"[1]")).result(list[int]) == [1]
    assert told(concluded(Content(data=b"[1]"))) == {"job_id": "job-1", "outcome": "completed", "result": [1]}


async def test_no_jobs_are_concluded_at_once() -> None:
    found: list[Any] = [one async for one in LogClient("nowhere:1").conclude([])]
    assert found == []


def test_jobs_that_are_open_are_named_and_counted() -> None:
    assert _still_open({"b", "a"}, 60) == "Expected a conclusion within 60 s, but none came of a, b."
    many = {f"job-{number:03}" for number in range(NAMED_JOBS + 1_001)}
    assert _still_open(many, 0.5).endswith("job-019, and 1,001 others.")
