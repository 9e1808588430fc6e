"""What only the gateway can tell: live streams that are open, and writes that the log has not acknowledged."""

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Gauge


def watch(app: FastAPI, registry: CollectorRegistry) -> None:
    """Ask a gateway that has started at each scrape."""
    streams = Gauge("controlplane_live_streams", "Live streams that are open.", registry=registry)
    streams.set_function(lambda: app.state.streams.taken)
    writes = Gauge(
        "controlplane_gateway_unacknowledged_writes", "Writes that the log has not acknowledged yet.", registry=registry
    )
    writes.set_function(lambda: app.state.door.producer.unacknowledged)
