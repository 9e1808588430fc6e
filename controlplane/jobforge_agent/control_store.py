"""The part of the schedule store that holds what operators declared, and what follows jobs around: counts, families, failures."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from redis.commands.core import AsyncScript

from controlplane.events import types
from controlplane.events.codec import decode, encode
from controlplane.events.controls import Controls
from controlplane.events.types import LogPosition
from controlplane.jobforge_agent.breakers import CLOSED, Counted
from controlplane.jobforge_agent.changes import TOMBSTONE_SECONDS
from controlplane.jobforge_agent.depths import QueueKey, depths_of
from controlplane.log.producer import OutgoingRecord

VERSION: Final = b"version"
UNREAD: Final = "?"
"""Ends the number of a guard whose event is decided, but was not read from the log yet."""
NONE: Final = "0"
LAST_JOB: Final = "LastJob"
"""Names the last `ScheduleFired` that submitted a job; it is read before the last one of all."""

assert types.ScheduleFired.__name__ > LAST_JOB


class Guard(msgspec.Struct, frozen=True, array_like=True):
    """What an event makes of a guard, a value that decisions are compared with before they are taken."""

    name: str
    value: str
    """Empty removes the guard."""
    grows: bool = False
    """The value is a number that is only ever raised: noted late, it takes nothing back that was decided since; noted in time, it is `UNREAD` no longer."""
    unless: str = ""
    """The guard stays as it is while it was last set beside this same text."""


class Noted(msgspec.Struct, frozen=True, kw_only=True):
    """What an event of the controls changes in the store: fields with their bytes, empty to remove them, and guards in their order."""

    fields: dict[str, bytes]
    guards: tuple[Guard, ...] = ()


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a declaration stands on the log, and since when."""

    position: LogPosition
    at: int
    """Append time, microseconds since 1970."""


def noted(event: Any, position: LogPosition, at: int) -> Noted:
    """Return what the store keeps of an event, so that a fold of what it keeps is the fold of the log."""
    place = msgspec.json.encode(Place(position, at)).decode()
    name, subject = f"{type(event).__name__}/{event.subject}", event.subject
    match event:
        case types.LimitDeclared() if event.max_running is None and event.starts is None:
            return Noted(fields={name: b""})
        case types.PauseDeclared() if not event.paused:
            return Noted(fields={name: b""})
        case types.ScheduleDeclared():
            # Declared again, with every release say, it takes no time back that has come and was not dealt with yet.
            times = f"{event.cron} {event.time_zone} {event.paused}"
            guards = (Guard(subject, str(at), unless=times), Guard(f"place/{subject}", place))
            return Noted(fields={name: encode(event)}, guards=guards)
        case types.ScheduleRemoved():
            fields = {f"ScheduleDeclared/{subject}": b"", f"ScheduleFired/{subject}": b"", f"{LAST_JOB}/{subject}": b""}
            return Noted(fields=fields, guards=(Guard(subject, ""), Guard(f"place/{subject}", "")))
        case types.ScheduleFired():
            fields = {name: encode(event)}
            if event.job_id is not None:
                fields[f"{LAST_JOB}/{subject}"] = fields[name]
            return Noted(fields=fields, guards=(Guard(subject, str(event.due_at), grows=True),))
        case types.BreakerChanged():
            closed = event.state == CLOSED
            guard = Guard(subject, "" if closed else event.header.event_id)
            return Noted(fields={name: b"" if closed else encode(event)}, guards=(guard,))
        case types.AdmissionChanged():
            return Noted(fields={name: encode(event)}, guards=(Guard(subject, event.header.event_id),))
        case types.BulkRequested():
            return Noted(fields={name: encode(event)}, guards=(Guard(f"place/{subject}", place),))
        case types.BulkApplied():
            return Noted(fields={f"{name}/{event.partition}": encode(event)})
        case _:
            return Noted(fields={name: encode(event)})


