"""Work to look at in the console: `controlplane runner tests.acceptance.studio:runner`. It reports, logs, contradicts itself and fails."""

import asyncio

from pydantic import BaseModel, Field

from controlplane.runner import JobContext, NonRetryable, Runner

runner = Runner("studio", slots=6, labels={"region": "eu"})


class Image(BaseModel):
    """An image to work on."""

    image: str
    seconds: float = Field(0.05, ge=0, le=120)


class Thumbnail(BaseModel):
    """What came of it."""

    file: str
    width: int


@runner.capability("image.measure", version="1.2.0", timeout=20)
async def measure(payload: Image, job: JobContext) -> dict[str, int]:
    """Read the size from the file's header: nearly sure."""
    job.log.info("Reading the header of %s", payload.image)
    await asyncio.sleep(payload.seconds)
    width = 320 + 10 * (sum(payload.image.encode()) % 40)
    job.claim(payload.image, "width", width, confidence=0.97, unit="px")
    job.claim(payload.image, "format", "jpeg", confidence=0.99)
    return {"width": width}


@runner.capability("image.guess", version="1.0.0", timeout=20)
async def guess(payload: Image, job: JobContext) -> dict[str, int]:
    """Guess the size from the name: often wrong."""
    job.log.warning("Nobody should rely on a name such as %s", payload.image)
    job.claim(payload.image, "width", 640, confidence=0.6, unit="px")
    job.claim(payload.image, "format", "png", confidence=0.55)
    return {"width": 640}


@runner.capability("image.thumbnail", version="1.0.0", timeout=20)
async def thumbnail(payload: Image, job: JobContext) -> Thumbnail:
    """Make a thumbnail, and have it measured by a job of its own."""
    await job.progress(0.5, "resized")
    await job.submit("image.measure", {"image": f"{payload.image}-small"})
    return Thumbnail(file=f"{payload.image}-small", width=160)


@runner.capability("report.render", version="1.0.0")
async def render(payload: Image, job: JobContext) -> str:
    """Fail at first, as things do."""
    if job.attempt_number == 1:
        raise RuntimeError("the fonts were not there yet")
    return f"{payload.image}.pdf"


@runner.capability("image.enlarge", version="1.0.0", timeout=20)
async def enlarge(payload: Image) -> str:
    """Return more than the log takes."""
    return "x" * 400_000


@runner.capability("feed.import", version="1.0.0")
async def feed(payload: Image) -> None:
    """Fail for good."""
    raise NonRetryable(f"Expected a feed at {payload.image}, but there is none.")


@runner.capability("video.encode", version="1.4.0", timeout=300)
async def encode(payload: Image, job: JobContext) -> str:
    """Take long, and say how far it is."""
    steps = 40
    for step in range(steps):
        await job.progress((step + 1) / steps, f"frame {step * 25} of {steps * 25}")
        job.log.info("encoded frame %d at 24.0 fps", step * 25)
        await asyncio.sleep(payload.seconds / steps)
    return f"{payload.image}.av1"
