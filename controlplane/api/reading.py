"""What every read takes: the position that its answer has to reflect, and how long it may wait for that."""

from typing import Annotated, Final

from fastapi import Query

WAIT_LIMIT_SECONDS: Final = 30.0
POSITION_PATTERN: Final = r"^controlplane\.[a-z]{1,20}/\d{1,6}/\d{1,18}$"

MinPosition = Annotated[
    list[Annotated[str, Query(pattern=POSITION_PATTERN)]] | None,
    Query(
        description="topic/partition/offset that the answer must reflect; repeatable.",
        max_length=100,
        examples=[["controlplane.submissions/3/1042"]],
    ),
]
WaitSeconds = Annotated[
    float, Query(ge=0, le=WAIT_LIMIT_SECONDS, description="How long the answer may wait for what it must reflect.")
]
