"""As of a moment, every question has the answer that a fold gives which stopped there."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, Final

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.api.models import SqlRequest
from controlplane.events import types
from controlplane.events.catalog import EVENT_TYPES, record_key
from controlplane.events.codec import encode
from controlplane.events.types import LogPosition
from controlplane.events.values import typed_value
from controlplane.log.positions import Partition, position_text
from controlplane.truthcore_projector import queries
from controlplane.truthcore_projector.cursors import Cursor
from controlplane.truthcore_projector.decode import Decoder
from controlplane.truthcore_projector.digest import digest
from controlplane.truthcore_projector.impact import impacts, reach
from controlplane.truthcore_projector.lineage import page, walk
from controlplane.truthcore_projector.lineage_links import Looker
from controlplane.truthcore_projector.moments import AsOf, bounds, moment
from controlplane.truthcore_projector.past import as_it_was
from controlplane.truthcore_projector.sql import select
from controlplane.truthcore_projector.store import Store
from controlplane.truthcore_projector.truths import Wanted, truth_page
from tests.unit.truthcore_projector.stories import START_SECONDS, header

JOBS: Final = ("a", "b", "c")
STEPS: Final = (
    "submitted", "accepted", "routed", "started", "progressed", "succeeded", "completed", "failed", "said", "retracted", "trusted",
    "registered", "beat", "logged", "garbage",
)  # fmt: skip
FAULT: Final = types.ErrorEnvelope(
    error_id="e", category=types.Category.EXECUTION, severity=types.Severity.ERROR, code="handler_failed", message="It failed.",
    retryable=False, contract_version=types.ContractVersion(major=1, minor=0, patch=0),
)  # fmt: skip


def event(step: str, job: str, number: int, cause: LogPosition | None) -> Any:  # noqa: C901 -- a table of cases
    """Return the event of a step; `number` tells two of one kind apart."""
    lease: dict[str, Any] = {
        "job_id": job,
        "attempt_id": f"{job}-{number % 2}",
        "attempt_number": number % 2 + 1,
        "runner_id": "r",
    }

    def made(name: str, /, **fields: Any) -> Any:
        return getattr(types, name)(header=header(name, f"{job}/{number}", cause), **fields)

    source = types.Source(kind=types.SourceKind.CLIENT, name=f"source-{number % 2}")
    match step:
        case "submitted":
            parent = types.ParentJob(job_id="a", attempt_id="a-0") if job != "a" else None
            return made(
                "JobSubmitted", job_id=job, job_type="measure", payload=types.Content(data=b"{}"), parent=parent
            )
        case "accepted":
            return made("JobAccepted", job_id=job, job_type="measure", pool="default", priority=5)
        case "routed":
            return made(
                "JobRouted", **lease, job_type="measure", contract_major=1, payload=types.Content(data=b"{}"), pool="default",
                priority=5, job_partition=0, lease_seconds=6.0, queued_at=0, reason="free",
            )  # fmt: skip
        case "started":
            return made("AttemptStarted", **lease)
        case "progressed":
            return made("AttemptProgressed", **lease, fraction=number / 100, message=str(number))
        case "logged":
            return made("JobLogged", job_id=job, attempt_id=lease["attempt_id"], dropped=number)
        case "succeeded":
            return made(
                "AttemptSucceeded", **lease, result=types.Content(data=b"{}"), capability="m@1.0.0", runner_name="r"
            )
        case "completed":
            return made("JobCompleted", **lease, result=types.Content(data=b"1"))
        case "failed":
            return made("JobFailed", **lease, error=FAULT)
        case "said":
            evidence = types.Evidence(
                job_id=job, attempt_id=lease["attempt_id"], inputs=() if cause is None else (position_text(cause),)
            )
            return made(
                "TruthAsserted", subject=f"thing:{job}", predicate="width", object=typed_value(number % 3), confidence=0.9,
                source=source, evidence=evidence,
            )  # fmt: skip
        case "retracted":
            name = header("TruthAsserted", f"{job}/{number - 1}").event_id
            return made("TruthRetracted", subject=f"thing:{job}", assertion_id=name, source=source)
        case "trusted":
            return made(
                "SourceDeclared", subject=f"source:{source.name}", source_name=source.name, reliability=number / 100
            )
        case "registered":
            return made(
                "RunnerRegistered",
                runner_id="r",
                name="r",
                pool="default",
                slots=number,
                inbox_partition=0,
                heartbeat_seconds=2.0,
            )
        case _:
            return made("RunnerHeartbeat", runner_id="r", attempt_ids=(), sequence=number)


Log = dict[Partition, list[Any]]


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """A log of every topic, two partitions each; causes are any earlier record, append times may stand still or run back."""
    log: Log = {}
    places: list[LogPosition] = []
    clock = START_SECONDS
    told = draw(
        st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from(JOBS), st.integers(0, 99)), min_size=8, max_size=30)
    )
    for number, (step, job, cause) in enumerate(told):
        one = event(step, job, number, places[cause % len(places)] if places else None)
        topic, key = EVENT_TYPES[type(one).__name__].topic.name, record_key(one)
        records = log.setdefault((topic, sum(key) % 2), [])
        clock += draw(st.sampled_from([-2, 0, 1, 1, 3]))
        value = b"?" if step == "garbage" else encode(one)
        records.append(
            SimpleNamespace(topic=topic, partition=sum(key) % 2, offset=len(records), timestamp=clock * 1000, key=key, value=value)
        )  # fmt: skip
        places.append(LogPosition(topic=topic, partition=sum(key) % 2, offset=len(records) - 1))
    return log


def before(log: Log, as_of: AsOf) -> Log:
    """Return what was known, by the definition: of each partition the longest prefix appended by then, or up to an offset."""
    known: Log = {}
    for place, records in log.items():
        kept = known.setdefault(place, [])
        for one in records:
            when = datetime.fromtimestamp(one.timestamp / 1000, UTC)
            if when > as_of if isinstance(as_of, datetime) else one.offset > as_of.get(place, one.offset):
                break
            kept.append(one)
    return known


@contextmanager
def folded(log: Log, chance: random.Random) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a cursor on a projection of a log, its partitions interleaved and its batches cut by chance."""
    store, decoder = Store(":memory:"), Decoder()
    done = dict.fromkeys(log, 0)
    try:
        while going := [place for place in log if done[place] < len(log[place])]:
            place = chance.choice(going)
            end = chance.randint(done[place] + 1, len(log[place]))
            store.write(decoder.decode(log[place][done[place] : end]), {place: end})
            done[place] = end
        with store.snapshot() as cursor:
            yield cursor
    finally:
        decoder.close()
        store.close()


