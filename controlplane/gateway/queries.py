"""Reads: forwarded to a TruthCore that answers, with the same paths and models."""

from typing import Any, Final, cast

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response

from controlplane.api import activity, audits, lineage, models, scheduling, truths
from controlplane.gateway.cores import TruthCores

PATHS: Final[tuple[tuple[str, str, Any, str], ...]] = (
    ("GET", "/v1/jobs", models.JobsAnswer, "jobs"),
    ("GET", "/v1/jobs/{job_id:path}/events", models.EventsAnswer, "jobs"),
    ("GET", "/v1/jobs/{job_id:path}/logs", scheduling.JobLogsAnswer, "jobs"),
    ("GET", "/v1/jobs/{job_id:path}", models.JobAnswer, "jobs"),
    ("GET", "/v1/limits", scheduling.LimitsAnswer, "operations"),
    ("GET", "/v1/events", models.EventsAnswer, "events"),
    ("GET", "/v1/events/{topic}/{partition}/{offset}", dict[str, Any], "events"),
    ("GET", "/v1/causation", models.CausationAnswer, "events"),
    ("GET", "/v1/truths", models.TruthsAnswer, "truths"),
    ("GET", "/v1/truths/history", truths.TruthHistoryAnswer, "truths"),
    ("GET", "/v1/truths/learned", truths.LearnedAnswer, "truths"),
    ("GET", "/v1/truths/diff", truths.TruthDiffAnswer, "truths"),
    ("GET", "/v1/lineage", lineage.LineageAnswer, "truths"),
    ("GET", "/v1/impact", lineage.ImpactAnswer, "truths"),
    ("GET", "/v1/activity", activity.ActivityAnswer, "jobs"),
    ("GET", "/v1/job-counts", activity.JobCountsAnswer, "jobs"),
    ("GET", "/v1/runners", models.RunnersAnswer, "runners"),
    ("GET", "/v1/deadletters", models.EventsAnswer, "events"),
    ("GET", "/v1/audit/diff", audits.AuditDiffAnswer, "audit"),
    ("GET", "/v1/digest", models.DigestAnswer, "audit"),
    ("POST", "/v1/sql", models.SqlAnswer, "audit"),
)
"""Method, path, answer and group of every read."""


def add_queries(app: FastAPI) -> None:
    """Give the application every read path."""

    async def forward(request: Request) -> Response:
        cores = cast(TruthCores, request.app.state.truthcores)
        path = request.scope.get("raw_path", request.url.path.encode()).decode("ascii")
        return await cores.ask(
            request.method, path, request.scope["query_string"], await request.body(), request.headers
        )

    router = APIRouter()
    for method, path, answer, group in PATHS:
        router.add_api_route(
            path, forward, methods=[method], response_model=None, tags=[group], name=f"{method} {path}",
            responses={200: {"model": answer} if answer is not dict[str, Any] else {}},
        )  # fmt: skip
    app.include_router(router)
