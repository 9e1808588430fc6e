"""What a client raises: the ErrorEnvelope of a refusal, field by field."""

from typing import Any


class ControlPlaneError(Exception):
    """A request was refused; `code`, `retryable` and the other fields are those of the ErrorEnvelope."""

    def __init__(self, problem: dict[str, Any]) -> None:
        """Take a problem document (RFC 9457) with the envelope's members."""
        super().__init__(
            problem.get("message") or problem.get("detail") or problem.get("title") or "The request was refused."
        )
        self.status: int = int(problem.get("status", 0))
        self.code: str = str(problem.get("code", "unknown"))
        self.category: str = str(problem.get("category", "UNKNOWN"))
        self.retryable: bool = bool(problem.get("retryable", False))
        self.retry_after_seconds: float | None = problem.get("retry_after_seconds")
        self.field: str | None = problem.get("field")
        self.expected: str | None = problem.get("expected")
        self.found: str | None = problem.get("found")
        self.problem = problem