def graph(cursor: Cursor, as_of: AsOf | None, root: tuple[str, str]) -> Any:
    return page(walk(Looker(cursor, bounds(cursor, as_of)), [root], "both"), 1000, 0)


def causes(cursor: Cursor) -> Any:
    found = [queries.submission_of(cursor, job) for job in JOBS]
    return [(queries.chain(cursor, one), queries.effects(cursor, one)) for one in found if one is not None]


def impact(cursor: Cursor, as_of: AsOf | None) -> Any:
    at = moment(cursor, as_of, datetime(2100, 1, 1, tzinfo=UTC))
    reached = reach(cursor, "source-1", at.known)
    return reached, impacts(cursor, "source-1", reached, at, 100, None)


SQL: Final = SqlRequest(
    sql="WITH mine AS (SELECT * FROM jobs) SELECT job_id, phase, attempts FROM mine ORDER BY job_id;  -- and that is all"
)
HOLDS: Final = datetime(2100, 1, 1, tzinfo=UTC)

# Each takes a cursor on everything and a moment, or a cursor on what was known then and none.
QUESTIONS: Final[dict[str, Callable[[Any, AsOf | None], Any]]] = {
    "jobs": lambda c, at: queries.job_page(as_it_was(c, at), {}, 100, None),
    "some jobs": lambda c, at: queries.job_page(as_it_was(c, at), {"phase": "COMPLETED"}, 100, None),
    "job": lambda c, at: queries.job_views(as_it_was(c, at), JOBS, details=True),
    "job events": lambda c, at: [queries.job_event_page(as_it_was(c, at), job, 1000)[0] for job in JOBS],
    "events": lambda c, at: queries.event_page(as_it_was(c, at), {}, 100, None),
    "event": lambda c, at: queries.event_at(as_it_was(c, at), "controlplane.truth", 0, 2),
    "causation": lambda c, at: causes(as_it_was(c, at)),
    "runners": lambda c, at: queries.runner_views(as_it_was(c, at)),
    "truths": lambda c, at: truth_page(c, Wanted(), moment(c, at, HOLDS), 100),
    "lineage": lambda c, at: [graph(c, at, ("job", job)) for job in JOBS],
    "lineage of a source": lambda c, at: graph(c, at, ("source", "source-0")),
    "impact": impact,
    "sql": lambda c, at: select(c, SQL, bounds(c, at)),
}

moments = st.integers(-3, 30).map(lambda one: datetime.fromtimestamp(START_SECONDS, UTC) + timedelta(seconds=one))
places = st.dictionaries(
    st.tuples(st.sampled_from([f"controlplane.{one}" for one in ("submissions", "progress", "jobs", "truth", "runners")]), st.integers(0, 1)),
    st.integers(0, 6), max_size=6,
)  # fmt: skip


@given(log=logs(), as_of=moments | places, seed=st.integers(0, 2**32))
@settings(max_examples=20)
def test_as_of_a_moment_is_a_fold_that_stopped_there(log: Log, as_of: AsOf, seed: int) -> None:
    known = before(log, as_of)
    with folded(log, random.Random(seed)) as everything, folded(known, random.Random(seed + 1)) as then:
        for name, ask in QUESTIONS.items():
            assert ask(everything, as_of) == ask(then, None), name
        ends = {place: len(records) for place, records in known.items()}
        assert digest(everything, ends) == digest(then, ends)


@pytest.mark.parametrize("statement", ["SELECT 1) AS a, (SELECT 2", "SELECT 1; SELECT 2", "DELETE FROM jobs"])
def test_what_is_no_select_by_itself_is_none_in_the_past(statement: str) -> None:
    with folded({}, random.Random(0)) as cursor, pytest.raises(Exception, match="Expected"):
        select(cursor, SqlRequest(sql=statement), {("controlplane.jobs", 0): 1})
