"""Single records of the log, read where the gateway needs one whole."""

from typing import Any, Final

from controlplane.events.codec import decode
from controlplane.log.connection import LogConnection
from controlplane.log.reader import LogReader

READ_WITHIN_SECONDS: Final = 5.0


async def event_at(connection: LogConnection, topic: str, partition: int, offset: int) -> Any:
    """Return the event at a position of an existing partition, or None when there is none.

    Raises:
        LogUnavailable: no broker answers.
    """
    async with LogReader(connection, client_id="controlplane-gateway-record") as reader:
        place = (topic, partition)
        if offset < (await reader.end_offsets([place]))[place]:
            await reader.assign({place: offset})
            batch = await reader.batch(timeout_seconds=READ_WITHIN_SECONDS, max_records=1)
            for record in batch.get(place, ()):
                if record.offset == offset:
                    return decode(record.value)
    return None
