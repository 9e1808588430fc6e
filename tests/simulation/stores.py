"""The way to a real Valkey: one blocking connection for all processes, so that the order of commands follows from the seed.

Each process believes to have connections of its own. A command may take a step before it arrives, and its answer always takes one; a
crash, a freeze or a broken connection can meet it at either.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript

from controlplane.jobforge_agent.store import Store
from tests.simulation.world import Process

ON_ITS_WAY: Final = 0.5
"""So many commands take a step before they arrive; the others arrive at once, and only their answers take one."""
RETRIES: Final = 3
"""redis-py sends a command again so often when its connection breaks; its pauses are left out."""

READS: Final = frozenset({
    "GET", "MGET", "HGET", "HMGET", "HGETALL", "HKEYS", "SMEMBERS", "SCARD", "ZRANGE", "ZRANGEBYSCORE", "ZCARD", "ZCOUNT", "EXISTS"
})  # fmt: skip
WRITES_ONE_KEY: Final = frozenset({
    "HSET", "HSETNX", "HDEL", "HINCRBY", "SADD", "SREM", "ZADD", "ZREM", "INCR", "INCRBY", "DEL", "ZREMRANGEBYSCORE"
})  # fmt: skip
LOOKS: Final = "heads"
"""A script that changes nothing which a read returns."""
ABOUT_JOBS: Final = frozenset({"commit", "claim", "park"})
"""Scripts that leave alone what is known of runners and of controls."""
NOT_ABOUT_JOBS: Final = frozenset({"beats", "controls", "draining", "known", "registry", "runners"})
BEATEN: Final = frozenset({"beats", "draining"})
"""What a heartbeat changes."""
NOTES_ONLY: Final = frozenset({"owned", "expect", "places", "outbox", "guards"})
"""Fields of a commit that changes no job."""
NOTED: Final = frozenset({"guards", "instances", "outbox", "positions", "revisions"})
"""What such a commit changes."""
CHANGES_NOTHING: Final = frozenset({"MULTI", "EXEC", "SCRIPT", "PING", "TIME"})
ASK_THE_TIME: Final = frozenset({"claim", "commit", "control", "own"})
"""Scripts that ask for it."""

TIME_KEY: Final = "simulated-time"
"""Where a script finds the time: seconds and microseconds, as the server's own clock gives them."""
TIME: Final = ("redis.call('TIME')", f"{{ string.match(redis.call('GET', prefix .. '{TIME_KEY}'), '(%d+) (%d+)') }}")
EXPIRY: Final = ("redis.call('PEXPIRE', ", "redis.call('EXISTS', ")
"""Keys that expire by the server's own clock would do so too early: the simulated one may be slower."""

Command = tuple[Any, ...]


class Snapshot(msgspec.Struct, frozen=True):
    """All keys of a namespace as they were."""

    dumps: dict[bytes, bytes]


class Known:
    """What the server answered and would answer again: nobody else writes into the namespace, so a read is asked once per write."""

    def __init__(self) -> None:
        """Know nothing."""
        self._answers: dict[Command, Any] = {}
        self._about: dict[Any, set[Command]] = {}

    def answers(self, commands: Sequence[Command]) -> list[Any] | None:
        """Return the answers if all of them are known."""
        if len(commands) == 1 and (first := _first_of(commands[0])) in self._answers:
            found = self._answers[first]
            if not found or found[0][1] > commands[0][3]:
                return [[]]
        if any(command not in self._answers for command in commands):
            return None
        return [_copied(self._answers[command]) for command in commands]

    def learn(self, commands: Sequence[Command], answers: Sequence[Any], scripts: Mapping[str, str]) -> None:
        """Take what was asked and answered, and forget what it changed."""
        for command in commands:
            name = command[0]
            if name in WRITES_ONE_KEY:
                self._forget(command[1])
            elif name not in READS and name not in CHANGES_NOTHING and (script := scripts.get(command[1])) != LOOKS:
                leaves = _leaves_alone(script, command)
                for key in [one for one in self._about if not leaves(one.partition("}:")[2].partition(":")[0])]:
                    self._forget(key)
        for command, answer in zip(commands, answers, strict=True):
            if len(commands) == sum(one[0] in READS for one in commands):
                self._answers[command] = _copied(answer)
                for key in command[1:] if command[0] == "MGET" else command[1:2]:
                    self._about.setdefault(key, set()).add(command)

    def _forget(self, key: str) -> None:
        for read in self._about.pop(key, ()):
            self._answers.pop(read, None)

    def forget(self) -> None:
        """Forget everything."""
        self._answers.clear()
        self._about.clear()


