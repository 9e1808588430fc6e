"""Truth over HTTP: what is true, since when, and what changed."""

from datetime import datetime
from typing import Annotated

from fastapi import FastAPI, Query

from controlplane.api import models
from controlplane.truthcore_projector.asking import (
    Asked,
    AsOfText,
    Limit,
    MinPosition,
    ValidAt,
    WaitSeconds,
    as_of_from,
    cursor_from,
)
from controlplane.truthcore_projector.moments import moment
from controlplane.truthcore_projector.truths import Wanted, truth_cursor, truth_page

Text = Annotated[str, Query(min_length=1, max_length=1000, description="`*` stands for anything.")]
Confidence = Annotated[float, Query(ge=0, le=1)]


def add_truths(app: FastAPI, asked: Asked) -> None:
    """Give TruthCore its questions about truth."""

    @app.get("/v1/truths")
    async def truths(
        subject: Text = "*", predicate: Text = "*", value: Text = "*", source: Text = "*", min_confidence: Confidence = 0.0,
        max_confidence: Confidence = 1.0, conflict: bool | None = None, since: datetime | None = None,
        until: datetime | None = None, as_of: AsOfText = None, valid_at: ValidAt = None, limit: Limit = 100,
        cursor: str | None = None, min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0,
    ) -> models.TruthsAnswer:  # fmt: skip
        known, after = as_of_from(as_of), cursor_from(truth_cursor, cursor)
        wanted = Wanted(
            subject=subject, predicate=predicate, value=value, source=source, min_confidence=min_confidence,
            max_confidence=max_confidence, conflict=conflict, since=since, until=until,
        )  # fmt: skip
        (found, following), reflects = await asked(
            min_position, wait_seconds, lambda c: truth_page(c, wanted, moment(c, known, valid_at), limit, after)
        )
        return models.TruthsAnswer(truths=found, next_cursor=following, reflects=reflects)
