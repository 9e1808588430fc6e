"""The queries over HTTP: the read paths of the gateway, served by the process that owns the database."""

import math
import threading
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

import anyio.to_thread
import duckdb
from fastapi import FastAPI, Query, Request
from fastapi import Path as PathField

from controlplane import __version__
from controlplane.api import models
from controlplane.api.problems import Refused, add_problem_handlers, refused
from controlplane.log.positions import Partition, PositionInvalid, parse_position
from controlplane.telemetry.health import Check, health_routes
from controlplane.truthcore_projector import queries
from controlplane.truthcore_projector.digest import digest
from controlplane.truthcore_projector.projector import Projector
from controlplane.truthcore_projector.store import Store
from controlplane.truthcore_projector.truths import truth_page

SQL_SECONDS: Final = 10.0
T = TypeVar("T")

Limit = Annotated[int, Query(ge=1, le=1000)]
MinPosition = Annotated[
    list[str] | None, Query(description="topic/partition/offset that the answer must reflect; repeatable.")
]
WaitSeconds = Annotated[float, Query(ge=0, le=30)]


def create_app(store: Store, projector: Projector, checks: dict[str, Check]) -> FastAPI:
    """Return TruthCore's HTTP interface."""
    app = FastAPI(title="TruthCore", version=__version__, openapi_url=None)
    add_problem_handlers(app)

    async def asked(
        min_position: list[str] | None, wait_seconds: float, work: Callable[[duckdb.DuckDBPyConnection], T]
    ) -> T:
        """Answer from a cursor of its own, off the event loop, once the wanted positions are reflected."""
        await _wait(projector, min_position or [], wait_seconds)

        def answer() -> T:
            cursor = store.connection.cursor()
            try:
                return work(cursor)
            finally:
                cursor.close()

        return await anyio.to_thread.run_sync(answer)

    _add_jobs(app, projector, asked)
    _add_events(app, projector, asked)
    _add_truths(app, projector, asked)
    _add_audit(app, projector, asked)
    app.router.routes.extend(health_routes("truthcore", checks))
    return app


Asked = Callable[[list[str] | None, float, Callable[[duckdb.DuckDBPyConnection], Any]], Awaitable[Any]]


async def _wait(projector: Projector, texts: list[str], wait_seconds: float) -> None:
    wanted: dict[Partition, int] = {}
    for text in texts:
        try:
            position = parse_position(text)
        except PositionInvalid as error:
            raise refused("request_invalid", str(error), field="min_position", found=text) from error
        place = (position.topic, position.partition)
        if place not in projector.positions:
            known = f"Expected a partition of the log, but found {text[:200]}."
            raise refused("request_invalid", known, field="min_position", found=text)
        wanted[place] = max(wanted.get(place, 0), position.offset)
    if wanted and not await projector.reached(wanted, wait_seconds):
        text = f"Expected the projection to reach {', '.join(texts)[:300]} within {wait_seconds:g} s, but it did not."
        raise refused("projection_behind", text, field="min_position")


def _missing(what: str, name: str) -> Refused:
    return refused("not_found", f"Expected {what} {name[:200]!r}, but the log does not know it.", found=name)


def _add_jobs(app: FastAPI, projector: Projector, asked: Asked) -> None:
    @app.get("/v1/jobs")
    async def jobs(
        request: Request,
        limit: Limit = 50,
        cursor: str | None = None,
        min_position: MinPosition = None,
        wait_seconds: WaitSeconds = 5.0,
    ) -> models.JobsAnswer:
        filters = {name: request.query_params.get(name) for name in queries._FILTERS}  # noqa: SLF001 -- the same module family
        reflects = projector.reflects()
        try:
            page, following = await asked(
                min_position, wait_seconds, lambda c: queries.job_page(c, filters, limit, cursor)
            )
        except duckdb.ConversionException as error:
            raise refused(
                "request_invalid", f"Expected a cursor of an earlier page, but found {cursor!r}.", field="cursor"
            ) from error
        return models.JobsAnswer(jobs=page, next_cursor=following, reflects=reflects)

    @app.get("/v1/jobs/{job_id:path}/events")
    async def job_events(
        job_id: str, min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0
    ) -> models.EventsAnswer:
        reflects = projector.reflects()
        events = await asked(min_position, wait_seconds, lambda c: queries.job_events(c, job_id))
        if not events:
            raise _missing("a job", job_id)
        return models.EventsAnswer(events=events, next_cursor=None, reflects=reflects)

    @app.get("/v1/jobs/{job_id:path}")
    async def job(job_id: str, min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0) -> models.JobAnswer:
        found = await asked(min_position, wait_seconds, lambda c: queries.job_views(c, [job_id], details=True))
        if not found:
            raise _missing("a job", job_id)
        return models.JobAnswer(job=found[0], reflects=projector.reflects())

    @app.get("/v1/runners")
    async def runners(min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0) -> models.RunnersAnswer:
        reflects = projector.reflects()
        return models.RunnersAnswer(
            runners=await asked(min_position, wait_seconds, queries.runner_views), reflects=reflects
        )


