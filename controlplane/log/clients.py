"""The life of aiokafka's clients: how they end, and the one for administration."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from controlplane.log.connection import LogConnection, refusal

FAREWELL_SECONDS: Final = 1.0


async def disconnect(
    client: AIOKafkaConsumer | AIOKafkaAdminClient | AIOKafkaClient, *, within_seconds: float = FAREWELL_SECONDS
) -> None:
    """Close a client within a bound, whatever becomes of it on the way.

    A connection with TLS waits for the other side's farewell, which may never come. aiokafka cancels tasks of its own, and one that waits to ask
    again just then ends its close half-way: what it raises is not for whoever disconnects, who would take it for a cancellation of its own.
    """
    inner = client if isinstance(client, AIOKafkaClient) else client._client  # noqa: SLF001 -- whoever connects keeps the connections
    connections = [one._writer for one in inner._conns.values() if one._writer is not None]  # noqa: SLF001 -- as above
    closing = asyncio.ensure_future(client.stop() if isinstance(client, AIOKafkaConsumer) else client.close())
    # It is not cancelled: aiokafka takes that for the end of what it waits for just then, and goes on to the next thing to wait for.
    try:
        await asyncio.wait({closing}, timeout=within_seconds)
    finally:
        if not closing.done() or closing.cancelled():
            for one in connections:
                one.transport.abort()
    if closing.cancelled():
        closing = asyncio.ensure_future(inner.close())
    await asyncio.wait({closing}, timeout=FAREWELL_SECONDS)
    if closing.done():
        closing.result()


@asynccontextmanager
async def administrator(connection: LogConnection) -> AsyncIterator[AIOKafkaAdminClient]:
    """Give a client for administration while the block runs.

    Raises:
        LogUnavailable: no broker answers.
    """
    admin = AIOKafkaAdminClient(**connection.client_arguments())
    try:
        try:
            await admin.start()
        except KafkaError as error:
            raise refusal(error, f"a Kafka broker at {connection.bootstrap}") from error
        yield admin
    finally:
        await disconnect(admin)
