"""What goes on, over HTTP: the figures of a window of time, and how many jobs a filter finds."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import FastAPI, Query, Request

from controlplane.api.activity import ActivityAnswer, JobCountsAnswer
from controlplane.truthcore_projector.activity import activity, job_counts
from controlplane.truthcore_projector.asking import Asked, AsOfText, MinPosition, WaitSeconds
from controlplane.truthcore_projector.cursors import Cursor
from controlplane.truthcore_projector.queries import JOB_FILTERS


def add_activity(app: FastAPI, asked: Asked) -> None:
    """Give TruthCore its questions about what goes on."""

    @app.get("/v1/activity")
    async def figures(
        seconds: Annotated[int, Query(ge=10, le=86_400, description="The window: so long before now.")] = 300,
        buckets: Annotated[int, Query(ge=1, le=300)] = 60,
        min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0,
    ) -> ActivityAnswer:  # fmt: skip
        def work(cursor: Cursor) -> dict[str, object]:
            return activity(cursor, datetime.now(UTC), seconds, buckets)

        parts, reflects = await asked(min_position, wait_seconds, work)
        return ActivityAnswer(**parts, reflects=reflects)

    @app.get("/v1/job-counts")
    async def counts(
        request: Request, as_of: AsOfText = None, min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0
    ) -> JobCountsAnswer:
        filters = {name: request.query_params.get(name) for name in JOB_FILTERS}
        phases, reflects = await asked(min_position, wait_seconds, lambda cursor: job_counts(cursor, filters), as_of)
        return JobCountsAnswer(total=sum(phases.values()), phases=phases, reflects=reflects)
