"""Reads: forwarded to a TruthCore that answers. Which there are, and what they take and give, is what TruthCore says of itself."""

import json
from functools import cache
from importlib.resources import files
from typing import Any, Final, cast

from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.responses import Response

from controlplane.gateway.cores import TruthCores

COMMANDS: Final = ("cancel", "retry", "reprioritise")
OTHERS: Final = ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS")


async def only_post(request: Request) -> Response:
    """Refuse any method but POST."""
    raise HTTPException(405, f"{request.method} is not for commands", {"Allow": "POST"})


@cache
def described_reads() -> dict[str, Any]:
    """Return TruthCore's reads and their schemas (`make reference` writes the file)."""
    found: dict[str, Any] = json.loads(files("controlplane.api").joinpath("reads.json").read_text())
    return found


def add_reads(app: FastAPI) -> None:
    """Give the application every read path."""

    async def forward(request: Request) -> Response:
        cores = cast(TruthCores, request.app.state.truthcores)
        path = request.scope.get("raw_path", request.url.path.encode()).decode("ascii")
        return await cores.ask(
            request.method, path, request.scope["query_string"], await request.body(), request.headers
        )

    router = APIRouter()
    # A job's id may hold slashes, so the look at a job would take a command's path for a job's.
    for command in COMMANDS:
        route = f"/v1/jobs/{{job_id:path}}/{command}"
        router.add_api_route(
            route, only_post, methods=list(OTHERS), include_in_schema=False, name=f"only POST {command}"
        )
    for read in described_reads()["reads"]:
        router.add_api_route(
            read["route"], forward, methods=[read["method"]], response_model=None, include_in_schema=False,
            name=f"{read['method']} {read['path']}",
        )  # fmt: skip
    app.include_router(router)
