"""Scheduling over HTTP: one job with why it waits, limits and their use, logs of a job."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import FastAPI, Query

from controlplane.api import models
from controlplane.api.scheduling import JobLogLine, JobLogsAnswer, LimitsAnswer
from controlplane.truthcore_projector import queries
from controlplane.truthcore_projector.asking import (
    Asked,
    AsOfText,
    Limit,
    MinPosition,
    WaitSeconds,
    cursor_from,
    missing,
)
from controlplane.truthcore_projector.cursors import Cursor, tuples
from controlplane.truthcore_projector.projector import Projector
from controlplane.truthcore_projector.scheduling import Scheduling, job_log


def add_scheduling(app: FastAPI, asked: Asked, projector: Projector, lease_seconds: float) -> None:
    """Give TruthCore's application these reads; they stand before `/v1/jobs/{job_id}`, whose ids may have slashes."""

    def now() -> datetime:
        return datetime.now(UTC) - timedelta(seconds=projector.reflects().lag_seconds)

    scheduling = Scheduling(now, lease_seconds)

    @app.get("/v1/jobs/{job_id:path}/logs")
    async def logs(
        job_id: str, limit: Limit = 200, cursor: str | None = None, as_of: AsOfText = None, min_position: MinPosition = None,
        wait_seconds: WaitSeconds = 5.0,
    ) -> JobLogsAnswer:  # fmt: skip
        after = cursor_from(int, cursor)

        def work(database: Cursor) -> tuple[list[JobLogLine], int, int | None, bool]:
            found = tuples(database, "SELECT phase FROM jobs WHERE job_id = ?", [job_id])
            if not found:
                raise missing("a job", job_id)
            return *job_log(database, job_id, limit, after), found[0][0] in queries.CONCLUDED

        (lines, dropped, last, concluded), reflects = await asked(min_position, wait_seconds, work, as_of)
        following = None if last is None else str(last)
        return JobLogsAnswer(
            lines=lines, dropped=dropped, concluded=concluded, next_cursor=following, reflects=reflects
        )

    @app.get("/v1/jobs/{job_id:path}")
    async def job(
        job_id: str, as_of: AsOfText = None, min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0
    ) -> models.JobAnswer:
        def work(database: Cursor) -> models.JobView:
            found = queries.job_views(database, [job_id], details=True)
            if not found:
                raise missing("a job", job_id)
            if as_of is not None:
                return found[0]  # Why a job waits is a question about now.
            return found[0].model_copy(update={"waiting_for": scheduling.explain(database, found[0])})

        one, reflects = await asked(min_position, wait_seconds, work, as_of)
        return models.JobAnswer(job=one, reflects=reflects)

    @app.get("/v1/limits")
    async def limits(
        subject: Annotated[str | None, Query(max_length=300)] = None, min_position: MinPosition = None,
        wait_seconds: WaitSeconds = 5.0,
    ) -> LimitsAnswer:  # fmt: skip
        found, reflects = await asked(min_position, wait_seconds, lambda one: scheduling.limits(one, subject))
        return LimitsAnswer(limits=found, reflects=reflects)
