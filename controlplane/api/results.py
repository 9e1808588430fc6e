"""The answer about a job's result, as a Pydantic model."""

from typing import Any

from pydantic import Field

from controlplane.api.models import Model, Phase, Reflects


class JobResultAnswer(Model):
    """How a job ended, or how far it is."""

    job_id: str
    phase: Phase
    concluded: bool = Field(description="Whether anything can still change.")
    result: Any = Field(None, description="What the handler returned; null unless the job is COMPLETED.")
    error: dict[str, Any] | None = Field(None, description="Why it is FAILED or REJECTED.")
    reflects: Reflects
