"""Small files that appear whole or not at all, wherever they are: of two that publish one name at once, the first one stays."""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import fsspec
from fsspec.implementations.local import LocalFileSystem

LOCK: Final = ".lock"
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})
"""What file systems say that cannot give a file a second name."""
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})


class WholeFiles:
    """Files of some bytes below an fsspec URL."""

    def __init__(self, url: str) -> None:
        """Open the place; nothing is read or made yet."""
        files, root = fsspec.core.url_to_fs(url)
        self._place: Final = _Folder() if isinstance(files, LocalFileSystem) else _Elsewhere(files)
        self._root = str(root).rstrip("/")

    def read(self, name: str) -> bytes:
        """Return the bytes of a file; none where there is no such file, or an empty one."""
        return self._place.read(f"{self._root}/{name}")

    def publish(self, name: str, data: bytes) -> None:
        """Keep a new file; what is there already stays as it is, so whoever publishes reads what counts."""
        self._place.publish(f"{self._root}/{name}", data)

    def replace(self, name: str, data: bytes) -> None:
        """Put a file in the place of what is there: a reader sees the one or the other."""
        self._place.replace(f"{self._root}/{name}", data)


class _Folder:
    """A folder of this machine, or one that it has mounted."""

    def read(self, path: str) -> bytes:
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            return b""

    def publish(self, path: str, data: bytes) -> None:
        """Keep a new file; an empty one in its place counts as none: a crash of an older release left it."""
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        if not published(file, data) and not self.read(path):
            with _alone(file):
                if not self.read(path):  # Nobody has, meanwhile.
                    _replaced(file, data)

    def replace(self, path: str, data: bytes) -> None:
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        with _alone(file, needed=False):  # What cannot be locked, nobody else replaces: they need the lock.
            _replaced(file, data)


class _Elsewhere:
    """Any other file system; an object store gives an object its name when all of it has arrived."""

    def __init__(self, files: Any) -> None:
        self._files = files

    def read(self, path: str) -> bytes:
        try:
            data: bytes = self._files.cat_file(path)
        except FileNotFoundError:
            return b""
        return data

    def publish(self, path: str, data: bytes) -> None:
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        try:
            with self._files.open(path, "xb") as file:  # pipe_file's own "create" looks first and writes then.
                file.write(data)
        except FileExistsError:
            pass  # Whoever asked reads it next.

    def replace(self, path: str, data: bytes) -> None:
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        aside = _aside(path)
        self._files.pipe_file(aside, data)
        self._files.mv(aside, path)


def published(path: Path, data: bytes, mode: int = 0o666) -> bool:
    """Keep a new file in a folder that exists; returns False where there is one of that name, which stays.

    1. Its bytes lie aside, on the disk. A crash after it leaves a file that nobody looks for. 2. They get their name, if it is free.
    """
    aside = Path(_aside(str(path)))
    try:
        _written(aside, data, mode)  # Step 1.
        if not _linked(aside, path):  # Step 2.
            return False
    finally:
        aside.unlink(missing_ok=True)
    _settled(path.parent)
    return True


def _linked(aside: Path, path: Path) -> bool:
    try:
        os.link(aside, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with _alone(path):
            if path.exists():
                return False
            os.replace(aside, path)
    return True


def _replaced(path: Path, data: bytes) -> None:
    aside = Path(_aside(str(path)))
    _written(aside, data, 0o666)
    os.replace(aside, path)
    _settled(path.parent)


def _aside(path: str) -> str:
    return f"{path}.{secrets.token_hex(8)}"


def _written(path: Path, data: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _settled(folder: Path) -> None:
    """Have the disk keep the names in a folder, and the folder's own."""
    for one in (folder, folder.parent):
        descriptor = os.open(one, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _alone(path: Path, *, needed: bool = True) -> Iterator[None]:
    """Let one process at a time take a file's place from another; the lock ends with its holder, however that ends.

    Raises:
        OSError: the file system has no locks, and one is needed.
    """
    with path.with_name(LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if needed or error.errno not in _NO_LOCKS:
                raise
        yield
