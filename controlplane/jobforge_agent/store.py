"""The schedule store in Redis: jobs, ready queues, timers, leases, positions and the outbox, under one hash tag.

A commit is one script. Its steps, and what a crash after each leaves:

1. The script checks the owner's epoch and the stored positions, then writes jobs, indexes, positions and the finished bytes of the events
   (outbox). Before: nothing happened, the batch comes again. After: all of it is decided, nothing is published yet.
2. The caller publishes the outbox. A crash in between: whoever finds the instance silent publishes its outbox.
3. On acknowledgement the outbox entry is removed. A crash before: published again, the same bytes with the same event ids.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final, Literal

import msgspec
import redis.asyncio as redis
from redis.commands.core import AsyncScript

from controlplane.events.controls import Limit
from controlplane.jobforge_agent.changes import Changes, decode_job, encode_job
from controlplane.jobforge_agent.control_store import ControlStore
from controlplane.jobforge_agent.depths import depth_name
from controlplane.jobforge_agent.hearing import Heard
from controlplane.jobforge_agent.policy import Shares
from controlplane.jobforge_agent.runner_store import RunnerStore
from controlplane.jobforge_agent.state import SECOND, Job
from controlplane.jobforge_agent.stored import Claim, Heads, Owned, Usage
from controlplane.log.positions import Partition
from controlplane.log.producer import OutgoingRecord

ANSWER_WITHIN_SECONDS: Final = 5.0
FIRST_BLOB: Final = 3
"""Number of the first script argument that holds bytes."""

TRUSTED_SECONDS: Final = 3.0
"""An owner that the store did not answer for so long compares it with the log first: shorter than what the group takes to give a partition away."""

Verdict = Literal["ok", "fenced", "lost", "late", "conflict", "stale"]
LOOK_AGAIN: Final = 2
_pack = msgspec.msgpack.encode
_unpack_records = msgspec.msgpack.Decoder(list[OutgoingRecord]).decode
_unpack_record = msgspec.msgpack.Decoder(OutgoingRecord).decode
_unpack_heard = msgspec.msgpack.Decoder(Heard).decode


def partition_text(partition: Partition) -> str:
    """Return the name of a partition in the store."""
    return f"{partition[0]}/{partition[1]}"


def _partition(text: str) -> Partition:
    topic, _, number = text.rpartition("/")
    return topic, int(number)


class Store:
    """Everything that JobForge keeps in Redis. Any method raises `redis.RedisError` when Redis does not answer."""

    def __init__(self, url: str, namespace: str, instance: str) -> None:
        """Prepare the store of one JobForge instance; nothing is asked of Redis yet."""
        # redis-py's types do not tell a client that answers bytes from one that answers text.
        self._redis: Any = redis.Redis.from_url(
            url, socket_timeout=ANSWER_WITHIN_SECONDS, socket_connect_timeout=ANSWER_WITHIN_SECONDS
        )
        self._prefix = f"{{{namespace}}}:"
        self._instance = instance
        self._own = self._script("own")
        self._commit = self._script("commit")
        self._heads = self._script("heads")
        self._claim = self._script("claim")
        self._park = self._script("park")
        self._drop = self._script("drop")
        self.runners = RunnerStore(self._redis, self._prefix, self._script("beat"))
        self.controls = ControlStore(self._redis, self._prefix, self._script("control"), instance)

    def _script(self, name: str) -> AsyncScript:
        script: AsyncScript = self._redis.register_script(self._text(name))
        return script

    def _text(self, name: str) -> str:
        folder = files("controlplane.jobforge_agent") / "scripts"
        return (folder / "queues.lua").read_text() + (folder / f"{name}.lua").read_text()

    def _key(self, name: str) -> str:
        return self._prefix + name

    async def close(self) -> None:
        """Disconnect."""
        await self._redis.aclose()

    async def ping(self) -> None:
        """Return when Redis answers."""
        await self._redis.ping()

    # Ownership and positions

    async def own(self, partition: int) -> Owned:
        """Take a partition over from whoever owned it: from now on only the new owner can commit."""
        now, epoch, revision = await self._own(keys=[self._key("epoch")], args=[self._prefix, partition])
        return Owned(epoch=epoch.decode(), revision=int(revision), seen_at=now)

    async def epoch(self, partition: int) -> int:
        """Return under which epoch a partition is owned; 0 if it never was."""
        return int(await self._redis.hget(self._key("epoch"), str(partition)) or 0)

    async def now(self) -> int:
        """Return the time of the store's own clock in microseconds."""
        return _micros(await self._redis.time())

    async def positions(self, partitions: Iterable[Partition]) -> dict[Partition, int | None]:
        """Return the stored position of each partition: the next offset to read; None where there is none."""
        wanted = list(partitions)
        if not wanted:
            return {}
        values = await self._redis.hmget(self._key("positions"), [partition_text(one) for one in wanted])
        return {one: None if value is None else int(value) for one, value in zip(wanted, values, strict=True)}

    async def set_positions(self, positions: Mapping[Partition, int]) -> None:
        """Store positions outside of a commit, where nobody did: of what is not about jobs, when it is read for the first time."""
        if positions:
            async with self._redis.pipeline(transaction=True) as pipe:
                for one, offset in positions.items():
                    pipe.hsetnx(self._key("positions"), partition_text(one), offset)
                await pipe.execute()

    # Jobs

    async def jobs(self, ids: Sequence[str]) -> dict[str, Job]:
        """Return the jobs that are known of these ids."""
        return (await self.read(ids))[1]

    async def read(self, ids: Sequence[str]) -> tuple[int, dict[str, Job]]:
        """Return the version of the registry and the jobs that are known of these ids, in one round trip."""
        keys = [self._key("registry"), *(self._key(f"job:{one}") for one in ids)]
        version, *values = await self._redis.mget(keys)
        jobs = {one: decode_job(value) for one, value in zip(ids, values, strict=True) if value is not None}
        return int(version or 0), jobs

    async def due(self, partition: int, now: int, most: int) -> list[str]:
        """Return the ids of jobs whose timer has come."""
        found = await self._redis.zrange(self._key(f"due:{partition}"), "-inf", now, byscore=True, offset=0, num=most)
        return [one.decode() for one in found]

    async def oldest_open(self, partition: int) -> int | None:
        """Return the offset of the oldest submission whose job is not concluded."""
        found = await self._redis.zrange(self._key(f"open:{partition}"), 0, 0, withscores=True)
        return int(found[0][1]) if found else None

    async def commit(
        self,
        changes: Changes,
        *,
        owned: Mapping[int, Owned] | None = None,
        expect: Mapping[Partition, tuple[int, int]] | None = None,
        places: Mapping[Partition, int] | None = None,
        outbox: tuple[str, Sequence[OutgoingRecord]] | None = None,
        folding: bool = False,
    ) -> Verdict:
        """Write what was decided, if its partitions are still owned and the store is where their owner left it (step 1).

        `owned` maps each job partition to what its owner knows of it, `expect` each input partition to (position before,
        position after), `places` input partitions to positions that hold whatever was stored. `folding`: it is what the log says.
        """
        blobs = [data for _, data, _ in changes.jobs]
        jobs = [(name, FIRST_BLOB + index, seconds) for index, (name, _, seconds) in enumerate(changes.jobs)]
        if outbox and outbox[1]:
            blobs.append(_pack(outbox[1]))
        fields = changes.as_fields() | {
            "jobs": jobs,
            "owned": [
                (str(number), one.epoch, str(one.revision), 0 if folding else one.seen_at)
                for number, one in (owned or {}).items()
            ],
            "trusted": int(TRUSTED_SECONDS * SECOND),
            "expect": [(partition_text(one), str(old), str(new)) for one, (old, new) in (expect or {}).items()],
            "places": [(partition_text(one), str(offset)) for one, offset in (places or {}).items()],
            "outbox": [self._instance, outbox[0], FIRST_BLOB + len(blobs) - 1] if outbox and outbox[1] else False,
        }  # fmt: skip
        answer = await self._commit(keys=[self._key("positions")], args=[self._prefix, _pack(fields), *blobs])
        verdict: Verdict = answer.decode()
        if verdict == "ok":
            for one in (owned or {}).values():
                one.revision += 1
        return verdict

    # Routing

    async def heads(
        self, now: int, most: int, capacities: Mapping[str, int], *, lanes: Sequence[str] = (), lanes_at_once: int = 64
    ) -> Heads:
        """Return the first jobs of each wanted lane (none: all), no more than these runners have free slots.

        Where there are more than `lanes_at_once` lanes, no jobs are returned: choose lanes, ask again.
        """
        wish = {
            "now": now,
            "most": most,
            "lanes_at_once": lanes_at_once,
            "lanes": lanes,
            "runners": list(capacities.items()),
        }
        version, found, jobs, busy, shares = await self._heads(
            keys=[self._key("lanes")], args=[self._prefix, _pack(wish)]
        )
        return Heads(
            version=version.decode(),
            lanes={found[i].decode(): float(found[i + 1]) for i in range(0, len(found), 2)},
            jobs=[decode_job(data) for data in jobs if data is not None],
            busy={busy[i].decode(): int(busy[i + 1]) for i in range(0, len(busy), 2)},
            shares={
                shares[i].decode(): Shares(floor=float(shares[i + 1]), used=_scores(shares[i + 2]))
                for i in range(0, len(shares), 3)
            },
        )

    async def usage(self, limits: Mapping[str, Limit], now: int) -> dict[str, Usage]:
        """Return how much of each limit is used."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for subject, limit in limits.items():
                since = now - int(limit.period_seconds * SECOND)
                pipe.scard(self._key(f"running:{subject}"))
                pipe.zcount(self._key(f"starts:{subject}"), f"({since}", "+inf")
                pipe.zrangebyscore(self._key(f"starts:{subject}"), f"({since}", "+inf", 0, 1, withscores=True)
            answers = await pipe.execute()
        return {
            subject: Usage(running=running, recent=recent, oldest=int(first[0][1]) if first else None)
            for subject, running, recent, first in zip(limits, answers[::3], answers[1::3], answers[2::3], strict=True)
        }

    async def claim(self, claims: Sequence[Claim], *, version: str) -> list[bool | None]:
        """Lease jobs in their order; returns which claims were accepted. Accepted records are in the outbox under their attempt id.

        None: its runner was filled or the job came forward meanwhile, so that nothing behind that claim was looked at.
        """
        blobs: list[bytes] = []
        rows = []
        for claim in claims:
            job, place = claim.job, FIRST_BLOB + len(blobs)
            blobs += (encode_job(job), _pack(claim.record))
            limits = [
                (subject, _or_none(limit.max_running), _or_none(limit.starts), int(limit.period_seconds * SECOND))
                for subject, limit in claim.limits
            ]
            rows.append(
                (
                    job.job_id, claim.queue, job.runner_id, claim.capacity, job.slots, job.attempt_id,
                    place, job.due_at or 0, job.partition, place + 1, job.pool, job.tenant, claim.cost, limits, job.score,
                    depth_name(job),
                )
            )  # fmt: skip
        fields = _pack({"outbox": self._instance, "version": version, "claims": rows})
        answers = await self._claim(keys=[self._key("lanes")], args=[self._prefix, fields, *blobs])
        return [None if one == LOOK_AGAIN else bool(one) for one in answers]

    async def busy(self) -> dict[str, int]:
        """Return the busy slots of each runner."""
        found = await self._redis.hgetall(self._key("busy"))
        return {name.decode(): int(slots) for name, slots in found.items()}

    async def park(
        self, parked: Sequence[tuple[str, str, int]], resting: Sequence[tuple[str, int]], *, version: str
    ) -> None:
        """Set queues aside: until a lease under a subject ends that so many may hold, or until a moment.

        Nothing is set aside when the controls have another version than those by which the limits stopped the queues.
        """
        if parked or resting:
            fields = _pack({"parked": parked, "resting": resting, "version": version})
            await self._park(keys=[self._key("lanes")], args=[self._prefix, fields])

    # Outbox

    async def published(self, entries: Sequence[str]) -> None:
        """Remove acknowledged entries from the outbox (step 3)."""
        if entries:
            await self._redis.hdel(self._key(f"outbox:{self._instance}"), *entries)

    async def outbox(self, instance: str) -> dict[str, list[OutgoingRecord]]:
        """Return what an instance decided and did not see acknowledged: a commit's records, or one routing record."""
        found = await self._redis.hgetall(self._key(f"outbox:{instance}"))
        return {name.decode(): _records(data) for name, data in found.items()}

    async def unpublished(self) -> dict[str, set[str]]:
        """Return the names of every instance's entries in the outbox."""
        instances = [one.decode() for one in await self._redis.zrange(self._key("instances"), 0, -1)]
        async with self._redis.pipeline(transaction=False) as pipe:
            for instance in instances:
                pipe.hkeys(self._key(f"outbox:{instance}"))
            found = await pipe.execute() if instances else []
        return {name: {one.decode() for one in entries} for name, entries in zip(instances, found, strict=True)}

    async def is_unpublished(self, topic: str, key: bytes) -> bool:
        """Say whether a record of a key is in the outbox of any instance: decided, and maybe not on its topic yet."""
        kept = [await self.outbox(instance) for instance in await self.unpublished()]
        return any(
            (one.topic, one.key) == (topic, key)
            for entries in kept for records in entries.values() for one in records
        )  # fmt: skip

    async def drop_outbox(self, instance: str, entries: Sequence[str]) -> None:
        """Remove what was published on behalf of another instance, and forget the instance when nothing is left."""
        await self._drop(keys=[self._key("instances")], args=[self._prefix, instance, *entries])

    async def touch(self, now: int, heard: Mapping[Partition, Heard], owned: Mapping[int, Owned] | None = None) -> None:
        """Say that this instance lives, and what it hears of runners; go on trusting the store with what is still owned."""
        ours = dict(owned or {})
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.time()  # First, so that it is no later than what is found.
            pipe.hmget(self._key("epoch"), [str(number) for number in ours] or [""])
            pipe.zadd(self._key("instances"), {self._instance: now})
            if heard:
                said = {partition_text(place): _pack(one) for place, one in heard.items()}
                pipe.hset(self._key("heard"), mapping=said)
            time, epochs, *_ = await pipe.execute()
        seen_at = _micros(time)
        for one, epoch in zip(ours.values(), epochs, strict=False):
            if epoch == one.epoch.encode() and abs(seen_at - one.seen_at) <= TRUSTED_SECONDS * SECOND:
                one.seen_at = seen_at

    async def heard(self) -> dict[Partition, Heard]:
        """Return what is heard of runners, by the partition of their heartbeats."""
        found = await self._redis.hgetall(self._key("heard"))
        return {_partition(name.decode()): _unpack_heard(data) for name, data in found.items()}

    async def silent_instances(self, before: int) -> list[str]:
        """Return the instances that were last heard of before a moment."""
        found = await self._redis.zrange(self._key("instances"), "-inf", before, byscore=True)
        return [one.decode() for one in found if one.decode() != self._instance]

    # Leases

    async def held(self, runner_id: str) -> dict[str, str]:
        """Return the leases of a runner: attempt id to job id."""
        found: Any = await self._redis.hgetall(self._key(f"held:{runner_id}"))
        return {attempt.decode(): job.decode() for attempt, job in found.items()}

    async def holders(self) -> list[str]:
        """Return the runners that have busy slots."""
        return [name for name, slots in (await self.busy()).items() if slots > 0]


def _micros(time: tuple[int, int]) -> int:
    return time[0] * SECOND + time[1]


def _or_none(number: int | None) -> int:
    return -1 if number is None else number


def _scores(found: Sequence[bytes]) -> dict[str, float]:
    return {found[i].decode(): float(found[i + 1]) for i in range(0, len(found), 2)}


def _records(data: bytes) -> list[OutgoingRecord]:
    # A commit keeps a list, a claim one record: MessagePack arrays and maps differ in their first byte.
    is_list = data[0] & 0xF0 == 0x90 or data[0] in (0xDC, 0xDD)
    return _unpack_records(data) if is_list else [_unpack_record(data)]
