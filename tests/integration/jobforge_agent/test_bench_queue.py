"""Routing one job costs the same whatever waits behind it, and goes in the promised order: the bench itself, on a smaller scale."""

import asyncio

from controlplane.cli.bench_queue import measure

ROUNDS = 6


def test_a_long_queue_costs_no_more_than_a_short_one(redis_url: str) -> None:
    figures = asyncio.run(measure(redis_url, (1000, 10_000), ROUNDS))
    assert figures["faults"] == []
    assert [one["routed"] for one in figures["queues"].values()] == [ROUNDS * 64, ROUNDS * 64]
    assert 0.9 < figures["ratio_of_commands"] < 1.1  # Commands, not seconds: the machine is shared.
