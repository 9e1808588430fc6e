"""The queries over HTTP: the read paths of the gateway, served by the process that owns the database."""

from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi import Path as PathField
from fastapi.responses import Response

from controlplane import __version__
from controlplane.api import models
from controlplane.api.problems import add_problem_handlers, problem_response, refused
from controlplane.events.errors import envelope
from controlplane.telemetry.health import Check, health_routes, process_metrics
from controlplane.telemetry.requests import FRAMEWORKS_OWN, Measured, RequestMeasures
from controlplane.truthcore_projector import queries
from controlplane.truthcore_projector.answering import Answering
from controlplane.truthcore_projector.archive import ArchiveDamaged
from controlplane.truthcore_projector.asking import (
    Asked,
    AsOfText,
    Limit,
    MinPosition,
    WaitSeconds,
    as_of_from,
    cursor_from,
    missing,
)
from controlplane.truthcore_projector.cursors import Cursor
from controlplane.truthcore_projector.formats import AS_TABLES, Format, table_response, wanted_format
from controlplane.truthcore_projector.http_activity import add_activity
from controlplane.truthcore_projector.http_archive import add_archive
from controlplane.truthcore_projector.http_audit import add_audit
from controlplane.truthcore_projector.http_feed import add_feed
from controlplane.truthcore_projector.http_lineage import add_lineage
from controlplane.truthcore_projector.http_results import add_results
from controlplane.truthcore_projector.http_scheduling import add_scheduling
from controlplane.truthcore_projector.http_snapshots import add_snapshots
from controlplane.truthcore_projector.http_truths import add_truths
from controlplane.truthcore_projector.measures import ProjectionMeasures
from controlplane.truthcore_projector.moments import bounds
from controlplane.truthcore_projector.parts import add_parts
from controlplane.truthcore_projector.peers import Peers
from controlplane.truthcore_projector.projector import Projector
from controlplane.truthcore_projector.snapshots import Snapshots
from controlplane.truthcore_projector.sql import Turns, select, select_table
from controlplane.truthcore_projector.store import Store
from controlplane.truthcore_projector.visibility import TenantsOfRequest

EventCursor = Annotated[
    str | None, Query(pattern=queries.EVENT_CURSOR, description="`next_cursor` of the page before.")
]


def create_app(
    store: Store, projector: Projector, checks: dict[str, Check], peers: Peers | None = None, *, snapshots: Snapshots | None = None, lease_seconds: float = 6.0
) -> FastAPI:  # fmt: skip
    """Return TruthCore's HTTP interface."""
    app = FastAPI(title="TruthCore", version=__version__, openapi_url=None, telemetry=FRAMEWORKS_OWN)
    add_problem_handlers(app)
    app.add_exception_handler(ArchiveDamaged, _on_damage)
    app.add_middleware(TenantsOfRequest)

    asked = Answering(store, projector, peers)
    add_results(app, asked, projector)  # Before the jobs: an id may hold a slash, so the first route that fits wins.
    _add_jobs(app, asked)
    add_scheduling(app, asked, projector, lease_seconds)
    add_activity(app, asked)
    _add_events(app, asked)
    add_feed(app, asked, projector)
    add_truths(app, asked)
    add_lineage(app, asked)
    add_audit(app, asked, projector, store)
    _add_sql(app, asked, projector)
    add_parts(app, store, projector)
    if snapshots is not None:
        add_snapshots(app, snapshots)
        add_archive(app, store)
    metrics = process_metrics()
    ProjectionMeasures(metrics).watch(projector)
    app.add_middleware(Measured, measures=RequestMeasures(metrics))
    app.router.routes.extend(health_routes("truthcore", checks, metrics))
    return app


async def _on_damage(request: Request, fault: Exception) -> Response:
    return problem_response(envelope("content_corrupt", str(fault)), 500, request.url.path)


def _add_jobs(app: FastAPI, asked: Asked) -> None:
    @app.get("/v1/jobs")
    async def jobs(
        job_type: str | None = None, phase: models.Phase | None = None, pool: str | None = None, tenant: str | None = None,
        correlation_id: str | None = None, parent_job_id: str | None = None,
        search: Annotated[str | None, Query(max_length=200, description="Part of the id, type, correlation id or error.")] = None,
        limit: Limit = 50, cursor: Annotated[str | None, Query(pattern=queries.JOB_CURSOR)] = None, as_of: AsOfText = None,
        min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0,
    ) -> models.JobsAnswer:  # fmt: skip
        """Return a page of jobs, the newest first."""
        after = cursor_from(queries.job_cursor, cursor)
        filters = {
            "job_type": job_type, "phase": phase, "pool": pool, "tenant": tenant, "correlation_id": correlation_id,
            "parent_job_id": parent_job_id, "search": search,
        }  # fmt: skip
        (page, following), reflects = await asked(
            min_position, wait_seconds, lambda c: queries.job_page(c, filters, limit, after), as_of
        )
        return models.JobsAnswer(jobs=page, next_cursor=following, reflects=reflects)

    @app.get("/v1/jobs/{job_id:path}/events")
    async def job_events(
        job_id: str, event_type: Annotated[list[str] | None, Query(max_length=100, description="Only these types.")] = None,
        limit: Limit = 1000, cursor: EventCursor = None, as_of: AsOfText = None, min_position: MinPosition = None,
        wait_seconds: WaitSeconds = 5.0,
    ) -> models.EventsAnswer:  # fmt: skip
        """Return a page of a job's records, the oldest first."""
        after = cursor_from(queries.event_cursor, cursor)

        def work(cursor: Cursor) -> tuple[list[models.EventView], str | None]:
            page, following = queries.job_event_page(cursor, job_id, limit, after, event_type or ())
            if not page and not ((after or event_type) and queries.job_event_page(cursor, job_id, 1)[0]):
                raise missing("a job", job_id)
            return page, following

        (events, following), reflects = await asked(min_position, wait_seconds, work, as_of)
        return models.EventsAnswer(events=events, next_cursor=following, reflects=reflects)

    @app.get("/v1/runners")
    async def runners(
        as_of: AsOfText = None, min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0
    ) -> models.RunnersAnswer:
        found, reflects = await asked(min_position, wait_seconds, queries.runner_views, as_of)
        return models.RunnersAnswer(runners=found, reflects=reflects)


