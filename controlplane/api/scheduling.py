"""Answers about scheduling: what limits hold back, and what handlers logged."""

from datetime import datetime

from pydantic import Field

from controlplane.api.models import Model, PositionText, Reflects


class LimitView(Model):
    """A limit, declared or given by a concurrency key, and the unfinished jobs that count against it."""

    subject: str = Field(examples=["key:default/customer-7"])
    declared: str | None = Field(description="The declaration that holds, if one does; it may be a pattern.")
    max_running: int | None
    starts: int | None
    period_seconds: float | None
    running: int = Field(description="Jobs that a runner has in hand.")
    queued: int = Field(description="Jobs that are ready, or whose next attempt is due.")
    retrying: int = Field(description="Jobs that wait for their next attempt.")
    delayed: int = Field(description="Jobs whose time has not come.")


class LimitsAnswer(Model):
    """Limits, those with the most jobs first."""

    limits: list[LimitView]
    reflects: Reflects


class JobLogLine(Model):
    """One line that a handler logged."""

    position: PositionText
    attempt_id: str
    at: datetime
    level: str
    logger: str
    message: str


class JobLogsAnswer(Model):
    """Lines of a job in order; `next_cursor` continues, also when there is nothing more yet."""

    lines: list[JobLogLine]
    dropped: int = Field(description="Lines over the limit, of all attempts so far.")
    concluded: bool = Field(description="Whether the job is over, so that nothing more will come.")
    next_cursor: str | None
    reflects: Reflects
