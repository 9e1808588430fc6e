"""What a handler raises becomes an envelope that says who has to act, without a stack trace."""

import pytest

from controlplane.events.types import Category
from controlplane.runner import ClaimInvalid, DestinationUnavailable, NonRetryable, RetryLater
from controlplane.runner.errors import WorkerDied, failure


@pytest.mark.parametrize(
    ("error", "message", "found", "retryable", "retry_after"),
    [
        (ValueError("no"), "ValueError: no", "ValueError", True, None),
        (ValueError(), "ValueError", "ValueError", True, None),
        (NonRetryable("no"), "no", "NonRetryable", False, None),
        (NonRetryable(), "NonRetryable", "NonRetryable", False, None),
        (NonRetryable("no", code="image_broken"), "no", "image_broken", False, None),
        (ClaimInvalid("no"), "no", "ClaimInvalid", False, None),
        (RetryLater(2.5), "Expected to succeed now, but have to wait 2.5 s.", "RetryLater", True, 2.5),
        (RetryLater(0, "busy", code="busy"), "busy", "busy", True, 0),
        (SystemExit(3), "SystemExit: 3", "SystemExit", True, None),
        (ValueError("x" * 5_000), "ValueError: " + "x" * 1_988, "ValueError", True, None),
    ],
)
def test_an_exception_becomes_an_envelope(
    error: BaseException, message: str, found: str, retryable: bool, retry_after: float | None
) -> None:
    envelope = failure(error, "lease-1")
    assert (envelope.code, envelope.category) == ("handler_failed", Category.EXECUTION)
    assert (envelope.message, envelope.found, envelope.retryable) == (message, found, retryable)
    assert envelope.retry_after_seconds == retry_after


def test_the_same_failure_of_the_same_attempt_is_the_same_error() -> None:
    assert failure(ValueError(), "lease-1").error_id == failure(ValueError(), "lease-1").error_id
    assert failure(ValueError(), "lease-1").error_id != failure(ValueError(), "lease-2").error_id


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
def test_a_retry_is_at_some_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="Expected seconds from 0 on"):
        RetryLater(seconds)
    with pytest.raises(ValueError, match="Expected seconds from 0 on"):
        DestinationUnavailable("gone", retry_after_seconds=seconds)


@pytest.mark.parametrize(
    ("error", "code", "category", "retry_after"),
    [
        (WorkerDied("gone"), "runner_broken", Category.INTERNAL, None),
        (DestinationUnavailable("The bank does not answer."), "destination_unavailable", Category.UNAVAILABLE, None),
        (DestinationUnavailable(retry_after_seconds=3), "destination_unavailable", Category.UNAVAILABLE, 3),
    ],
)
def test_an_envelope_says_whose_fault_it_was(
    error: BaseException, code: str, category: Category, retry_after: float | None
) -> None:
    envelope = failure(error, "lease-1")
    assert (envelope.code, envelope.category, envelope.retryable) == (code, category, True)
    assert envelope.retry_after_seconds == retry_after
