"""What operators do: limits, shares, pauses, schedules and bulk commands, drawn from the seed and sent to the log."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from controlplane.events import types
from controlplane.events.header import outside_header
from tests.simulation.witness import EVERY_SECONDS
from tests.simulation.world import World

CRON: Final = f"*/{EVERY_SECONDS} * * * * *"
LIMITED: Final = ("type:heavy", "tenant:red", "key:green/k1", "key:red/*", "key:green/r1")
"""What limits are declared for; a key that nobody declared a limit for runs one at a time."""

Send = Callable[[Any], Awaitable[None]]


class Operators:
    """Declares what this history meets, and takes it back when it is over."""

    def __init__(self, world: World, send: Send, producer: types.Producer, meets: frozenset[str]) -> None:
        """Declare through `send`, in the name of a producer."""
        self._world = world
        self._send = send
        self._producer = producer
        self._meets = meets
        self._schedules: list[types.ScheduleDeclared] = []
        self._paused: set[str] = set()
        self._number = 0

    def _header(self, name: str) -> types.EventHeader:
        self._number += 1
        return outside_header(name, f"operator/{self._number}", self._producer, self._world.now(), tenant="red")

    async def begin(self) -> None:
        """Declare what holds from the start."""
        draw = self._world.random
        if "limits" in self._meets:
            for subject in LIMITED:
                await self._limit(subject)
        if "shares" in self._meets:
            header = self._header("ShareDeclared")
            await self._send(
                types.ShareDeclared(header=header, subject="tenant:red", weight=draw.choice((0.5, 2.0, 3.0)))
            )
        if "schedules" in self._meets:
            await self._schedule("first", overlap=True)
            await self._schedule("second", overlap=False)

    async def meddle(self, until_seconds: float) -> None:
        """Change limits, pause and resume, and give bulk commands now and then."""
        draw = self._world.random
        deeds: dict[str, Callable[[], Awaitable[None]]] = {
            "limits": lambda: self._limit(draw.choice(LIMITED)), "pauses": self._pause, "bulk": self._bulk,
            "schedules": lambda: self._schedule(draw.choice(("first", "second")), overlap=draw.random() < 0.5),
        }  # fmt: skip
        chosen = [deed for name, deed in deeds.items() if name in self._meets]
        while chosen and self._world.seconds < until_seconds:
            await asyncio.sleep(draw.uniform(0.5, 6.0))
            await draw.choice(chosen)()

    async def calm(self) -> None:
        """Resume what is paused, and end the schedules once everything that came is dealt with."""
        for subject in sorted(self._paused):
            await self._send(types.PauseDeclared(header=self._header("PauseDeclared"), subject=subject, paused=False))
        if self._schedules:
            await asyncio.sleep(15.0)
        for name in sorted({one.schedule_id for one in self._schedules}):
            header = self._header("ScheduleRemoved")
            await self._send(types.ScheduleRemoved(header=header, subject=f"schedule:{name}", schedule_id=name))

    async def _limit(self, subject: str) -> None:
        draw = self._world.random
        rate = subject.startswith("key:") and subject.endswith("r1")
        await self._send(
            types.LimitDeclared(
                header=self._header("LimitDeclared"), subject=subject, max_running=None if rate else draw.choice((1, 2, 3)),
                starts=draw.choice((1, 2)) if rate else None, period_seconds=draw.choice((1.0, 2.0)),
            )
        )  # fmt: skip

    async def _pause(self) -> None:
        subject = self._world.random.choice(("type:light", "type:heavy", "pool:default"))
        resumes = subject in self._paused
        self._world.note(f"{subject} is {'resumed' if resumes else 'paused'}")
        (self._paused.remove if resumes else self._paused.add)(subject)
        header = self._header("PauseDeclared")
        await self._send(types.PauseDeclared(header=header, subject=subject, paused=not resumes, reason="drawn"))

    async def _schedule(self, name: str, *, overlap: bool) -> None:
        template = types.JobTemplate(job_type="light", payload=types.Content(data=b'{"size": 1}'))
        declared = types.ScheduleDeclared(
            header=self._header("ScheduleDeclared"), subject=f"schedule:{name}", schedule_id=name, cron=CRON,
            job=template, overlap=overlap,
        )  # fmt: skip
        self._schedules.append(declared)
        await self._send(declared)

    async def _bulk(self) -> None:
        draw = self._world.random
        bulk_id = self._world.new_id("bulk")
        action = draw.choice(("cancel", "cancel", "reprioritise", "retry"))
        self._world.note(f"{bulk_id}: {action}")
        await self._send(
            types.BulkRequested(
                header=self._header("BulkRequested"), subject=f"bulk:{bulk_id}", bulk_id=bulk_id, action=action,
                job_type=draw.choice((None, "light", "heavy")), tenant=draw.choice((None, "red", "green")),
                priority=draw.randint(0, 9) if action == "reprioritise" else None, kill=draw.random() < 0.3, reason="drawn",
            )
        )  # fmt: skip