def _add_events(app: FastAPI, asked: Asked) -> None:
    async def page(
        filters: dict[str, str | None],
        limit: int,
        cursor: str | None,
        as_of: str | None,
        min_position: list[str] | None,
        wait_seconds: float,
    ) -> models.EventsAnswer:
        after = cursor_from(queries.event_cursor, cursor)
        (events, following), reflects = await asked(
            min_position, wait_seconds, lambda c: queries.event_page(c, filters, limit, after), as_of
        )
        return models.EventsAnswer(events=events, next_cursor=following, reflects=reflects)

    @app.get("/v1/events")
    async def events(
        topic: str | None = None, event_type: str | None = None, correlation_id: str | None = None, limit: Limit = 50,
        cursor: EventCursor = None, as_of: AsOfText = None, min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0,
    ) -> models.EventsAnswer:  # fmt: skip
        filters = {"topic": topic, "event_type": event_type, "correlation_id": correlation_id}
        return await page(filters, limit, cursor, as_of, min_position, wait_seconds)

    @app.get("/v1/deadletters")
    async def dead_letters(
        limit: Limit = 50, cursor: EventCursor = None, as_of: AsOfText = None, min_position: MinPosition = None,
        wait_seconds: WaitSeconds = 5.0,
    ) -> models.EventsAnswer:  # fmt: skip
        after = cursor_from(queries.event_cursor, cursor)
        (events, following), reflects = await asked(
            min_position, wait_seconds, lambda c: queries.dead_letter_page(c, limit, after), as_of
        )
        return models.EventsAnswer(events=events, next_cursor=following, reflects=reflects)

    @app.get("/v1/events/{topic}/{partition}/{offset}")
    async def event(
        topic: str, partition: Annotated[int, PathField(ge=0, lt=2**31)], offset: Annotated[int, PathField(ge=0, lt=2**63)],
        as_of: AsOfText = None, min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0,
    ) -> models.EventAnswer:  # fmt: skip
        found, reflects = await asked(
            min_position, wait_seconds, lambda c: queries.event_at(c, topic, partition, offset), as_of
        )
        if found is None:
            raise missing("a record", f"{topic}/{partition}/{offset}")
        return models.EventAnswer(event=found, reflects=reflects)

    @app.get("/v1/causation")
    async def causation(
        event: str | None = None, job: str | None = None, assertion: str | None = None,
        as_of: AsOfText = None, min_position: MinPosition = None, wait_seconds: WaitSeconds = 5.0,
    ) -> models.CausationAnswer:  # fmt: skip
        given = [one for one in (event, assertion, job) if one is not None]
        if len(given) != 1:
            raise refused("request_invalid", "Expected exactly one of event, job and assertion.", field="event")

        def work(cursor: Cursor) -> tuple[list[models.EventView], models.CausationNode]:
            (name,) = given
            found = queries.find_event(cursor, name) if job is None else queries.submission_of(cursor, name)
            if found is None:
                raise missing("a record" if job is None else "a job", name)
            return queries.chain(cursor, found), queries.effects(cursor, found)

        (chain, tree), reflects = await asked(min_position, wait_seconds, work, as_of)
        return models.CausationAnswer(chain=chain, tree=tree, reflects=reflects)


def _add_sql(app: FastAPI, asked: Asked, projector: Projector) -> None:
    turns = Turns()

    @app.post("/v1/sql", response_model=models.SqlAnswer, responses=AS_TABLES)
    async def sql(
        request: Request, body: models.SqlRequest, as_of: AsOfText = None, min_position: MinPosition = None,
        wait_seconds: WaitSeconds = 5.0, format: Format | None = None,  # noqa: A002 -- its name in the URL
    ) -> models.SqlAnswer | Response:  # fmt: skip
        known, form = as_of_from(as_of), wanted_format(request, format)
        # Nobody waits for the log in a turn that others wait for.
        await projector.wait_for(min_position or (), wait_seconds)
        async with turns.one():
            if form != "json":
                (table, truncated), reflects = await asked(
                    min_position, wait_seconds, lambda cursor: select_table(cursor, body, bounds(cursor, known))
                )
                return table_response(table, form, reflects, truncated=truncated)
            (columns, rows, truncated), reflects = await asked(
                min_position, wait_seconds, lambda cursor: select(cursor, body, bounds(cursor, known))
            )
            return models.SqlAnswer(columns=columns, rows=rows, truncated=truncated, reflects=reflects)
