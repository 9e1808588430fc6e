"""The children of one process: started in order, followed, stopped in reverse order, never left behind."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

from controlplane.local import watchdog
from controlplane.local.process import ON_CRASH, Child, ChildSpec, Phase, Probe, Restart


class Supervisor:
    """Starts and follows child processes. When this process dies, even by SIGKILL, so do they."""

    def __init__(self, *, log_folder: Path, changed: Callable[[], None] | None = None) -> None:
        """Prepare a supervisor; `changed` is called whenever a child's process begins or ends."""
        self.log_folder = log_folder
        self._changed = changed
        self._children: dict[str, Child] = {}
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._lock = Lock()

    @property
    def children(self) -> Mapping[str, Child]:
        """All children by name, in the order they were added."""
        return dict(self._children)

    def __getitem__(self, name: str) -> Child:
        return self._children[name]

    def pids(self) -> dict[str, int]:
        """Return the pid of every child whose process lives."""
        return {name: child.pid for name, child in self.children.items() if child.pid is not None}

    def add(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        ready: Probe | None = None,
        restart: Restart = ON_CRASH,
        folder: Path | None = None,
        whole_environment: Mapping[str, str] | None = None,
        ready_within_seconds: float = 60.0,
        stop_within_seconds: float = 10.0,
        begin: bool = True,
    ) -> Child:
        """Add a child and begin it at once, without waiting until it is ready.

        `env` is added to this process's environment (or to `whole_environment` in its place); output goes to `NAME.log`
        in the log folder. A child that crashes comes back as `restart` says; one that ends with exit code 0 is done.

        Raises:
            ValueError: a child of that name exists.
        """
        if name in self._children:
            raise ValueError(f"Expected a new name for a child, but {name} exists.")
        environment = dict(os.environ if whole_environment is None else whole_environment) | dict(env or {})
        spec = ChildSpec(
            name=name,
            argv=tuple(map(str, argv)),
            environment=environment,
            folder=folder,
            log_file=self.log_folder / f"{name}.log",
            ready=ready,
            ready_within_seconds=ready_within_seconds,
            stop_within_seconds=stop_within_seconds,
            restart=restart,
        )
        child = Child(spec, born=self._born, gone=self._gone)
        self._children[name] = child
        if begin:
            child.begin()
        return child

    def remove(self, name: str) -> None:
        """Stop a child and forget it."""
        self._children[name].stop()
        del self._children[name]

    def wait_ready(self) -> None:
        """Wait until every child is ready, each within its own bound.

        Raises:
            ChildNotReady: one ended or did not answer in time.
        """
        for child in self.children.values():
            child.wait_ready()

    def ended(self) -> tuple[Child, ...]:
        """Return the children that ended by themselves and will not come back."""
        return tuple(child for child in self.children.values() if child.phase is Phase.ENDED)

    def wait_until_one_ended(self, within_seconds: float | None = None) -> tuple[Child, ...]:
        """Wait until some child has ended for good; return those that have, or nothing when the time is over."""
        limit = None if within_seconds is None else time.monotonic() + within_seconds
        while not self.ended() and (limit is None or time.monotonic() < limit):
            time.sleep(0.1)  # Short sleeps, so that signals reach the caller's handlers.
        return self.ended()

    def stop(self) -> None:
        """Stop all children, the last added first, and forget them."""
        for name in reversed(list(self._children)):
            self.remove(name)
        with self._lock:
            if self._watchdog and self._watchdog.stdin:
                self._watchdog.stdin.close()
                self._watchdog.wait()
            self._watchdog = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _born(self, pid: int) -> None:
        self._tell(f"+{pid}\n")
        if self._changed:
            self._changed()

    def _gone(self, pid: int) -> None:
        self._tell(f"-{pid}\n")
        if self._changed:
            self._changed()

    def _tell(self, line: str) -> None:
        with self._lock:
            if self._watchdog is None or self._watchdog.poll() is not None:
                self._watchdog = self._new_watchdog()
            assert self._watchdog.stdin is not None
            self._watchdog.stdin.write(line.encode())
            self._watchdog.stdin.flush()

    def _new_watchdog(self) -> subprocess.Popen[bytes]:
        started = subprocess.Popen(
            (sys.executable, "-I", "-S", watchdog.__file__, str(os.getpid())),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert started.stdin is not None
        # One that was killed had been told of these.
        started.stdin.write("".join(f"+{pid}\n" for pid in self.pids().values()).encode())
        return started
