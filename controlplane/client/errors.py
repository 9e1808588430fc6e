"""What a client raises: the ErrorEnvelope of a refusal, field by field."""

from collections.abc import Mapping
from typing import Any


class ControlPlaneError(Exception):
    """A request was refused, or a job did not succeed; the fields are those of the ErrorEnvelope."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        """Take an envelope, or a problem document (RFC 9457) with the envelope's members."""
        super().__init__(
            problem.get("message") or problem.get("detail") or problem.get("title") or "The request was refused."
        )
        self.status: int = int(problem.get("status") or 0)
        """HTTP status; 0 when nothing answered, or when it is a job that failed."""
        self.code: str = str(problem.get("code") or "unknown")
        self.category: str = str(problem.get("category") or "UNKNOWN")
        self.severity: str = str(problem.get("severity") or "UNKNOWN")
        self.error_id: str | None = problem.get("error_id")
        self.retryable: bool = bool(problem.get("retryable", False))
        self.retry_after_seconds: float | None = problem.get("retry_after_seconds")
        self.contract_version: dict[str, int] | None = problem.get("contract_version")
        self.field: str | None = problem.get("field")
        self.expected: str | None = problem.get("expected")
        self.found: str | None = problem.get("found")
        self.problem = dict(problem)
        """The whole document."""


class LibraryMissing(ImportError):
    """Expected an optional library to be installed for what was asked; the message says which."""
