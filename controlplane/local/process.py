"""One child process: its log file, its readiness, its end, and its way back after a crash."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from threading import Condition, Thread
from typing import Final

import msgspec

from controlplane.local.errors import ChildNotReady

Probe = Callable[[], str | None]
"""Returns None when the process serves, else what was found instead."""

FIRST_PROBE_PAUSE_SECONDS: Final = 0.01
LONGEST_PROBE_PAUSE_SECONDS: Final = 0.25
LOG_LIMIT_BYTES: Final = 20 * 2**20
LOG_TAIL_LINES: Final = 15


class Restart(msgspec.Struct, frozen=True, kw_only=True):
    """When a child that ended by itself comes back, and after how long."""

    after_crash: bool = True
    first_pause_seconds: float = 0.2
    longest_pause_seconds: float = 10.0
    healthy_after_seconds: float = 10.0
    """A child that lived so long begins again with the first pause."""

    def pause_seconds(self, crashes_in_a_row: int) -> float:
        """Return the pause before the next start: doubled with each crash, up to the longest."""
        doublings = min(max(crashes_in_a_row - 1, 0), 32)
        return min(self.longest_pause_seconds, self.first_pause_seconds * 2.0**doublings)


ON_CRASH: Final = Restart()
NEVER: Final = Restart(after_crash=False)


class Phase(Enum):
    """Where a child is in its life."""

    DOWN = "down"
    STARTING = "starting"
    READY = "ready"
    PAUSED = "waiting to restart"
    ENDED = "ended"


class ChildSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to run and how to treat it."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path | None
    log_file: Path
    ready: Probe | None
    ready_within_seconds: float
    stop_within_seconds: float
    restart: Restart


class Child:
    """A child process in a process group of its own. A thread follows it; all methods may be called from any thread."""

    def __init__(self, spec: ChildSpec, *, born: Callable[[int], None], gone: Callable[[int], None]) -> None:
        """Prepare a child; `born` and `gone` hear the pid of each process group that begins and ends."""
        self.spec = spec
        self._born, self._gone = born, gone
        self._changed = Condition()
        self._phase = Phase.DOWN
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: Thread | None = None
        self._wanted = False
        self._found = "it was not started"
        self._restarts = 0
        self._exit_code: int | None = None

    @property
    def name(self) -> str:
        """The name it was added under."""
        return self.spec.name

    @property
    def phase(self) -> Phase:
        """Where it is in its life."""
        return self._phase

    @property
    def pid(self) -> int | None:
        """The process id while a process lives, else None."""
        process = self._process
        return process.pid if process and process.returncode is None else None

    @property
    def restarts(self) -> int:
        """How often it came back after a crash."""
        return self._restarts

    @property
    def exit_code(self) -> int | None:
        """How its last process ended: the exit status, or minus the signal; None before the first end."""
        return self._exit_code

    def begin(self) -> None:
        """Start the process unless one lives, and return at once."""
        with self._changed:
            if self._thread and self._thread.is_alive():
                if self._wanted:
                    return
                ending = self._thread
            else:
                ending = None
        if ending:
            ending.join()
        with self._changed:
            self._wanted = True
            self._found = "it has not answered yet"
            self._phase = Phase.STARTING
            self._thread = Thread(target=self._follow, name=f"child-{self.name}", daemon=True)
            self._thread.start()

    def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises:
            ChildNotReady: it ended or did not answer in time; the message quotes its log.
        """
        self.begin()
        self.wait_ready()

    def wait_ready(self, within_seconds: float | None = None) -> None:
        """Wait until the process is ready.

        Raises:
            ChildNotReady: it ended for good or did not answer in time; the message quotes its log.
        """
        limit_seconds = self.spec.ready_within_seconds if within_seconds is None else within_seconds
        with self._changed:
            self._changed.wait_for(lambda: self._serves() or self._phase in {Phase.ENDED, Phase.DOWN}, limit_seconds)
            if self._serves():
                return
            found = self._found
        raise ChildNotReady(
            f"Expected {self.name} to be ready within {limit_seconds:g} s, but {found}. "
            f"The end of {self.spec.log_file}:\n{log_tail(self.spec.log_file)}"
        )

    def wait_end(self, within_seconds: float | None = None) -> bool:
        """Wait until no process lives and none will come back; return whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: self._phase in (Phase.ENDED, Phase.DOWN), within_seconds)

    def stop(self) -> None:
        """Ask the process to end, kill it when it does not within its bound, and keep it down."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process as a crash would, without a chance to tidy up, and keep it down until the next start."""
        self._end(signal.SIGKILL)

    def suspend(self) -> None:
        """Freeze the process where it is, as a stalled machine would; returns once it stands still, where the system says so."""
        process = self._signal(signal.SIGSTOP)
        if process is not None and sys.platform == "linux":
            with suppress(ChildProcessError):  # It had ended.
                os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a frozen process go on."""
        self._signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        with self._changed:
            self._wanted = False
            thread = self._thread
            self._changed.notify_all()
        self._signal(how)
        if thread is None:
            return
        thread.join(self.spec.stop_within_seconds)
        if thread.is_alive():
            self._signal(signal.SIGKILL)
            thread.join()

    def _signal(self, which: signal.Signals) -> "subprocess.Popen[bytes] | None":
        with self._changed:
            process = self._process
            if process is None or process.returncode is not None:
                return None
            process.send_signal(which)
            return process

    def _follow(self) -> None:
        """Run the process, and again after each crash, until it ended for good."""
        crashes_in_a_row = 0
        while True:
            began = time.monotonic()
            process = self._spawn()
            if process is not None:
                self._until_ready(process)
                code = process.wait()
                self._reaped(process, code)
            healthy = time.monotonic() - began >= self.spec.restart.healthy_after_seconds
            crashes_in_a_row = 1 if healthy else crashes_in_a_row + 1
            with self._changed:
                comes_back = self._wanted and self._exit_code != 0 and self.spec.restart.after_crash
                if comes_back:
                    self._enter(Phase.PAUSED)
                    pause_seconds = self.spec.restart.pause_seconds(crashes_in_a_row)
                    comes_back = not self._changed.wait_for(lambda: not self._wanted, pause_seconds)
                if not comes_back:
                    self._enter(Phase.ENDED if self._wanted else Phase.DOWN)
                    self._wanted = False
                    return
                self._restarts += 1
                self._enter(Phase.STARTING)

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        try:
            rotate_log(self.spec.log_file)
            with self._changed, self.spec.log_file.open("ab") as log:
                if not self._wanted:
                    return None
                process = subprocess.Popen(
                    self.spec.argv,
                    env=dict(self.spec.environment),
                    cwd=self.spec.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    # Ctrl-C at the terminal is for the supervisor alone: it stops its children in order.
                    start_new_session=True,
                )
                self._process = process
        except OSError as error:
            with self._changed:
                self._found = f"it cannot be run: {error}"
                self._exit_code = 127
            return None
        self._born(process.pid)
        return process

    def _until_ready(self, process: subprocess.Popen[bytes]) -> None:
        pause_seconds = FIRST_PROBE_PAUSE_SECONDS
        while self.spec.ready is not None and self._wanted and process.poll() is None:
            found = self.spec.ready()
            if found is None:
                break
            self._found = found
            time.sleep(pause_seconds)
            pause_seconds = min(LONGEST_PROBE_PAUSE_SECONDS, 1.2 * pause_seconds)
        with self._changed:
            if process.poll() is None and self._wanted:
                self._enter(Phase.READY)

    def _reaped(self, process: subprocess.Popen[bytes], code: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # What the process itself had started.
        self._gone(process.pid)
        with self._changed:
            self._exit_code = code
            self._found = f"it ended with exit code {code}" if code >= 0 else f"it was ended by signal {-code}"

    def _serves(self) -> bool:
        # The thread may not have noticed yet that the process ended.
        return self._phase is Phase.READY and self._process is not None and self._process.poll() is None

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._changed.notify_all()


def rotate_log(path: Path) -> None:
    """Make sure that the log's folder exists, and set aside a log that has grown past its limit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_name(path.name + ".1"))


def log_tail(path: Path, lines: int = LOG_TAIL_LINES) -> str:
    """Return the last lines of a log, or a note that there are none."""
    if not path.exists():
        return "(no log)"
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 16_384))
        text = file.read().decode("utf-8", "replace")
    return "\n".join(text.splitlines()[-lines:]) or "(empty)"
