"""One system with a history, for the tests of the console and of the command; both belong to the xdist group `studio`."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from controlplane.cli.stack import SystemStack
from controlplane.events.catalog import Service
from controlplane.log.connection import LogConnection
from controlplane.log.producer import LogProducer, OutgoingRecord
from controlplane.settings import Settings
from tests.acceptance.waiting import WAIT_SECONDS, until


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A system with a history: measured, guessed and made images, a report at its second attempt, a failure, garbage."""
    folder = tmp_path_factory.mktemp("console")
    with SystemStack(Settings(), folder, free_ports=True) as stack, stack.client() as client:
        stack.add_runner("studio", "tests.acceptance.studio:runner")
        until(lambda: client.runners().runners)
        client.declare_predicate("width", cardinality="SINGLE", unit="px")
        client.submit("image.measure", {"image": "image:one"}).wait(WAIT_SECONDS)
        until(lambda: client.truths("image:one", "width"))
        client.submit("image.guess", {"image": "image:one"}).wait(WAIT_SECONDS)
        until(lambda: len(client.truths("image:one", "width")[0].candidates) == 2)
        thumbnail = client.submit("image.thumbnail", {"image": "image:two"}, job_id="thumbnail-1")
        report = client.submit(
            "report.render", {"image": "image:two"}, job_id="report-1", retry={"initial_backoff_seconds": 0.1}
        )
        failed = client.submit("feed.import", {"image": "feed:none"}, job_id="feed-1", tenant="acme")
        for one in (thumbnail, report, failed):
            one.wait(WAIT_SECONDS)
        with ThreadPoolExecutor(1) as apart:  # Playwright's own loop runs in this thread.
            apart.submit(lambda: asyncio.run(_spoil(stack.connection(Service.CLIENT)))).result()
        until(lambda: list(client.dead_letters()))
        until(lambda: client.truths("image:two-small", "width"))
        yield SimpleNamespace(stack=stack, client=client, url=stack.gateway_url)


async def _spoil(connection: LogConnection) -> None:
    producer = LogProducer(connection, service=Service.CLIENT)
    await producer.start()
    await producer.send([OutgoingRecord(topic="controlplane.submissions", partition=0, key=b"k", value=b"garbage")])
    await producer.stop()
