"""One job from its rows is what the views say of it, whatever rows there are and in whatever order they came."""

import random
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from controlplane.truthcore_projector import queries
from controlplane.truthcore_projector.store import Store
from controlplane.truthcore_projector.tables import stored

JOBS: Final = [f"job-{number}" for number in range(6)]
STAGES: Final = ("ROUTED", "STARTED", "PROGRESSED", "SUCCEEDED", "FAILED", "CANCELLED", "LOST", "RETRYING")
BEGUN: Final = datetime(2026, 1, 1)  # noqa: DTZ001 -- as the tables hold it


def filled(seed: int) -> Store:
    """Return a projection with rows drawn from a seed, also such as no service would write."""
    chance, store = random.Random(seed), Store(":memory:")
    run = store.connection.execute

    def insert(table: str, **values: Any) -> None:
        marks = ", ".join("?" * len(values))
        columns = ", ".join(f'"{name}"' for name in values)
        run(f"INSERT INTO {stored(table)} ({columns}) VALUES ({marks})", list(values.values()))

    for offset in range(150):
        job, moment = chance.choice(JOBS), BEGUN + timedelta(seconds=chance.randint(0, 30))
        row: dict[str, Any] = {"topic": "t", "partition": 0, "offset": offset, "log_time": moment, "job_id": job}
        match chance.randint(0, 9):
            case 0 | 1:
                due = chance.choice((None, moment - timedelta(seconds=1), moment + timedelta(seconds=1)))
                insert("submissions", **row, job_type=f"type-{offset}", pool="p", priority=offset % 10, tenant="acme", correlation_id="c", not_before=due, payload=b"1")  # fmt: skip
            case 2 if chance.random() < 0.3:
                phase = chance.choice(sorted(queries.CONCLUDED))
                code = chance.choice((None, "handler_failed"))
                insert(
                    "conclusions",
                    **row,
                    phase=phase,
                    error_code=code,
                    error_message=code and f"message {offset}",
                    result=b"2",
                )
            case 3:
                insert("acceptances", **row)
            case 4:
                kind = chance.choice(("RETRIED", "REPRIORITISED", "CANCEL_REQUESTED", "COMMAND_REFUSED"))
                insert("job_changes", **row, kind=kind, priority=chance.choice((None, 1, 9)), retry_job_id=chance.choice((None, f"again-{offset}")), reason="")  # fmt: skip
            case _:
                number = chance.randint(1, 3)
                insert(
                    "attempt_events", **row, attempt_id=chance.choice((None, f"{job}/{number}", f"{job}/{number}")), attempt_number=number,
                    runner_id=chance.choice(("r-1", "r-2")), stage=chance.choice(STAGES), fraction=chance.choice((None, offset / 150)),
                    message=chance.choice((None, f"message {offset}")), error_code=chance.choice((None, f"code_{offset}")),
                )  # fmt: skip
    return store


@pytest.mark.parametrize("seed", range(25))
def test_a_job_is_what_the_views_say(seed: int) -> None:
    store = filled(seed)
    with closing(store.connection.cursor()) as cursor:
        views = queries.job_views(cursor, JOBS, details=True)
        names = "job_id, job_type, phase, pool, priority, tenant, submitted_at, concluded_at, retried_as, error_code, error_message"
        said = cursor.execute(f"SELECT {names} FROM jobs ORDER BY job_id").fetchall()
        steps = cursor.execute(
            "SELECT job_id, attempt_id, attempt_number, runner_id, phase, routed_at, started_at, ended_at, fraction, message, routing_reason,"
            " error_code, error_message FROM attempts ORDER BY job_id, attempt_number, routed_at, attempt_id"
        ).fetchall()
    assert [
        (one.job_id, one.job_type, one.phase, one.pool, one.priority, one.tenant, naive(one.submitted_at), naive(one.concluded_at), one.retried_as, *error(one, said))
        for one in views
    ] == said  # fmt: skip
    assert [
        (one.job_id, step.attempt_id, step.attempt_number, step.runner_id, step.phase, naive(step.routed_at), naive(step.started_at),
         naive(step.ended_at), step.fraction, step.message, step.routing_reason, step.error["code"] if step.error else None)
        for one in views for step in one.attempts
    ] == [step[:12] for step in steps if step[0] in {one.job_id for one in views}]  # fmt: skip
    store.close()


def error(view: Any, said: list[tuple[Any, ...]]) -> tuple[str | None, str | None]:
    """Return code and message; without a code a view tells no message."""
    if view.error is not None:
        return view.error["code"], view.error["message"]
    return next((None, row[10]) for row in said if row[0] == view.job_id)


def naive(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "filters", [{}, {"phase": "FAILED"}, {"phase": "RETRYING"}, {"phase": "QUEUED"}, {"search": "JOB-3"}]
)
def test_pages_of_jobs_are_the_view_in_order(seed: int, filters: dict[str, str | None]) -> None:
    store = filled(seed)
    with closing(store.connection.cursor()) as cursor:
        wanted, parameters = "true", []
        if filters:
            wanted = "phase = ?" if "phase" in filters else "contains(job_id, lower(?))"
            parameters = list(filters.values())
        query = f"SELECT job_id FROM jobs WHERE {wanted} ORDER BY submitted_at DESC, job_id DESC"
        expected = [name for (name,) in cursor.execute(query, parameters).fetchall()]
        found: list[str] = []
        following: str | None = None
        while True:
            page, following = queries.job_page(cursor, filters, 2, queries.job_cursor(following) if following else None)
            found += [one.job_id for one in page]
            if following is None:
                break
    assert found == expected
    store.close()