def _first_of(command: Command) -> Command | None:
    """Return what asks for the first of those that a command asks for up to a score: before it is due, none is."""
    return ("ZRANGE", command[1], 0, 0, "WITHSCORES") if command[0] == "ZRANGE" and "BYSCORE" in command else None


def _leaves_alone(script: str | None, command: Command) -> Callable[[str], bool]:
    """Return what says of a kind of keys whether a script leaves it as it is."""
    if script == "beat":
        return lambda kind: kind not in BEATEN
    if script not in ABOUT_JOBS:
        return lambda _: False
    fields = msgspec.msgpack.decode(command[5]) if script == "commit" else {}
    if fields and not any(found for name, found in fields.items() if name not in NOTES_ONLY):
        return lambda kind: kind not in NOTED
    return NOT_ABOUT_JOBS.__contains__


def _copied(answer: Any) -> Any:
    """Return an answer of its own for whoever may change it."""
    return answer.copy() if isinstance(answer, list | dict | set) else answer


class Server:
    """A real Valkey, asked by one blocking connection."""

    def __init__(self, url: str, namespace: str) -> None:
        """Connect; everything in the namespace is the history's."""
        self.namespace = namespace
        self.prefix = f"{{{namespace}}}:"
        self.down = False
        self.incarnation = 0
        """Another number: the server was restarted, every connection to it is broken."""
        self.known = Known()
        self.scripts: dict[str, str] = {}
        """The names of scripts by their digests."""
        self.witness: Callable[[str, str, Command, Any], None] = lambda *_: None
        """Called with the process, name, command and answer of each script that was executed."""
        self.client: Any = redis.Redis.from_url(url)
        self._connection: Any = self.client.connection_pool.get_connection()

    def execute(self, process: Process, commands: Sequence[Command]) -> list[Any]:
        """Execute commands of a process in one go; an error is an answer, too."""
        known = self.known.answers(commands)
        if known is not None:
            return known
        called = [self.scripts.get(command[1], "") if command[0] == "EVALSHA" else "" for command in commands]
        now = divmod(process.world.now(), 1_000_000)
        before: list[Command] = []
        if not ASK_THE_TIME.isdisjoint(called):
            before = [("SET", self.prefix + TIME_KEY, "{} {}".format(*now))]
        wanted = len(commands)
        if wanted == 1 and (first := _first_of(commands[0])):
            commands = [*commands, first]
        self._connection.send_packed_command(self._connection.pack_commands([*before, *commands]))
        answers = [self._answer() for _ in (*before, *commands)][len(before) :]
        answers = [now if command[0] == "TIME" else answer for command, answer in zip(commands, answers, strict=True)]
        self.known.learn(commands, answers, self.scripts)
        for name, command, answer in zip(called, commands[:wanted], answers, strict=False):
            if name and not isinstance(answer, redis.ResponseError):
                self.witness(process.name, name, command, answer)
        return answers[:wanted]

    def _answer(self) -> Any:
        try:
            answer = self._connection.read_response()
        except redis.ResponseError as error:
            return error
        # A hash with long values has no order of its own, and another one in every server.
        return dict(sorted(answer.items())) if isinstance(answer, dict) else answer

    def stored_keys(self) -> list[bytes]:
        """Return the keys of the namespace, sorted."""
        return sorted(self.client.keys(f"{self.prefix.replace('{', '[{]').replace('}', '[}]')}*"))

    def snapshot(self) -> Snapshot:
        """Return what the store holds now."""
        keys = self.stored_keys()
        with self.client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.dump(key)
            return Snapshot(dict(zip(keys, pipe.execute(), strict=True)))

    def restore(self, snapshot: Snapshot | None) -> None:
        """Put the store back to a snapshot, or make it empty, as a restart after a crash can; every connection breaks."""
        self.clear()
        if snapshot is not None and snapshot.dumps:
            with self.client.pipeline(transaction=False) as pipe:
                for key, data in snapshot.dumps.items():
                    pipe.restore(key, 0, data)
                pipe.execute()
        self.incarnation += 1

    def clear(self) -> None:
        """Delete every key of the namespace."""
        self.known.forget()
        if keys := self.stored_keys():
            self.client.delete(*keys)

    def close(self) -> None:
        """Delete what the history left, and disconnect."""
        self.clear()
        self.client.connection_pool.release(self._connection)
        self.client.close()


