"""The part of the schedule store that holds which runners there are: their registrations, heartbeats, and which of them drain."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from redis.commands.core import AsyncScript

from controlplane.events.types import RunnerRegistered

Beat = tuple[int, tuple[str, ...]]
"""When the runner's last heartbeat was appended (microseconds), and the attempts that it held."""

RUNNERS: Final = "runners"
KNOWN: Final = "known"
BEATS: Final = "beats"
DRAINING: Final = "draining"
VERSION: Final = "registry"

_pack = msgspec.msgpack.encode
_unpack_runner = msgspec.msgpack.Decoder(RunnerRegistered).decode
_unpack_beat = msgspec.msgpack.Decoder(Beat).decode


class RunnerStore:
    """Reads and writes under the same hash tag as the rest of the schedule store."""

    def __init__(self, client: Any, prefix: str, beat: AsyncScript) -> None:
        """Use a client of Redis that answers bytes."""
        self._redis = client
        self._prefix = prefix
        self._beat = beat

    def _key(self, name: str) -> str:
        return self._prefix + name

    async def register(self, runner: RunnerRegistered, now: int) -> None:
        """Note a runner; one that registers again goes on with what it said last of its attempts, and with draining."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(self._key(RUNNERS), runner.runner_id, _pack(runner))
            pipe.hset(self._key(KNOWN), runner.name, _pack(runner))
            pipe.hsetnx(self._key(BEATS), runner.runner_id, _pack((now, ())))
            pipe.incr(self._key(VERSION))
            await pipe.execute()

    async def beat(self, runner_id: str, at: int, attempt_ids: Sequence[str], *, draining: bool) -> None:
        """Note a heartbeat, unless a later one is noted."""
        said = _pack((at, tuple(attempt_ids)))
        await self._beat(keys=[self._key(BEATS)], args=[self._prefix, runner_id, said, int(draining)])

    async def drain(self, runner_id: str) -> None:
        """Note that a runner takes no new work."""
        await self._redis.sadd(self._key(DRAINING), runner_id)

    async def forget(self, runner_id: str) -> None:
        """Forget a runner that left or is silent; its capabilities stay known, its leases are ended by their owners."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hdel(self._key(RUNNERS), runner_id)
            pipe.hdel(self._key(BEATS), runner_id)
            pipe.srem(self._key(DRAINING), runner_id)
            pipe.incr(self._key(VERSION))
            await pipe.execute()

    async def version(self) -> int:
        """Return a number that changes with every registration."""
        return int(await self._redis.get(self._key(VERSION)) or 0)

    async def registered(self) -> dict[str, RunnerRegistered]:
        """Return the runner processes that are registered, by id."""
        return await self._registrations(RUNNERS)

    async def known(self) -> dict[str, RunnerRegistered]:
        """Return the last registration under every name."""
        return await self._registrations(KNOWN)

    async def _registrations(self, key: str) -> dict[str, RunnerRegistered]:
        found = await self._redis.hgetall(self._key(key))
        return {name.decode(): _unpack_runner(data) for name, data in found.items()}

    async def beats(self) -> dict[str, Beat]:
        """Return the last heartbeat of every runner that is not gone."""
        found = await self._redis.hgetall(self._key(BEATS))
        return {name.decode(): _unpack_beat(data) for name, data in found.items()}

    async def draining(self) -> set[str]:
        """Return the runners that take no new work."""
        return {one.decode() for one in await self._redis.smembers(self._key(DRAINING))}
