"""A runner for the clients' tests: `tests.integration.client.handlers:runner`."""

import asyncio

from pydantic import BaseModel, Field

from controlplane.runner import JobContext, NonRetryable, Runner

runner = Runner("client-tests", slots=16)


class Width(BaseModel):
    image: str
    width: int = Field(gt=0)


@runner.capability("measure")
async def measure(payload: Width, job: JobContext) -> Width:
    """Claim the width of an image."""
    await job.progress(0.5, "measured")
    job.claim(f"image:{payload.image}", "width", payload.width, confidence=0.9, unit="px")
    return payload


@runner.capability("fail")
async def fail(payload: str) -> None:
    """Fail for good."""
    raise NonRetryable(payload)


@runner.capability("wait")
async def wait(_: None) -> None:
    """Wait until cancelled."""
    await asyncio.Event().wait()
