"""What a caller asks for becomes the event with nothing lost on the way."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import BaseModel, ValidationError

from controlplane.api.models import JobRequest
from controlplane.api.submissions import JobOptions, OptionInvalid, instant_of, job_submitted, json_content
from controlplane.events.codec import decode, encode
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant
from controlplane.events.types import Category, Content, JobSubmitted, Producer, RetryPolicy, Timeouts

PRODUCER = Producer(service="gateway", version="1")


def submitted(**options: object) -> JobSubmitted:
    request = JobRequest.model_validate({"job_type": "image.thumbnail", **options})
    header = outside_header("JobSubmitted", "j1", PRODUCER, Instant(5))
    return job_submitted(request, job_id="j1", payload=Content(data=b"{}"), header=header)


def test_defaults_are_those_of_the_event() -> None:
    assert submitted() == JobSubmitted(
        header=submitted().header, job_id="j1", job_type="image.thumbnail", payload=Content(data=b"{}")
    )


def test_every_option_reaches_the_event() -> None:
    options: JobOptions = {
        "contract_major": 2, "pool": "gpu", "priority": 9, "required_labels": {"region": "eu"}, "preferred_labels": {"disk": "fast"},
        "slots": 3, "retry": {"max_attempts": 7, "never_retry": ["TIMEOUT"]}, "timeouts": {"attempt_seconds": 1.5, "total_seconds": 60},
        "not_before": datetime(1970, 1, 1, 0, 0, 1, 5, UTC), "deadline": datetime(1970, 1, 1, 1, 0, 2, 0, timezone(timedelta(hours=1))),
        "concurrency_key": "customer-7", "rate_key": "api",
    }  # fmt: skip
    event = submitted(**options)
    assert event == JobSubmitted(
        header=event.header, job_id="j1", job_type="image.thumbnail", payload=Content(data=b"{}"), contract_major=2, pool="gpu", priority=9,
        required_labels={"region": "eu"}, preferred_labels={"disk": "fast"}, slots=3,
        retry=RetryPolicy(max_attempts=7, never_retry=(Category.TIMEOUT,)), timeouts=Timeouts(attempt_seconds=1.5, total_seconds=60),
        not_before=1_000_005, deadline=2_000_000, concurrency_key="customer-7", rate_key="api",
    )  # fmt: skip
    assert set(options) == JobOptions.__optional_keys__
    assert decode(encode(event)) == event


def test_what_a_policy_leaves_open_is_that_of_the_job_type() -> None:
    request = JobRequest.model_validate({"job_type": "image.thumbnail", "retry": {"max_backoff_seconds": 300}})
    usual = RetryPolicy(max_attempts=7, initial_backoff_seconds=30.0, never_retry=(Category.EXECUTION,))
    event = job_submitted(request, job_id="j1", payload=Content(), header=submitted().header, usual=usual)
    assert event.retry == RetryPolicy(
        max_attempts=7, initial_backoff_seconds=30.0, max_backoff_seconds=300.0, never_retry=(Category.EXECUTION,)
    )


def test_options_are_the_fields_of_a_request() -> None:
    said_elsewhere = {"job_type", "payload", "job_id", "correlation_id", "tenant", "secret"}
    assert JobRequest.model_fields.keys() - said_elsewhere == JobOptions.__optional_keys__


def test_options_that_a_job_cannot_have_are_refused_in_words() -> None:
    with pytest.raises(OptionInvalid, match="Expected not_before with a time zone"):
        submitted(not_before=datetime(2026, 1, 1))  # noqa: DTZ001 -- that it has none is the point
    with pytest.raises(ValidationError, match=r"retry.never_retry.0\n.*TIMEOUT"):
        submitted(retry={"never_retry": ["LUNCH"]})


def test_instants_are_exact() -> None:
    assert instant_of(datetime(2026, 7, 4, 12, 0, 0, 999_999, UTC), "deadline") == 1_783_166_400_999_999
    assert instant_of(datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC), "deadline") == -1


def test_models_become_json() -> None:
    class Thumbnail(BaseModel):
        image: str
        at: datetime

    content = json_content({"one": Thumbnail(image="a.png", at=datetime(2026, 1, 1, tzinfo=UTC)), "two": (1, None)})
    assert content == Content(data=b'{"one":{"image":"a.png","at":"2026-01-01T00:00:00Z"},"two":[1,null]}')
