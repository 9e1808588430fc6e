"""A first runner: `controlplane runner first_runner:runner`, then `controlplane submit greeting.write --payload '{"name": "Ada"}' --wait`."""

from pydantic import BaseModel

from controlplane.runner import JobContext, Runner

runner = Runner("greetings", slots=4)


class Greet(BaseModel):
    name: str


class Greeting(BaseModel):
    text: str


@runner.capability("greeting.write", version="1.0.0", timeout=10)
async def write_greeting(payload: Greet, job: JobContext) -> Greeting:
    text = f"Hello, {payload.name}!"
    job.claim(subject=f"person:{payload.name}", predicate="greeted_with", object=text, confidence=0.95)
    return Greeting(text=text)