class ControlStore:
    """Reads and writes under the same hash tag as the rest of the schedule store."""

    def __init__(self, client: Any, prefix: str, control: AsyncScript, instance: str) -> None:
        """Share the client of an instance's store."""
        self._redis = client
        self._prefix = prefix
        self._control = control
        self._instance = instance

    def _key(self, name: str) -> str:
        return self._prefix + name

    async def note(
        self,
        changes: Iterable[Noted],
        *,
        fold: Mapping[str, int] | None = None,
        expect: Mapping[str, tuple[int, int]] | None = None,
        outbox: tuple[str, Sequence[OutgoingRecord]] | None = None,
    ) -> bool:
        """Keep what events of the controls say; queues that limits stopped are looked at again.

        `fold` says that these are all events up to its positions, by name of a partition. Without it the store has to know of a fold: False if
        it was emptied, and has to be folded first. `expect` maps partitions that they were read from to (position before, position after):
        False if the store is elsewhere.
        """
        fields: dict[str, bytes] = {}
        guards: list[Guard] = []
        for one in changes:
            fields |= one.fields
            guards += one.guards
        name, records = outbox or ("", ())
        packed = msgspec.msgpack.encode(
            {
                "fold": False if fold is None else list(fold.items()),
                "expect": [(place, str(old), str(new)) for place, (old, new) in (expect or {}).items()],
                "guards": guards,
                "outbox": (self._instance, name) if records else False,
            }
        )
        pairs = [part for field in fields.items() for part in field]
        arguments = [self._prefix, packed, msgspec.msgpack.encode(records), *pairs]
        answer = await self._control(keys=[self._key("controls")], args=arguments)
        return bool(answer != b"lost")

    async def version(self) -> str:
        """Return a text that changes with every declaration; `NONE` when the store knows of none."""
        found = await self._redis.hget(self._key("controls"), VERSION)
        return found.decode() if found is not None else NONE

    async def load(self) -> tuple[str, Controls]:
        """Return what holds now, and its version."""
        found = await self._redis.hgetall(self._key("controls"))
        version = found.pop(VERSION, NONE.encode())
        # What was applied of a command only means something once the command is known.
        names = sorted(found, key=lambda name: (name.startswith(b"BulkApplied/"), name))
        return version.decode(), Controls(decode(found[name]) for name in names)

    async def forget(self, names: Sequence[str], *, guards: Sequence[str]) -> None:
        """Remove what is over for good: bulk commands that were applied everywhere."""
        await self.note([Noted(fields=dict.fromkeys(names, b""), guards=tuple(Guard(name, "") for name in guards))])

    async def declared(self, guards: Mapping[str, str]) -> dict[str, tuple[str, Place | None]]:
        """Return the values of guards, each with where the schedule or bulk command was declared that it belongs to: read in one step."""
        found = await self.guards([*guards, *(f"place/{subject}" for subject in guards.values())])
        places = {subject: found[f"place/{subject}"] for subject in guards.values()}
        return {
            name: (found[name], msgspec.json.decode(places[subject], type=Place) if places[subject] else None)
            for name, subject in guards.items()
        }

    async def guards(self, names: Sequence[str]) -> dict[str, str]:
        """Return the values of guards, empty where there is none."""
        if not names:
            return {}
        values = await self._redis.hmget(self._key("guards"), list(names))
        return {name: value.decode() if value else "" for name, value in zip(names, values, strict=True)}

    # What breakers count

    async def counted(self) -> dict[str, Counted]:
        """Return what was observed of each destination since it was forgotten last."""
        subjects = [one.decode() for one in await self._redis.smembers(self._key("counted"))]
        async with self._redis.pipeline(transaction=False) as pipe:
            for subject in subjects:
                pipe.hgetall(self._key(f"counts:{subject}"))
            answers = await pipe.execute()
        return {
            subject: Counted(**{name.decode(): int(number) for name, number in found.items()})
            for subject, found in zip(subjects, answers, strict=True)
        }

    async def count_since(self, subjects: Sequence[str], now: int) -> None:
        """Note when counting began."""
        for subject in subjects:
            await self._redis.hsetnx(self._key(f"counts:{subject}"), "since", now)

    async def forget_counts(self, subject: str) -> None:
        """Begin to count anew."""
        await self._redis.delete(self._key(f"counts:{subject}"))
        await self._redis.srem(self._key("counted"), subject)

    async def depths(self) -> dict[QueueKey, int]:
        """Return how many jobs wait in all ready queues."""
        return depths_of(await self._redis.hgetall(self._key("depths")))

    # Families and failures

    async def children(self, ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the unfinished children of jobs."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for one in ids:
                pipe.smembers(self._key(f"children:{one}"))
            answers = await pipe.execute()
        return {one: tuple(sorted(child.decode() for child in found)) for one, found in zip(ids, answers, strict=True)}

    async def cancel_trees(self, ids: Collection[str]) -> None:
        """Let nobody accept children of these jobs any more who did not see that they are cancelled."""
        if ids:
            async with self._redis.pipeline(transaction=False) as pipe:
                for one in ids:
                    pipe.set(self._key(f"tree:{one}"), 1, ex=TOMBSTONE_SECONDS)
                await pipe.execute()

    async def cancelled_trees(self, ids: Collection[str]) -> frozenset[str]:
        """Return those jobs whose children are cancelled with them."""
        if not ids:
            return frozenset()
        names = sorted(ids)
        found = await self._redis.mget([self._key(f"tree:{one}") for one in names])
        return frozenset(name for name, mark in zip(names, found, strict=True) if mark is not None)

    async def open_jobs(self, partition: int, after: int, most: int) -> list[tuple[str, int]]:
        """Return unfinished jobs in the order of their submissions, each with its offset, those after one offset."""
        return await self._ids(f"open:{partition}", after, most)

    async def failed_jobs(self, partition: int, after: int, most: int) -> list[tuple[str, int]]:
        """Return failed jobs whose work was not asked for again, as `open_jobs` does."""
        return await self._ids(f"failed:{partition}", after, most)

    async def _ids(self, key: str, after: int, most: int) -> list[tuple[str, int]]:
        found: Sequence[tuple[bytes, float]] = await self._redis.zrangebyscore(
            self._key(key), f"({after}", "+inf", start=0, num=most, withscores=True
        )
        return [(name.decode(), int(score)) for name, score in found]

    async def forget_failures(self, partition: int, after: int, most: int) -> int:
        """Forget some of the failures whose jobs are no longer remembered; returns after which offset to go on, -1 at the end."""
        found = await self.failed_jobs(partition, after, most)
        async with self._redis.pipeline(transaction=False) as pipe:
            for name, _ in found:
                pipe.exists(self._key(f"job:{name}"))
            kept = await pipe.execute() if found else []
            for (_, offset), known in zip(found, kept, strict=True):
                if not known:  # By its place: a job of that name that came and failed since has another one.
                    pipe.zremrangebyscore(self._key(f"failed:{partition}"), offset, offset)
            if not all(kept):
                await pipe.execute()
        return found[-1][1] if len(found) == most else -1

    async def in_flight(self, partitions: Iterable[int]) -> int:
        """Return how many jobs are accepted and not concluded."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for partition in partitions:
                pipe.zcard(self._key(f"open:{partition}"))
            return sum(await pipe.execute())


class LiveControls:
    """What operators declared, as this instance last saw it."""

    def __init__(self, store: ControlStore) -> None:
        """Know nothing yet."""
        self._store = store
        self.now = Controls()
        self.version = NONE

    async def follow(self, version: str) -> None:
        """Read what holds under this version, unless it is known."""
        if version != self.version:
            self.version, self.now = await self._store.load()
