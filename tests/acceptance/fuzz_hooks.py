"""What schemathesis does not know by itself: how lines of JSON are sent, when an answer 503 is the truth, and what no schema can say."""

import re
from typing import Any, Final
from zlib import crc32

import schemathesis
from schemathesis.specs.openapi.checks import is_unexpected_http_status_case

ONE_OF: Final = {
    "/v1/causation": ("event", "job", "assertion"),
    "/v1/lineage": ("assertion", "job", "event", "source", "subject"),
    "/v1/truths/changes": ("since", "after"),
}
"""Parameters of which a request has one; a schema can only say that each may be absent."""

UNSAYABLE: Final = {
    # A moment or positions of the log, a place that an earlier answer gave: formats with a meaning.
    r"GET /v1/.*": {"as_of", "from", "to", "since", "after", "cursor", "Last-Event-ID"},
    # Numbers that JSON can hold; a key that was not forgotten; what the runners of a job type declared.
    r"POST /v1/jobs": {"body", "secret", "payload"},
    # The same, and an expression that some time fulfils in a zone that there is.
    r"PUT /v1/schedules/.*": {"body", "secret", "payload", "cron"},
    r"POST /v1/assertions": {"value", "valid_to"},  # A value of the kind beside it; an end after the beginning.
    r"POST /v1/bulk": {"priority"},  # To reprioritise with.
    # One SELECT statement, over tables that there are; more rows than JSON is given for only as Arrow or Parquet.
    r"POST /v1/sql": {"as_of", "sql", "limit_rows"},
}
"""Of valid requests, the fields for which they are refused all the same."""
REGISTRY: Final = re.compile(r"/(subjects|config|mode|compatibility)(/.*)?")
REGISTRY_CODES: Final = (42201, 42205)
"""A schema is Avro and not any text; writes are refused."""


@schemathesis.serializer("application/x-ndjson")
def lines_of_json(ctx: Any, value: Any) -> bytes:
    """Return a generated body as it is."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


def _valid(case: Any) -> bool:
    return case.meta is not None and case.meta.generation.mode.is_positive and not is_unexpected_http_status_case(case)


@schemathesis.hook
def before_call(ctx: Any, case: Any, kwargs: Any) -> None:
    """Make what counts as valid so, so that what lies behind the first check is reached."""
    if _valid(case):
        _resume(case)
        if names := ONE_OF.get(case.operation.path):
            _choose(case, names)


def _resume(case: Any) -> None:
    """Give a place to resume from: 0 is what schemathesis finds when it gives up on this header's pattern."""
    if case.headers and case.headers.get("Last-Event-ID") == "0":
        case.headers["Last-Event-ID"] = "submissions:0=0"


def _choose(case: Any, names: tuple[str, ...]) -> None:
    """Leave one of the parameters that exclude each other."""
    query = dict(case.query or {})
    given = [name for name in names if name in query] or ["job" if "job" in names else "since"]
    kept = given[crc32(repr(sorted(query)).encode()) % len(given)]
    query.setdefault(kept, "")
    for name in names:
        if name != kept:
            query.pop(name, None)
    if "subject" in names:
        if kept == "subject":
            query.setdefault("predicate", "width")
        else:
            query.pop("predicate", None)
    case.query = query


@schemathesis.check
def nothing_is_unavailable(ctx: Any, response: Any, case: Any) -> None:
    """Everything is up while it is fuzzed: only a position that is not there yet can be waited for in vain."""
    if response.status_code == 503:
        asked = (case.query or {}).get("min_position")
        assert asked, "Expected no answer 503 while everything is up, but found one to a request without min_position."
        code = response.json()["code"]
        assert code == "projection_behind", f"Expected the code projection_behind, but found {code}."


@schemathesis.check
def a_valid_request_is_refused_for_what_no_schema_says(ctx: Any, response: Any, case: Any) -> None:
    """Whatever else the schema allows is taken."""
    if response.status_code not in {410, 422} or not _valid(case):
        return
    problem = response.json()
    if REGISTRY.fullmatch(case.operation.path):
        assert problem["error_code"] in REGISTRY_CODES, f"Expected one of {REGISTRY_CODES}, but found {problem}."
        return
    if response.status_code == 410:
        assert problem["code"] == "content_forgotten", f"Expected the code content_forgotten, but found {problem}."
    name = f"{case.method.upper()} {case.operation.path}"
    fields = set().union(*(fields for pattern, fields in UNSAYABLE.items() if re.fullmatch(pattern, name)))
    assert problem.get("field") in fields, (
        f"Expected a valid request to be taken, or one of {fields} refused, but: {problem}"
    )
