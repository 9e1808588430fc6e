"""Count conclusions by outcome with Faust: `python faust_consumer.py worker --without-web`."""

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import faust

from controlplane.events.codec import decode
from controlplane.events.types import JobCancelled, JobCompleted, JobFailed, JobRejected

app = faust.App(
    "faust-example",
    broker=f"kafka://{os.environ['CONTROLPLANE_KAFKA_BOOTSTRAP']}",
    store="memory://",
    consumer_auto_offset_reset="earliest",
    topic_allow_declare=False,  # The topics are there, and Faust makes none of its own.
    topic_disable_leader=True,
    datadir=Path(tempfile.gettempdir()) / "faust-example",
)
jobs = app.topic("controlplane.jobs", value_type=bytes, value_serializer="raw", key_type=bytes, key_serializer="raw")
outcomes: Counter[str] = Counter()


@app.agent(jobs)
async def count(stream: Any) -> None:
    """Take records as they come; Faust commits their positions after them."""
    async for value in stream:
        event = decode(value)
        if isinstance(event, JobCompleted | JobFailed | JobCancelled | JobRejected):
            outcomes[type(event).__name__] += 1
            print(event.job_id, dict(outcomes), file=sys.__stdout__, flush=True)  # The other one goes to Faust's log.


if __name__ == "__main__":
    app.main()
