"""Health and metrics over HTTP, with the same paths and answers on every service.

`/health/live` says that the process answers, `/health/ready` that it can do its work, `/health` both with the state of each
dependency, `/metrics` the Prometheus text format.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from controlplane import __version__

CHECK_LIMIT_SECONDS: Final = 2.0


class State(StrEnum):
    """How a dependency or a service is: `degraded` still does its work, less well; `down` does not."""

    OK = "ok"
    DEGRADED = "degraded"
    DOWN = "down"


class Dependency(BaseModel):
    """The state of one dependency, in words that an operator can act on."""

    state: State
    detail: str = ""


class HealthAnswer(BaseModel):
    """The health of one service: the worst of its dependencies."""

    service: str
    version: str
    state: State
    dependencies: dict[str, Dependency]


def process_metrics() -> CollectorRegistry:
    """Return a registry that tells of the process itself: memory, time, files, collections; services add their own to it."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


Check = Callable[[], Awaitable[Dependency]]

_ORDER: Final = (State.OK, State.DEGRADED, State.DOWN)


async def _bounded(check: Check) -> Dependency:
    try:
        async with asyncio.timeout(CHECK_LIMIT_SECONDS):
            return await check()
    except TimeoutError:
        return Dependency(
            state=State.DOWN, detail=f"Expected an answer within {CHECK_LIMIT_SECONDS} s, but there was none."
        )
    except OSError as error:
        return Dependency(state=State.DOWN, detail=str(error))


async def health(service: str, checks: Mapping[str, Check]) -> HealthAnswer:
    """Return the health of a service from all its checks, each bounded in time, all at once."""
    states = await asyncio.gather(*(_bounded(check) for check in checks.values()))
    worst = max((dependency.state for dependency in states), key=_ORDER.index, default=State.OK)
    return HealthAnswer(
        service=service, version=__version__, state=worst, dependencies=dict(zip(checks, states, strict=True))
    )


def health_routes(service: str, checks: Mapping[str, Check], registry: CollectorRegistry = REGISTRY) -> list[Route]:
    """Return the routes that every service serves; mount them in any Starlette or FastAPI application."""

    async def whole(_: Request) -> Response:
        return JSONResponse((await health(service, checks)).model_dump(mode="json"))

    async def live(_: Request) -> Response:
        return JSONResponse({"service": service, "state": State.OK})

    async def ready(_: Request) -> Response:
        answer = await health(service, checks)
        return JSONResponse(answer.model_dump(mode="json"), status_code=503 if answer.state is State.DOWN else 200)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return [
        Route("/health", whole),
        Route("/health/live", live),
        Route("/health/ready", ready),
        Route("/metrics", metrics),
    ]


def health_app(service: str, checks: Mapping[str, Check]) -> Starlette:
    """Return an application of nothing but health and metrics, for services that serve nothing else."""
    return Starlette(routes=health_routes(service, checks))
