"""A web service that submits jobs and answers with their results: `uvicorn fastapi_service:app`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from controlplane.client import AsyncClient, ControlPlaneError


@asynccontextmanager
async def connected(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncClient(os.environ["CONTROLPLANE_GATEWAY_URL"]) as client:
        app.state.control_plane = client
        yield


app = FastAPI(title="Greetings", lifespan=connected)


class Visitor(BaseModel):
    name: str


@app.post("/visitors/{visit_id}", status_code=202)
async def arrive(visit_id: str, visitor: Visitor) -> dict[str, str]:
    """The visit is the job's id: a request that is sent twice greets once."""
    try:
        job = await app.state.control_plane.submit("greeting.write", visitor.model_dump(), job_id=visit_id)
    except ControlPlaneError as error:
        raise HTTPException(error.status or 503, str(error)) from error
    return {"job_id": job.job_id, "position": job.position}


@app.get("/visitors/{visit_id}")
async def greeting(visit_id: str) -> Any:
    try:
        return await (await app.state.control_plane.handle(visit_id)).result(timeout=30)
    except ControlPlaneError as error:
        raise HTTPException(error.status or 502, str(error)) from error
