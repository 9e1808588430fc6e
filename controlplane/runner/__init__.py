"""Runners: typed handlers, their contracts, and the process that executes them."""

from controlplane.events.types import RetryPolicy
from controlplane.events.values import Reference
from controlplane.runner.context import ChildJob, JobContext
from controlplane.runner.definition import Runner
from controlplane.runner.errors import NonRetryable, RetryLater

__all__ = ["ChildJob", "JobContext", "NonRetryable", "Reference", "RetryLater", "RetryPolicy", "Runner"]
