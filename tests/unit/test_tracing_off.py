"""Off costs nothing: what makes spans is not even loaded, no header is made, records go on as they came."""

import asyncio
import subprocess
import sys

from controlplane.jobforge_agent.traces import Traces
from controlplane.log import traces
from controlplane.log.session import OutgoingRecord
from controlplane.telemetry import tracing

LOADS_NOTHING = """
import sys
import controlplane.client, controlplane.gateway.service, controlplane.jobforge_agent.service, controlplane.runner.service
from controlplane.settings import Settings
from controlplane.telemetry.tracing import active, configure_tracing
configure_tracing(Settings(tracing="off"), "gateway")
assert active() is None
print([name for name in sys.modules if name.startswith(("opentelemetry.exporter", "controlplane.telemetry.spans"))])
"""


def test_no_service_loads_what_makes_spans_while_it_is_off() -> None:
    found = subprocess.run([sys.executable, "-c", LOADS_NOTHING], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


async def test_records_are_the_same_objects_without_headers() -> None:
    assert tracing.active() is None
    assert traces.current_headers() == ()
    records = [OutgoingRecord(topic="controlplane.jobs", partition=0, key=b"k", value=b"v")]
    answer = asyncio.get_running_loop().create_future()
    assert traces.sent(records, answer) is records
    batch: list[object] = []
    assert Traces("group").received([], batch) is batch  # type: ignore[arg-type]
    assert Traces("group").headers(None, {}) == ()
