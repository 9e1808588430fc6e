"""What schemathesis does not know by itself: how lines of JSON are sent, and when an answer 503 is the truth."""

from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines_of_json(ctx: Any, value: Any) -> bytes:
    """Return a generated body as it is."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


@schemathesis.check
def nothing_is_unavailable(ctx: Any, response: Any, case: Any) -> None:
    """Everything is up while it is fuzzed: only a position that is not there yet can be waited for in vain."""
    if response.status_code == 503:
        asked = (case.query or {}).get("min_position")
        assert asked, "Expected no answer 503 while everything is up, but found one to a request without min_position."
        code = response.json()["code"]
        assert code == "projection_behind", f"Expected the code projection_behind, but found {code}."
