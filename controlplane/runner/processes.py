"""Worker processes for handlers that would hold the interpreter, or that may have to be killed."""

import logging
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from typing import Final

import msgspec

from controlplane.runner.attempt import Attempt
from controlplane.runner.attempt import Stop as Why
from controlplane.runner.errors import Refused, WorkerDied
from controlplane.runner.reports import Execute, FromWorker, Raised, Returned, Stop, Stopped

OBEY_SECONDS: Final = 5.0
"""A handler that is asked to stop is killed with its process after so long."""

logger = logging.getLogger(__name__)

_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


class WorkerProcess:
    """One worker process and the socket to it."""

    def __init__(self, target: str) -> None:
        """Start the process."""
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "controlplane.runner.worker", target, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=(theirs.fileno(),))
        self._connection = Connection(ours.detach())
        self._sending = threading.Lock()

    def send(self, message: Execute | Stop) -> None:
        """Send a message; that nobody is there to take it shows in `receive`."""
        with self._sending:
            try:
                self._connection.send_bytes(_encode(message))
            except OSError:
                logger.debug("A worker process ended before it was told: %r", message)

    def receive(self) -> FromWorker:
        """Wait for a message.

        Raises:
            WorkerDied: the process ended.
        """
        try:
            return _decoder.decode(self._connection.recv_bytes())
        except (EOFError, OSError) as error:
            code = self._process.wait()
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            raise WorkerDied(
                f"Expected the worker process to run the handler to its end, but it ended {how}."
            ) from error

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def close(self) -> None:
        """End the process and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        self._connection.close()


class WorkerProcesses:
    """As many worker processes as are needed at once; idle ones are used again. `run` is called from threads."""

    def __init__(self, target: str) -> None:
        """Prepare workers for the runner that `package.module:attribute` names."""
        self._target = target
        self._idle: list[WorkerProcess] = []
        self._lock = threading.Lock()
        self._closed = False

    def run(self, attempt: Attempt, payload: bytes) -> Returned:
        """Run an attempt in a worker process and return what its handler returned.

        Raises:
            Refused: the handler failed, or a contract was broken.
            asyncio.CancelledError: the handler stopped because it was asked to.
            WorkerDied: the process ended before the handler did.
        """
        worker = self._taken()
        try:
            outcome = self._conversation(worker, attempt, payload)
        except BaseException:
            worker.close()
            attempt.context.raise_if_cancelled()  # Then it is we who killed it.
            raise
        self._give_back(worker)
        match outcome:
            case Raised(error=error, details=details):
                raise Refused(error, details)
            case Stopped():
                attempt.context.raise_if_cancelled()
                raise WorkerDied("Expected the handler to go on, but it stopped without being asked to.")
            case Returned():
                return outcome

    def warm_up(self) -> None:
        """Start a worker before there is work for it: importing the handlers takes its time."""
        self._give_back(WorkerProcess(self._target))

    def close(self) -> None:
        """End the idle workers; those that work end when they are done, or with this process."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.close()

    def _conversation(self, worker: WorkerProcess, attempt: Attempt, payload: bytes) -> Returned | Raised | Stopped:
        timers: list[threading.Timer] = []

        def stop() -> None:
            if attempt.stop is not Why.REVOKED:
                worker.kill()
                return
            worker.send(Stop(reason=attempt.stop_reason))
            timers.append(threading.Timer(OBEY_SECONDS, worker.kill))
            timers[0].daemon = True
            timers[0].start()

        facts, sealed = attempt.lease.facts, attempt.sealed
        worker.send(Execute(major=attempt.handler.major, facts=facts, payload=payload, sealed=sealed))
        attempt.stopper = stop
        if attempt.stop is not None:
            stop()
        try:
            while True:
                match worker.receive():
                    case Returned() | Raised() | Stopped() as outcome:
                        return outcome
                    case report:
                        attempt.receive(report)
        finally:
            attempt.stopper = None
            for timer in timers:
                timer.cancel()

    def _taken(self) -> WorkerProcess:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return WorkerProcess(self._target)

    def _give_back(self, worker: WorkerProcess) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(worker)
                return
        worker.close()
