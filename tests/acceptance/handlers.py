"""Handlers of the acceptance tests: `controlplane runner tests.acceptance.handlers:runner`."""

import asyncio

from pydantic import BaseModel, Field

from controlplane.runner import JobContext, NonRetryable, Runner

runner = Runner("acceptance", slots=64)


class Nap(BaseModel):
    """How long to sleep."""

    seconds: float = Field(ge=0, le=10)


@runner.capability("test.nap", version="1.0.0", timeout=20)
async def nap(payload: Nap, job: JobContext) -> dict[str, float]:
    """Sleep, and claim that it was slept."""
    await asyncio.sleep(payload.seconds)
    job.claim(f"nap:{job.job_id}", "seconds", payload.seconds, confidence=0.9)
    return {"slept": payload.seconds}


@runner.capability("test.fail", version="1.0.0")
async def fail(payload: Nap) -> None:
    """Fail for good."""
    raise NonRetryable(f"Expected to be able to sleep {payload.seconds} s, but never can.")
