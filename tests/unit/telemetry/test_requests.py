"""Requests as metrics: a fault of ours counts as one, however it is answered, and is counted from 0."""

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.requests import ClientDisconnect

from controlplane.api.problems import add_problem_handlers, refused
from controlplane.telemetry.requests import FRAMEWORKS_OWN, Measured, RequestMeasures

FAULTS = "controlplane_http_faults_total"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def app(registry: CollectorRegistry) -> FastAPI:
    app = FastAPI(telemetry=FRAMEWORKS_OWN)
    add_problem_handlers(app)
    app.add_middleware(Measured, measures=RequestMeasures(registry))

    @app.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError

    @app.get("/corrupt")
    async def corrupt() -> None:
        raise refused("content_corrupt", "Expected the bytes that the log names, but found others.")

    @app.get("/busy")
    async def busy() -> None:
        raise refused("overloaded", "Expected less work in flight.")

    @app.get("/left")
    async def left() -> None:
        raise ClientDisconnect

    return app


async def answered(app: FastAPI, path: str) -> int:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
        return (await http.get(path)).status_code


@pytest.mark.parametrize(
    ("path", "status", "faults"), [("/broken", 500, 1), ("/corrupt", 500, 1), ("/busy", 503, 0), ("/nowhere", 404, 0)]
)
async def test_what_is_answered_with_500_is_a_fault(
    app: FastAPI, registry: CollectorRegistry, path: str, status: int, faults: int
) -> None:
    assert registry.get_sample_value(FAULTS) == 0, (
        "Expected the series before its first event: one born at 1 has no increase."
    )
    assert await answered(app, path) == status
    assert registry.get_sample_value(FAULTS) == faults
    labels = {
        "method": "" if status == 404 else "GET",
        "route": "unmatched" if status == 404 else path,
        "status": str(status),
    }
    assert registry.get_sample_value("controlplane_http_answers_total", labels), "Expected what the caller saw."


async def test_whoever_goes_away_is_no_fault_of_ours(app: FastAPI, registry: CollectorRegistry) -> None:
    await answered(app, "/left")
    assert registry.get_sample_value(FAULTS) == 0
