"""Answers about what goes on now, as Pydantic models: what an overview, a bulk command's dry run and `controlplane top` show."""

from datetime import datetime

from pydantic import Field

from controlplane.api.models import Model, Phase, Reflects


class ActivityBucket(Model):
    """What the log took in one stretch of time, and how things stood at its end."""

    at: datetime = Field(description="Where the stretch begins.")
    submitted: int
    started: int
    completed: int
    failed: int = Field(description="Failed or rejected.")
    cancelled: int
    retried: int = Field(description="Attempts that failed or were lost and come again.")
    records: int = Field(description="Records of any kind.")
    waiting: int = Field(description="Jobs that waited for their first attempt at the end of the stretch.")
    busy: int | None = Field(description="Slots in use, as the runners said last; null where none said anything.")
    slots: int | None
    median_seconds: float | None = Field(description="From submission to conclusion, of jobs concluded in the stretch.")
    p95_seconds: float | None


class TypeActivity(Model):
    """How the jobs of one type stand."""

    job_type: str
    waiting: int
    running: int
    completed: int = Field(description="Concluded in the window.")
    failed: int = Field(description="Failed or rejected in the window.")


class ActivityAnswer(Model):
    """What went on in a window of time, and how things stand."""

    seconds: int
    bucket_seconds: float
    buckets: list[ActivityBucket]
    open: dict[Phase, int] = Field(description="Jobs that are not concluded, by phase.")
    concluded: dict[Phase, int] = Field(description="Jobs concluded in the window, by outcome.")
    types: list[TypeActivity] = Field(description="The busiest hundred.")
    median_seconds: float | None = Field(description="From submission to conclusion, in the window.")
    p95_seconds: float | None
    p99_seconds: float | None
    reflects: Reflects


class JobCountsAnswer(Model):
    """How many jobs a filter finds, by phase."""

    total: int
    phases: dict[Phase, int]
    reflects: Reflects
