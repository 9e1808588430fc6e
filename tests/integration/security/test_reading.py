"""Reading over TLS: whoever stops in the middle of it is not kept by the end of the connection."""

import asyncio

import pytest
import uvloop

from controlplane.events.catalog import JOBS, Service
from controlplane.log.connection import LogConnection
from controlplane.log.producer import LogProducer, OutgoingRecord
from controlplane.log.reader import BRIEF_WAIT_MILLISECONDS, LogReader
from tests.integration.security.conftest import Connect

pytestmark = pytest.mark.xdist_group("security")
WITHIN_SECONDS = 30.0
"""Before, none of them ended."""


async def read_and_stop(connection: LogConnection) -> None:
    producer = LogProducer(connection, service=Service.JOBFORGE)
    await producer.start()
    await producer.send([OutgoingRecord(topic=JOBS.name, partition=0, key=b"k", value=b"v")] * 100)
    await producer.stop()
    async with asyncio.timeout(WITHIN_SECONDS):
        for _ in range(3):
            async with LogReader(connection, client_id="test", wait_milliseconds=BRIEF_WAIT_MILLISECONDS) as reader:
                await reader.assign({(JOBS.name, 0): 0})
                assert await reader.batch(timeout_seconds=WITHIN_SECONDS, max_records=1)


def test_a_reader_that_is_stopped_while_it_reads_ends(connect: Connect) -> None:
    uvloop.run(read_and_stop(connect(Service.JOBFORGE)))