def _add_events(app: FastAPI, projector: Projector, asked: Asked) -> None:
    async def page(
        filters: dict[str, str | None],
        limit: int,
        cursor: str | None,
        min_position: list[str] | None,
        wait_seconds: float,
    ) -> models.EventsAnswer:
        if cursor and not (cursor.isdecimal() and len(cursor) < 12):
            raise refused(
                "request_invalid", f"Expected a cursor of an earlier page, but found {cursor[:100]!r}.", field="cursor"
            )
        after = int(cursor or 0)
        reflects = projector.reflects()
        events, following = await asked(
            min_position, wait_seconds, lambda c: queries.event_page(c, filters, limit, after)
        )
        return models.EventsAnswer(events=events, next_cursor=following, reflects=reflects)

    @app.get("/v1/events")
    async def events(
        topic: str | None = None, event_type: str | None = None, correlation_id: str | None = None, limit: Limit = 50,
        cursor: str | None = None, min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0,
    ) -> models.EventsAnswer:  # fmt: skip
        filters = {"topic": topic, "event_type": event_type, "correlation_id": correlation_id}
        return await page(filters, limit, cursor, min_position, wait_seconds)

    @app.get("/v1/deadletters")
    async def dead_letters(
        limit: Limit = 50, cursor: str | None = None, min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0
    ) -> models.EventsAnswer:
        return await page({"topic": "controlplane.deadletters"}, limit, cursor, min_position, wait_seconds)

    @app.get("/v1/events/{topic}/{partition}/{offset}")
    async def event(
        topic: str, partition: Annotated[int, PathField(ge=0, lt=2**31)], offset: Annotated[int, PathField(ge=0, lt=2**63)],
        min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0,
    ) -> dict[str, Any]:  # fmt: skip
        reflects = projector.reflects()
        found = await asked(min_position, wait_seconds, lambda c: queries.event_at(c, topic, partition, offset))
        if found is None:
            raise _missing("a record", f"{topic}/{partition}/{offset}")
        return {"event": found, "reflects": reflects}

    @app.get("/v1/causation")
    async def causation(
        event: str | None = None, job: str | None = None, assertion: str | None = None,
        min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0,
    ) -> models.CausationAnswer:  # fmt: skip
        reference = event or assertion
        if (reference is None) == (job is None):
            raise refused("request_invalid", "Expected exactly one of event, job and assertion.", field="event")

        def work(cursor: duckdb.DuckDBPyConnection) -> models.CausationAnswer:
            found = queries.submission_of(cursor, job) if job else queries.find_event(cursor, str(reference))
            if found is None:
                raise _missing("a job" if job else "a record", str(job or reference))
            return models.CausationAnswer(
                chain=queries.chain(cursor, found), tree=queries.effects(cursor, found), reflects=projector.reflects()
            )

        answer: models.CausationAnswer = await asked(min_position, wait_seconds, work)
        return answer


def _add_truths(app: FastAPI, projector: Projector, asked: Asked) -> None:
    @app.get("/v1/truths")
    async def truths(
        subject: str = "*", predicate: str = "*", min_confidence: Annotated[float, Query(ge=0, le=1)] = 0.0,
        as_of: datetime | None = None, valid_at: datetime | None = None, limit: Limit = 100, cursor: str | None = None,
        min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0,
    ) -> models.TruthsAnswer:  # fmt: skip
        reflects = projector.reflects()
        found, following = await asked(
            min_position, wait_seconds,
            lambda c: truth_page(
                c, subject=subject, predicate=predicate, min_confidence=min_confidence, as_of=as_of, valid_at=valid_at,
                limit=limit, after=cursor,
            ),
        )  # fmt: skip
        return models.TruthsAnswer(truths=found, next_cursor=following, reflects=reflects)


def _add_audit(app: FastAPI, projector: Projector, asked: Asked) -> None:
    @app.get("/v1/digest")
    async def digests(min_position: MinPosition = None, wait_seconds: WaitSeconds = 30.0) -> models.DigestAnswer:
        await _wait(projector, min_position or [], wait_seconds)
        positions = dict(projector.positions)
        tables = await asked(None, 0.0, lambda cursor: digest(cursor, positions))
        return models.DigestAnswer(tables=tables, reflects=projector.reflects(positions))

    @app.post("/v1/sql")
    async def sql(
        body: models.SqlRequest, min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0
    ) -> models.SqlAnswer:
        reflects = projector.reflects()
        columns, rows, truncated = await asked(min_position, wait_seconds, lambda cursor: select(cursor, body))
        return models.SqlAnswer(columns=columns, rows=rows, truncated=truncated, reflects=reflects)


def select(cursor: duckdb.DuckDBPyConnection, body: models.SqlRequest) -> tuple[list[str], list[list[Any]], bool]:
    """Run one SELECT with limits on its time and its rows; files, extensions and settings are out of its reach.

    Raises:
        Refused: it is not one SELECT, it is wrong, or it took too long.
    """
    timer = threading.Timer(SQL_SECONDS, cursor.interrupt)
    try:
        statements = cursor.extract_statements(body.sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise refused("request_invalid", "Expected one SELECT statement, but found something else.", field="sql")
        timer.start()
        cursor.execute(statements[0])
        found = cursor.fetchmany(body.limit_rows + 1)
    except duckdb.InterruptException as error:
        raise refused(
            "query_limit", f"Expected the query to end within {SQL_SECONDS:g} s, but it did not.", field="sql"
        ) from error
    except duckdb.Error as error:
        raise refused(
            "request_invalid", f"Expected a query that can be run, but: {str(error)[:1000]}", field="sql"
        ) from error
    finally:
        timer.cancel()
    columns = [column[0] for column in cursor.description or []]
    rows = [[_plain(value) for value in row] for row in found[: body.limit_rows]]
    return columns, rows, len(found) > body.limit_rows


def _plain(value: Any) -> Any:
    match value:
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case None | str() | int() | float() | bool():
            return value if not isinstance(value, float) or math.isfinite(value) else str(value)
        case datetime():
            return f"{value.isoformat()}Z"
        case _:
            return str(value)