class SimulatedConnection(AbstractConnection):
    """One connection of one process, as redis-py uses it."""

    def __init__(self, *, server: Server, process: Process, **rest: Any) -> None:
        """Prepare a connection."""
        super().__init__(**rest)
        self._server = server
        self._process = process
        self._incarnation: int | None = None
        self._answers: deque[Any] = deque()
        self._delayed = False

    def repr_pieces(self) -> list[tuple[str, Any]]:
        """Return what tells it from others."""
        return [("process", self._process.name)]

    async def _connect(self) -> None: ...

    def _host_error(self) -> str:
        return "the simulated store"

    @property
    def is_connected(self) -> bool:
        """Say whether it is open."""
        return self._incarnation == self._server.incarnation

    async def connect(self) -> None:
        """Open it."""
        if self._server.down:
            await self._process.step()
            raise redis.ConnectionError("Expected the store to answer, but it is down.")
        self._incarnation = self._server.incarnation

    async def disconnect(self, *_: Any, **__: Any) -> None:
        """Close it."""
        self._incarnation = None
        self._answers.clear()

    async def can_read(self) -> bool:
        """Say whether answers wait that nobody read."""
        return bool(self._answers)

    def pack_command(self, *args: Any) -> Any:
        """Leave a command as it is."""
        return [args]

    def pack_commands(self, commands: Any) -> list[Any]:
        """Leave commands as they are."""
        return [tuple(one) for one in commands]

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Have commands executed, unless the connection breaks before they arrive."""
        world = self._process.world
        if self._incarnation is None:
            await self.connect()
        if world.random.random() < ON_ITS_WAY:
            await self._process.step()
        if world.happens(world.faults.store_refuses) or self._server.down or not self.is_connected:
            await self.disconnect()
            raise redis.ConnectionError("Expected to send a command to the store, but the connection broke.")
        self._answers.extend(self._server.execute(self._process, command))
        self._delayed = True

    async def read_response(self, *_: Any, **__: Any) -> Any:
        """Return the next answer, unless the connection breaks before it arrives."""
        world = self._process.world
        if self._delayed:
            self._delayed = False
            await self._process.step()
            if world.happens(world.faults.store_answer_lost) or self._server.down or not self.is_connected:
                await self.disconnect()
                raise redis.ConnectionError("Expected the store's answer, but the connection broke.")
        answer = self._answers.popleft()
        if isinstance(answer, redis.ResponseError):
            raise answer
        return answer


class SimulatedPool(ConnectionPool):
    """The connections of one process, without what redis-py measures and tells about each of them."""

    async def get_connection(self, *_: Any, **__: Any) -> AbstractConnection:
        """Return a connection that nobody uses."""
        connection: AbstractConnection = self.get_available_connection()  # type: ignore[no-untyped-call] # redis-py's own
        try:
            await self.ensure_connection(connection)
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def release(self, connection: AbstractConnection) -> None:
        """Take a connection back."""
        self._in_use_connections.remove(connection)
        self._available_connections.append(connection)


class SimulatedStore(Store):
    """The shipped store on simulated connections to the real server, whose clock is the simulated one."""

    def __init__(self, server: Server, process: Process) -> None:
        """Belong to a process."""
        self._server = server
        super().__init__("redis://simulated", server.namespace, process.name)
        self._redis.connection_pool = SimulatedPool(
            SimulatedConnection, server=server, process=process, retry=Retry(NoBackoff(), RETRIES), driver_info=None
        )

    def _script(self, name: str) -> AsyncScript:
        script = super()._script(name)
        if str(script.sha) not in self._server.scripts:
            self._server.client.script_load(
                script.script
            )  # Else the first history on a server would have steps more than the second.
            self._server.scripts[str(script.sha)] = name
        return script

    def _text(self, name: str) -> str:
        return super()._text(name).replace(*TIME).replace(*EXPIRY)
