"""Write a runner: name it, decorate functions with what they can do, run it with `controlplane runner package.module:runner`."""

from controlplane.events.types import Category, LogPosition, RetryPolicy, ValueKind
from controlplane.events.values import Reference
from controlplane.runner.capability import CapabilityInvalid
from controlplane.runner.context import ChildJob, JobContext
from controlplane.runner.definition import Runner
from controlplane.runner.errors import ClaimInvalid, DestinationUnavailable, NonRetryable, RetryLater

__all__ = [
    "CapabilityInvalid",
    "Category",
    "ChildJob",
    "ClaimInvalid",
    "DestinationUnavailable",
    "JobContext",
    "LogPosition",
    "NonRetryable",
    "Reference",
    "RetryLater",
    "RetryPolicy",
    "Runner",
    "ValueKind",
]
