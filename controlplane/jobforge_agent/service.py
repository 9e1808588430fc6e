"""The JobForge process: connects, decides, stops in order."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode

import redis
import uvloop
from prometheus_client import REGISTRY

from controlplane.events.catalog import SUBMISSIONS, Service
from controlplane.events.identity import random_id
from controlplane.jobforge_agent.agent import Agent, PartitionLost
from controlplane.jobforge_agent.breakers import Thresholds
from controlplane.jobforge_agent.leases import Clock
from controlplane.jobforge_agent.loading import load_policy
from controlplane.jobforge_agent.metrics import Metrics
from controlplane.jobforge_agent.outbox import Outbox
from controlplane.jobforge_agent.router import Router
from controlplane.jobforge_agent.store import Store
from controlplane.jobforge_agent.stored import StoreLost
from controlplane.jobforge_agent.upkeep import Upkeep
from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.log.producer import LogProducer
from controlplane.log.topics import ensure_topics
from controlplane.log.transport import LEAVE_WITHIN_SECONDS, batch_app, reached, run_app
from controlplane.security.serving import serving
from controlplane.settings import Settings, TlsFiles
from controlplane.telemetry.health import Dependency, State, health_app
from controlplane.telemetry.logs import configure_logging
from controlplane.telemetry.tracing import configure_tracing

CANCEL_AGAIN_SECONDS: Final = LEAVE_WITHIN_SECONDS + 1.0
"""Longer than leaving the group takes, which is not to be cut short."""

logger = logging.getLogger(__name__)


def store_url(url: str, tls: TlsFiles | None) -> str:
    """Return the URL of the schedule store with this process's identity for rediss://, where the URL names no files itself.

    The client reads the files for each connection, so a renewed certificate needs no restart.
    """
    if tls is None or not url.startswith("rediss://") or "ssl_" in url:
        return url
    files = urlencode({"ssl_ca_certs": tls.ca, "ssl_certfile": tls.certificate, "ssl_keyfile": tls.key})
    return f"{url}{'&' if '?' in url else '?'}{files}"


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run one instance until `stop` is set, or until it has to start over.

    Raises:
        LogUnavailable, StoreLost, PartitionLost, redis.RedisError: start again.
    """
    if settings.redis_url is None:
        raise SystemExit("Expected CONTROLPLANE_REDIS_URL to name a Redis or Valkey server, but it is not set.")
    connection = LogConnection.from_settings(settings)
    counts = await ensure_topics(connection, settings)
    instance = random_id()[:8]
    group = "controlplane.jobforge"
    store = Store(store_url(settings.redis_url.get_secret_value(), settings.tls), settings.redis_namespace, instance)
    producer = LogProducer(connection, service=Service.JOBFORGE, partitions=counts, instance=instance)
    outbox = Outbox(producer, store, instance)
    metrics = Metrics(REGISTRY)
    metrics.outbox(outbox.age_seconds)
    router = Router(
        store, outbox, producer, policy=load_policy(settings.routing_policy), lease_seconds=settings.lease_seconds,
        metrics=metrics,
    )  # fmt: skip
    agent = Agent(connection, store, producer, outbox, router, group)
    app = batch_app(
        group, connection, take_over=agent.take_over, session_seconds=settings.kafka_session_seconds,
        client_id=f"controlplane-jobforge-{instance}",
    )  # fmt: skip
    agent.subscribe(app)
    metrics.store(lambda: not agent.outage.going_on)
    clock = Clock(
        agent, store, outbox, connection, group=group, lease_seconds=settings.lease_seconds, counts=counts,
        reached=partial(reached, app), unroutable=router.unroutable,
    )  # fmt: skip
    thresholds = Thresholds(
        failures=settings.breaker_failures, window_seconds=settings.breaker_window_seconds,
        open_seconds=settings.breaker_open_seconds,
    )  # fmt: skip
    upkeep = Upkeep(
        agent, store, producer, partitions=counts[SUBMISSIONS.name], most_in_flight=settings.most_jobs_in_flight,
        thresholds=thresholds,
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        await producer.start()
        stack.push_async_callback(producer.stop)
        await store.touch(time.time_ns() // 1000, {})

        async def redis_state() -> Dependency:
            return Dependency(state=State.DEGRADED if agent.outage.going_on else State.OK)

        async def partitions_state() -> Dependency:
            if not agent.assigned:
                return Dependency(state=State.DOWN, detail="The group has not given this instance its partitions yet.")
            return Dependency(state=State.OK, detail=f"owns {len(agent.partitions)} job partitions")

        await stack.enter_async_context(
            serving(
                health_app("jobforge", {"redis": redis_state, "partitions": partitions_state}),
                settings.health_host,
                settings.health_port,
                settings.tls,
            )
        )
        await _until_one_ends(
            run_app(app, stop),
            agent.run(),
            router.run(),
            outbox.clear(),
            clock.run_due(),
            clock.run_leases(),
            clock.run_watermarks(),
            upkeep.run(),
        )


async def _until_one_ends(*works: Coroutine[Any, Any, None]) -> None:
    """Run the parts of an instance until the first ends, then end the others; raises what it raised."""
    tasks = [asyncio.create_task(work) for work in works]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    while pending:
        # Once is not enough: a process that was stopped wakes with its questions to the store timed out, and the client of the store then
        # takes this for the time-out. Whoever caught that would go on for ever.
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_SECONDS)
    for task in done:
        task.result()


async def supervise(settings: Settings) -> None:
    """Run one instance until SIGTERM or SIGINT; what breaks it ends the process.

    Crash-only: an instance whose store or partitions are lost must leave nothing behind that still heartbeats for it, and Faust has
    threads of its own. Whoever supervises the process starts the next one, which reads on from the log.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await serve(settings, stop)
    except (LogUnavailable, StoreLost, PartitionLost, redis.RedisError) as error:
        logger.warning("Ends, to be started again: %s", error)
        logging.shutdown()
        os._exit(os.EX_TEMPFAIL)


def run(settings: Settings) -> None:
    """Run JobForge until it is told to stop; exits with EX_TEMPFAIL (75) when it has to be started again."""
    configure_logging(settings, "jobforge")
    configure_tracing(settings, "jobforge")
    uvloop.run(supervise(settings))
