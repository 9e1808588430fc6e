"""Kills the children of a supervisor that died without stopping them. Run as a program of its own, standard library only.

Standard input is a pipe whose other end only the supervisor holds: "+PID" and "-PID" lines say which process groups live.
When the pipe ends, or the supervisor is no longer the parent, every group still named gets SIGKILL.
"""

import os
import select
import signal
import sys

POLL_SECONDS = 1.0


def watch(supervisor_pid: int) -> None:
    """Follow the supervisor until its end, then kill what it left behind."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)  # It ends when the supervisor does, not when the terminal does.
    alive: set[int] = set()
    pending = b""
    # The poll is for a supervisor whose end of the pipe lives on in a process that it forked.
    while True:
        lives = os.getppid() == supervisor_pid  # Asked first: what it said before its end is in the pipe then.
        if not select.select([0], [], [], POLL_SECONDS if lives else 0)[0]:
            if lives:
                continue
            break
        chunk = os.read(0, 4096)
        if not chunk:
            break
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            (alive.add if line.startswith(b"+") else alive.discard)(int(line[1:]))
    for process_group in alive:
        try:
            os.killpg(process_group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


if __name__ == "__main__":
    watch(int(sys.argv[1]))
