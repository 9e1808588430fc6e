"""The data folder of a stack: held by one process, with a file that says what runs on it and where."""

import os
import shutil
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

import msgspec

from controlplane.local.errors import FolderInUse

RECORD_NAME: Final = "stack.json"
# Someone who only looks whether the folder is held holds it for a moment; an owner waits that long.
HOLD_WITHIN_SECONDS: Final = 1.0


class ChildMark(msgspec.Struct, frozen=True, kw_only=True):
    """A child process: its pid, and when it was born, so that another process with the same pid is not taken for it."""

    pid: int
    born: str | None


class StackRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What `stack.json` says. The ports stay when the stack stops, so that it comes back where it was."""

    supervisor_pid: int | None = None
    started_at: str | None = None
    ports: dict[str, int] = {}
    addresses: dict[str, str] = {}
    children: dict[str, ChildMark] = {}
    certificates: str | None = None
    """Folder of the certificates with which everything here is spoken to; none: plain text."""


class HeldFolder:
    """A data folder that no other process can hold at the same time; the hold ends with this process, however it ends."""

    def __init__(self, folder: Path, lock: IO[str]) -> None:
        """Wrap a lock already taken; `hold` takes it."""
        self.folder = folder
        self._lock = lock

    def write(self, record: StackRecord) -> None:
        """Replace the record as a whole; only the owner may read it."""
        text = msgspec.json.format(msgspec.json.encode(record), indent=2)
        write_private(self.folder / RECORD_NAME, text.decode() + "\n")

    def release(self) -> None:
        """Let others hold the folder."""
        self._lock.close()


def hold(folder: Path) -> HeldFolder:
    """Hold the data folder, making it on the first call.

    Raises:
        FolderInUse: another process holds it; the message says which and since when.
    """
    import fcntl  # Not on every platform; where it is missing, the stack says so before it gets here.

    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "stack.lock").open("w")
    give_up = time.monotonic() + HOLD_WITHIN_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return HeldFolder(folder, lock)
        except BlockingIOError:
            if time.monotonic() >= give_up:
                lock.close()
                record = read_record(folder)
                raise FolderInUse(
                    f"Expected {folder} to be free, but a stack runs on it "
                    f"(process {record.supervisor_pid}, since {record.started_at})."
                ) from None
            time.sleep(0.05)


def is_held(folder: Path) -> bool:
    """Whether some process holds the data folder."""
    import fcntl

    try:
        with (folder / "stack.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def read_record(folder: Path) -> StackRecord:
    """Return what the folder's record says, or an empty record where there is none that can be read."""
    try:
        return msgspec.json.decode((folder / RECORD_NAME).read_bytes(), type=StackRecord)
    except (FileNotFoundError, msgspec.DecodeError):
        return StackRecord()


def write_private(path: Path, text: str) -> None:
    """Replace the file as a whole with one that only its owner may read."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)


def now_text() -> str:
    """Return the time now as people and programs read it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def mark(pid: int) -> ChildMark:
    """Return the mark of a process that lives."""
    return ChildMark(pid=pid, born=birth(pid))


def birth(pid: int) -> str | None:
    """Return when the process was born, in the system's own words; None when there is no such process or no way to know."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            # The name in parentheses may hold anything; after it, the 20th field is the start in clock ticks.
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] == "Z" else fields[19]
    listing = shutil.which("ps")
    if listing is None:
        return None
    told = subprocess.run((listing, "-o", "lstart=", "-p", str(pid)), capture_output=True, text=True, check=False)
    return told.stdout.strip() or None


def end_leftovers(record: StackRecord) -> tuple[str, ...]:
    """Kill what an earlier stack on this folder left behind and return the names; the folder must be held."""
    ended = []
    for name, child in record.children.items():
        if child.born is not None and birth(child.pid) == child.born:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            ended.append(name)
            while birth(child.pid) == child.born:
                time.sleep(0.01)
    return tuple(ended)
