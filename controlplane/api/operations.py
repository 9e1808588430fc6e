"""Answers about what governs routing, as Pydantic models."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from controlplane.api.models import Model, Reflects


class DeclaredLimit(Model):
    """How many attempts may run at once, and how many may start in each period."""

    max_running: int | None
    starts: int | None
    period_seconds: float


class BreakerView(Model):
    """A circuit breaker that is not closed, or was not lately."""

    state: Literal["CLOSED", "OPEN", "HALF_OPEN"]
    reason: str
    until: datetime | None
    openings: int


class AdmissionView(Model):
    """Whether submissions are admitted."""

    open: bool
    reason: str


class ControlsAnswer(Model):
    """Everything that governs routing now, by what it is declared for."""

    limits: dict[str, DeclaredLimit]
    shares: dict[str, float]
    pauses: dict[str, str] = Field(description="Reason of each pause.")
    breakers: dict[str, BreakerView]
    admission: AdmissionView
    reflects: Reflects


class ScheduleView(Model):
    """A schedule, when it fired last, and when it fires next."""

    schedule_id: str
    cron: str
    time_zone: str
    job_type: str
    paused: bool
    overlap: bool
    last_at: datetime | None
    last_job_id: str | None
    last_reason: str
    next_at: list[datetime]


class SchedulesAnswer(Model):
    """All schedules, by name."""

    schedules: list[ScheduleView]
    reflects: Reflects


class BulkView(Model):
    """How far a bulk command came."""

    bulk_id: str
    action: str
    done: bool
    partitions_done: int
    matched: int
    refused: int
    reflects: Reflects
