"""The answer about a job's result, as a Pydantic model."""

from typing import Any

from pydantic import Field

from controlplane.api.models import ContentView, Model, Phase, Reflects


class JobResultAnswer(Model):
    """How a job ended, or how far it is."""

    job_id: str
    phase: Phase
    concluded: bool = Field(description="Whether anything can still change.")
    result: Any = Field(
        None,
        description="What the handler returned; null unless the job is COMPLETED, and where one of the next two fields says that it is not shown here.",
    )
    result_reference: ContentView | None = Field(None, description="Set when the result is too large for the log.")
    encrypted_with: str | None = Field(
        None, description="Key of the result, which is then not shown here: `GET /v1/jobs/ID/opened` does."
    )
    error: dict[str, Any] | None = Field(None, description="Why it is FAILED or REJECTED.")
    reflects: Reflects
