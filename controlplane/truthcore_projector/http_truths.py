"""Truth over HTTP: what is true, since when, and what changed."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response

from controlplane.api import models
from controlplane.api import truths as answers
from controlplane.api.fields import Moment as Instant
from controlplane.api.tables import truth_table
from controlplane.truthcore_projector.agreement import Lesson, frozen_range, lesson
from controlplane.truthcore_projector.asking import (
    Asked,
    AsOfText,
    Limit,
    MinPosition,
    ValidAt,
    WaitSeconds,
    as_of_from,
    cursor_from,
    missing,
)
from controlplane.truthcore_projector.cursors import Cursor
from controlplane.truthcore_projector.differences import changes
from controlplane.truthcore_projector.formats import AS_TABLES, Format, table_response, wanted_format
from controlplane.truthcore_projector.moments import Moment, bounds, moment, naive
from controlplane.truthcore_projector.store import positions_in
from controlplane.truthcore_projector.timeline import Story, intervals, story
from controlplane.truthcore_projector.truths import Wanted, truth_cursor, truth_page

Text = Annotated[str, Query(min_length=1, max_length=1000, description="`*` stands for anything.")]
Name = Annotated[str, Query(min_length=1, max_length=1000)]
Confidence = Annotated[float, Query(ge=0, le=1)]

Since = Annotated[
    Instant | None, Query(description="Log time of its newest assertion: from `since` on, before `until`.")
]


def add_truths(app: FastAPI, asked: Asked) -> None:
    """Give TruthCore its questions about truth."""

    @app.get("/v1/truths", response_model=models.TruthsAnswer, responses=AS_TABLES)
    async def truths(
        request: Request, subject: Text = "*", predicate: Text = "*", value: Text = "*", source: Text = "*", min_confidence: Confidence = 0.0,
        max_confidence: Confidence = 1.0, conflict: bool | None = None, since: Since = None,
        until: Since = None, as_of: AsOfText = None, valid_at: ValidAt = None, limit: Limit = 100,
        cursor: str | None = None, min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0,
        format: Format | None = None,  # noqa: A002 -- its name in the URL
    ) -> models.TruthsAnswer | Response:  # fmt: skip
        known, after = as_of_from(as_of), cursor_from(truth_cursor, cursor)
        wanted = Wanted(
            subject=subject, predicate=predicate, value=value, source=source, min_confidence=min_confidence,
            max_confidence=max_confidence, conflict=conflict, since=since, until=until,
        )  # fmt: skip
        (found, following), reflects = await asked(
            min_position, wait_seconds, lambda c: truth_page(c, wanted, moment(c, known, valid_at), limit, after)
        )
        if (form := wanted_format(request, format)) != "json":
            more = following is not None
            return table_response(truth_table(found), form, reflects, truncated=more, following=following)
        return models.TruthsAnswer(truths=found, next_cursor=following, reflects=reflects)

    @app.get("/v1/truths/history")
    async def history(
        subject: Name, predicate: Name, axis: Literal["believed", "valid"] = "believed", as_of: AsOfText = None,
        valid_at: ValidAt = None, limit: Limit = 200, cursor: str | None = None, min_position: MinPosition = None,
        wait_seconds: WaitSeconds = 5.0,
    ) -> answers.TruthHistoryAnswer:  # fmt: skip
        known, after = as_of_from(as_of), cursor_from(_moment_cursor, cursor)

        def work(c: Cursor) -> tuple[Story, list[answers.TruthInterval], datetime | None]:
            told = story(c, subject, predicate, moment(c, known, None).known)
            at = Moment(instant=None if valid_at is None else naive(valid_at))
            return told, *intervals(told, axis, at, limit, after)

        (told, found, following), reflects = await asked(min_position, wait_seconds, work)
        if not told.assertions:
            raise missing("an assertion about", f"{subject} {predicate}")
        return answers.TruthHistoryAnswer(
            subject=subject, predicate=predicate, axis=axis, intervals=found, complete=told.complete,
            next_cursor=following and following.isoformat(), reflects=reflects,
        )  # fmt: skip

    @app.get("/v1/truths/diff")
    async def diff(
        begin: Annotated[str, Query(alias="from", description="As as_of: what the log knew before.")],
        end: Annotated[str | None, Query(alias="to", description="As as_of: what it knew after; by default all.")] = None,
        subject: Text = "*", predicate: Text = "*", valid_at: ValidAt = None, limit: Limit = 100, cursor: str | None = None,
        min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0,
    ) -> answers.TruthDiffAnswer:  # fmt: skip
        moments = as_of_from(begin, "from"), as_of_from(end, "to")
        after = cursor_from(truth_cursor, cursor)
        wanted = Wanted(subject=subject, predicate=predicate)

        def work(c: Cursor) -> tuple[list[answers.TruthChange], str | None]:
            before, now = (moment(c, one, valid_at) for one in moments)
            return changes(c, wanted, before, now, limit, after)

        (found, following), reflects = await asked(min_position, wait_seconds, work)
        return answers.TruthDiffAnswer(changes=found, next_cursor=following, reflects=reflects)

    @app.get("/v1/truths/learned")
    async def learned(
        method: Literal["accu", "truthfinder"] = "accu", subject: Text = "*", predicate: Text = "*", as_of: AsOfText = None,
        valid_at: ValidAt = None, min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0,
    ) -> answers.LearnedAnswer:  # fmt: skip
        """Learn how reliable sources are; nothing changes until somebody declares it."""
        known = as_of_from(as_of)
        instant_asked = valid_at or (known if isinstance(known, datetime) else datetime.now(UTC))

        def work(c: Any) -> tuple[Lesson, str]:
            text = frozen_range(positions_in(c), bounds(c, known))
            # The range by positions, whatever it was asked by, so that this answer can be had again.
            at = moment(c, as_of_from(text), instant_asked)
            return lesson(c, Wanted(subject=subject, predicate=predicate), at, method), text

        (found, text), reflects = await asked(min_position, wait_seconds, work)
        return answers.LearnedAnswer(
            method=method, as_of=text, valid_at=instant_asked, sources=found.sources, truths=found.truths, votes=found.votes,
            rounds=found.rounds, settled=found.settled, reflects=reflects,
        )  # fmt: skip


def _moment_cursor(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
