"""A job's result over HTTP, waited for."""

import time
from typing import Final

from fastapi import FastAPI, Response

from controlplane.api.models import Phase
from controlplane.api.reading import MinPosition, WaitSeconds
from controlplane.api.results import JobResultAnswer
from controlplane.truthcore_projector import queries
from controlplane.truthcore_projector.asking import Asked, missing
from controlplane.truthcore_projector.projector import Projector

LOOK_SECONDS: Final = 0.5
"""Another shard may have what is waited for, and does not say so here."""
CONCLUDED: Final = frozenset({Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED, Phase.REJECTED})


def add_results(app: FastAPI, asked: Asked, projector: Projector) -> None:
    """Give TruthCore its question about results."""

    @app.get("/v1/jobs/{job_id:path}/result", responses={202: {"model": JobResultAnswer, "description": "Not yet."}})
    async def result(
        response: Response, job_id: str, min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0
    ) -> JobResultAnswer:
        """Return how a job ended, as soon as it did; 202 when it has not within `wait_seconds`: then ask again."""
        give_up_at = time.monotonic() + wait_seconds
        while True:
            version = projector.version
            left = max(0.0, give_up_at - time.monotonic())
            found, reflects = await asked(min_position, left, lambda c: queries.job_views(c, [job_id], details=True))
            if not found:
                raise missing("a job", job_id)
            (job,) = found
            concluded = job.phase in CONCLUDED
            if (
                concluded
                or left <= 0
                or (not await projector.moved(version, min(left, LOOK_SECONDS)) and left <= LOOK_SECONDS)
            ):
                response.status_code = 200 if concluded else 202
                return JobResultAnswer(
                    job_id=job.job_id, phase=job.phase, concluded=concluded, result=job.result,
                    result_reference=job.result_reference, encrypted_with=job.encrypted_with, error=job.error, reflects=reflects,
                )  # fmt: skip
