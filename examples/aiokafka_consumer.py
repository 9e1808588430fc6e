"""Follow conclusions with plain aiokafka, from the first one on: `python aiokafka_consumer.py`, with `CONTROLPLANE_KAFKA_BOOTSTRAP`."""

import asyncio
import os

from aiokafka import AIOKafkaConsumer

from controlplane.events.codec import decode
from controlplane.events.types import JobCancelled, JobCompleted, JobFailed, JobRejected


async def main() -> None:
    consumer = AIOKafkaConsumer(
        "controlplane.jobs", bootstrap_servers=os.environ["CONTROLPLANE_KAFKA_BOOTSTRAP"], group_id="aiokafka-example",
        auto_offset_reset="earliest", enable_auto_commit=False,
    )  # fmt: skip
    async with consumer:
        async for record in consumer:
            event = decode(record.value)
            if isinstance(event, JobCompleted | JobFailed | JobCancelled | JobRejected):
                print(event.job_id, type(event).__name__, flush=True)
                await (
                    consumer.commit()
                )  # After it was worked on: a crash before this repeats it, and its id is the same.


if __name__ == "__main__":
    asyncio.run(main())
