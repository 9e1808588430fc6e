"""What everything simulated shares: chance from the seed, virtual time, the faults in force, and the journal that a reader gets."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, Final

import msgspec

from controlplane.events.identity import Instant

BEGIN: Final = 1_800_000_000_000_000
"""The present at virtual second 0, in microseconds since 1970."""


class Faults(msgspec.Struct, kw_only=True):
    """How often what goes wrong, per step of a process; all zero once the history heals."""

    store_refuses: float = 0.0
    """The connection to the store breaks before the command arrives."""
    store_answer_lost: float = 0.0
    """It breaks after the command was executed."""
    log_gives_up: float = 0.0
    """A producer session ends; what was on its way may or may not be on the log."""
    redelivered: float = 0.0
    """A batch that was read before is delivered again."""
    slow_step: float = 0.0
    """A step takes seconds instead of milliseconds."""


class Bell:
    """Wakes everybody who waits for it: time passes without anybody looking again and again."""

    def __init__(self) -> None:
        """Nobody waits yet."""
        self._rung: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake whoever waits now."""
        if self._rung is not None and not self._rung.done():
            self._rung.set_result(None)
        self._rung = None

    async def wait(self) -> None:
        """Return at the next ring."""
        if self._rung is None:
            self._rung = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._rung)


class World:
    """One history's chance, time and journal."""

    def __init__(self, seed: int) -> None:
        """Begin; the loop that runs is the history's clock."""
        self.seed = seed
        self.random = random.Random(seed)
        self.loop = asyncio.get_running_loop()
        self.faults = Faults()
        self.journal: list[tuple[float, str]] = []
        self.failures: list[str] = []
        self.log_away_until = 0.0
        """While the brokers do not answer: what is sent arrives afterwards, and nobody reads."""
        self._numbers: dict[str, int] = {}

    @property
    def seconds(self) -> float:
        """Return the virtual time since the beginning."""
        return self.loop.time()

    def now(self) -> Instant:
        """Return the true present; processes' own clocks may be off."""
        return Instant(BEGIN + int(self.seconds * 1_000_000))

    @property
    def log_away(self) -> bool:
        """Say whether the brokers do not answer."""
        return self.seconds < self.log_away_until

    def happens(self, probability: float) -> bool:
        """Draw whether something happens."""
        return probability > 0 and self.random.random() < probability

    def new_id(self, kind: str) -> str:
        """Return the next id of its kind: short, so that a history can be read."""
        self._numbers[kind] = self._numbers.get(kind, 0) + 1
        return f"{kind}{self._numbers[kind]}"

    def note(self, text: str) -> None:
        """Add a line to the journal."""
        self.journal.append((self.seconds, text))

    def fail(self, text: str) -> None:
        """Note that a promise was broken; the history goes on, so that all its breaches are told."""
        self.note(f"BROKEN  {text}")
        self.failures.append(text)


class Process:
    """Something that can crash, freeze and have a wrong clock. Its steps take time, and its tasks end with it."""

    def __init__(self, world: World, name: str) -> None:
        """Start it."""
        self.world = world
        self.name = name
        self.alive = True
        self.clock_off_micros = 0
        self._going = asyncio.Event()
        self._going.set()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def frozen(self) -> bool:
        """Say whether it is stopped and will go on later."""
        return not self._going.is_set()

    def now(self) -> Instant:
        """Return the present as this process has it."""
        return Instant(self.world.now() + self.clock_off_micros)

    def start(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run a task for as long as the process lives."""
        task = self.world.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed(error)

    def failed(self, error: BaseException) -> None:
        """Take the end of a task by an error; a process that knows better overrides this."""
        self.world.fail(f"{self.name} ended by {type(error).__name__}: {error}")

    async def step(self) -> None:
        """Let time pass as a call to another machine does; a dead process never returns, a frozen one later."""
        slow = self.world.happens(self.world.faults.slow_step)
        await asyncio.sleep(self.world.random.uniform(0.5, 4.0) if slow else self.world.random.uniform(0.0001, 0.002))
        await self._going.wait()
        if not self.alive:
            raise asyncio.CancelledError

    def freeze(self) -> None:
        """Stop it where it stands."""
        self._going.clear()

    def thaw(self) -> None:
        """Let it go on."""
        self._going.set()

    def die(self) -> None:
        """End it without any clean-up."""
        self.alive = False
        self._going.set()
        current = asyncio.current_task()
        for task in list(self._tasks):
            if task is not current:
                task.cancel()
