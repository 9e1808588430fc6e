"""Reads: forwarded to a TruthCore that answers, with the same paths and models."""

from typing import Any, Final, cast

import httpx
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response

from controlplane.api import activity, audits, lineage, models, scheduling, truths
from controlplane.api.problems import refused
from controlplane.settings import TlsFiles
from controlplane.tls import client_context

ANSWER_WITHIN_SECONDS: Final = 40.0
_KEPT_HEADERS: Final = ("content-type", "retry-after")

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


class TruthCores:
    """The TruthCore replicas, asked in order: the first that can be reached answers."""

    def __init__(self, urls: str, tls: TlsFiles | None = None) -> None:
        """Prepare clients of the comma-separated URLs, which show this certificate."""
        verify = client_context(tls) if tls else True
        self._clients = [
            httpx.AsyncClient(base_url=url, timeout=ANSWER_WITHIN_SECONDS, verify=verify) for url in urls.split(",")
        ]

    async def close(self) -> None:
        """Disconnect."""
        for client in self._clients:
            await client.aclose()

    async def ask(self, method: str, path: str, query: bytes, body: bytes) -> Response:
        """Return TruthCore's answer as it is.

        Raises:
            Refused: no replica can be reached.
        """
        target = path + (f"?{query.decode('latin-1')}" if query else "")
        headers = {"content-type": "application/json"} if body else {}
        fault: httpx.TransportError | None = None
        for client in self._clients:
            try:
                answer = await client.request(method, target, content=body, headers=headers)
            except httpx.TransportError as error:
                fault = error
                continue
            kept = {name: value for name in _KEPT_HEADERS if (value := answer.headers.get(name))}
            return Response(answer.content, answer.status_code, headers=kept)
        raise refused("projection_unavailable", f"Expected TruthCore to answer, but: {fault!r}.")


def add_queries(app: FastAPI) -> None:
    """Give the application every read path."""

    async def forward(request: Request) -> Response:
        cores = cast(TruthCores, request.app.state.truthcores)
        path = request.scope.get("raw_path", request.url.path.encode()).decode("ascii")
        return await cores.ask(request.method, path, request.scope["query_string"], await request.body())

    router = APIRouter()
    for method, path, answer, group in PATHS:
        router.add_api_route(
            path, forward, methods=[method], response_model=None, tags=[group], name=f"{method} {path}",
            responses={200: {"model": answer} if answer is not dict[str, Any] else {}},
        )  # fmt: skip
    app.include_router(router)
