"""A worker process: runs handlers of a runner one after the other, for `executor="process"`.

Started by `processes` as `python -m controlplane.runner.worker package.module:runner FD`, where FD is a socket to its runner. It ends when
that socket closes: no worker outlives its runner, however that ends.
"""

import asyncio
import logging
import os
import queue
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection

import msgspec

from controlplane.events.texts import valid_text
from controlplane.events.types import LogLine
from controlplane.runner.context import JobContext
from controlplane.runner.contract import arguments_of, result_json
from controlplane.runner.definition import Runner
from controlplane.runner.errors import Refused, failure
from controlplane.runner.joblogs import HANDLER_LOG, JobLogHandler
from controlplane.runner.loading import load_runner
from controlplane.runner.reports import Execute, FromWorker, Logged, Raised, Returned, Stop, Stopped, ToWorker

_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)


class Worker:
    """The work of one worker process."""

    def __init__(self, runner: Runner, connection: Connection) -> None:
        """Serve one runner process."""
        self._runner = runner
        self._connection = connection
        self._to_do: queue.SimpleQueue[Execute] = queue.SimpleQueue()
        self._context: JobContext | None = None
        self._sending = threading.Lock()

    def run(self) -> None:
        """Run what is sent, until the runner goes."""
        threading.Thread(target=self._listen, daemon=True, name="listen").start()
        while True:
            task = self._to_do.get()
            context = self._context = JobContext(task.facts, self._send)
            outcome = self._outcome(task, context)
            self._context = None
            self._send(outcome)

    def _listen(self) -> None:
        try:
            while True:
                match _decoder.decode(self._connection.recv_bytes()):
                    case Execute() as task:
                        self._to_do.put(task)
                    case Stop(reason=reason) if (context := self._context) is not None:
                        context.stop(reason)
        except (EOFError, OSError):
            os._exit(0)  # The runner is gone: whatever the handler still does counts for nothing.

    def _send(self, message: FromWorker) -> None:
        with self._sending:
            self._connection.send_bytes(_encode(message))

    def _log_line(self, line: LogLine) -> None:
        self._send(Logged(line=line))

    def _outcome(self, task: Execute, context: JobContext) -> FromWorker:
        """Return how one attempt ended; whatever its handler raises is told to the runner."""
        handler = self._runner.handlers[task.facts.job_type, task.major]
        token = HANDLER_LOG.set(self._log_line)
        try:
            result = handler.function(*arguments_of(handler, task.payload, context, sealed=task.sealed))
            kept = result_json(handler, result, context.attempt_id, sealed=task.sealed)
            return Returned(result=kept, claims=context.claims)
        except asyncio.CancelledError as error:
            return Stopped() if context.cancelled else _raised(error, task)
        except Refused as refused:
            return Raised(error=refused.error)
        except BaseException as error:  # noqa: BLE001 -- whatever a handler raises is told to the runner
            return _raised(error, task)
        finally:
            HANDLER_LOG.reset(token)


def _raised(error: BaseException, task: Execute) -> Raised:
    told = failure(error, task.facts.attempt_id, sealed=task.sealed)
    return Raised(error=told, details=valid_text("".join(traceback.format_exception(error))))


def main(target: str, descriptor: str) -> None:
    """Serve the runner process at the other end of a socket."""
    # Ctrl-C reaches the whole terminal group; when to stop is the runner's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, handlers=[JobLogHandler()])
    Worker(load_runner(target), Connection(int(descriptor))).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
