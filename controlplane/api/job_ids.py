"""Which ids a new job may have: one that ends like a path below a job would be taken for that path of another job."""

from typing import Final

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

RESERVED_ENDINGS: Final = (
    "/cancel", "/events", "/events/stream", "/logs", "/opened", "/reprioritise", "/result", "/retry",
)  # fmt: skip
"""What follows `/v1/jobs/{job_id}`. Ids may hold slashes, and a slash that is written %2F is one as well."""
EXPECTED: Final = f"a job id that does not end in one of {', '.join(RESERVED_ENDINGS)}: they name what belongs to a job"


def reserved_ending(job_id: str) -> str | None:
    """Return the ending of an id that no new job may have, or None."""
    return next((ending for ending in RESERVED_ENDINGS if job_id.endswith(ending)), None)


def _free(job_id: str) -> str:
    if (ending := reserved_ending(job_id)) is not None:
        raise PydanticCustomError("job_id_reserved", "Input should be {expected}", {"expected": EXPECTED, "ending": ending})  # fmt: skip
    return job_id


FREE: Final = AfterValidator(_free)
"""Refuses such an id where a job is taken in; a job that was written straight to the log keeps it."""
