"""How long to wait before the next attempt: exponential backoff with full jitter, a function of the attempt.

Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 ("Full Jitter").
"""

from typing import Final

from controlplane.events.identity import name_based_id
from controlplane.events.types import ErrorEnvelope, RetryPolicy
from controlplane.jobforge_agent.state import SECOND, Job

_FRACTION_DIGITS: Final = 8


def jitter(attempt_id: str) -> float:
    """Return a fraction in [0, 1) that looks random and is always the same for one attempt."""
    return int(name_based_id(f"jitter/{attempt_id}")[:_FRACTION_DIGITS], 16) / 16**_FRACTION_DIGITS


def backoff_micros(policy: RetryPolicy, failures: int, attempt_id: str) -> int:
    """Return the delay after the `failures`-th failure (1 for the first)."""
    try:
        growth = policy.multiplier ** (failures - 1)
    except OverflowError:
        growth = float("inf")
    bound = min(
        policy.max_backoff_seconds, policy.initial_backoff_seconds * growth if policy.initial_backoff_seconds else 0.0
    )
    return int(bound * jitter(attempt_id) * SECOND)


def will_retry(job: Job, error: ErrorEnvelope) -> bool:
    """Say whether a failed attempt is followed by another one."""
    return error.retryable and error.category not in job.retry.never_retry and job.failures + 1 < job.retry.max_attempts
