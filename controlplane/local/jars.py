"""The broker's jar files: named and pinned by digest in kafka_jars.txt, downloaded once into the user's cache folder."""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import Final

import msgspec
import platformdirs

from controlplane.local.errors import MissingDependency

KAFKA_VERSION: Final = "4.3.1"
DOWNLOAD_ATTEMPTS: Final = 3
DOWNLOADS_AT_ONCE: Final = 6

Report = Callable[[int, int], None]
"""Told after each chunk: bytes done, bytes in total."""


class Jar(msgspec.Struct, frozen=True, kw_only=True):
    """One jar of the class path, as Maven names it, with the digest and size that it must have."""

    group: str
    artifact: str
    version: str
    sha256: str
    size_bytes: int

    @property
    def file_name(self) -> str:
        """The name that Maven repositories give the file."""
        return f"{self.artifact}-{self.version}.jar"


def parse_jars(text: str) -> tuple[Jar, ...]:
    """Read lines of `group:artifact:version sha256 bytes`; empty lines and lines with # in front are skipped."""
    lines = (line.split() for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return tuple(
        Jar(group=group, artifact=artifact, version=version, sha256=sha256, size_bytes=int(size))
        for coordinate, sha256, size in lines
        for group, artifact, version in (coordinate.split(":"),)
    )


def pinned_jars() -> tuple[Jar, ...]:
    """Return the jars of the broker in the order of its class path."""
    return parse_jars(files("controlplane.local").joinpath("kafka_jars.txt").read_text(encoding="utf-8"))


def cache_folder() -> Path:
    """Return the folder kept between installations: CONTROLPLANE_CACHE_DIR, or the platform's user cache folder."""
    configured = os.environ.get("CONTROLPLANE_CACHE_DIR")
    return Path(configured).absolute() if configured else platformdirs.user_cache_path("controlplane")


def kafka_folder() -> Path:
    """Return the folder of this broker version inside the cache; it may not exist yet."""
    return cache_folder() / f"kafka-{KAFKA_VERSION}"


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder against every other process of this machine that prepares it.

    Raises:
        MissingDependency: the folder cannot be written.
    """
    import fcntl  # Not on every platform; where it is missing, the stack says so before it gets here.

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise MissingDependency(
            f"Expected to keep the broker in {folder} (CONTROLPLANE_CACHE_DIR chooses another), but {error}."
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def kafka_class_path() -> tuple[Path, ...]:
    """Return the broker's jars on this machine, downloading what is missing and showing how far it is.

    Raises:
        MissingDependency: jgo is not installed, the cache cannot be written, or a jar could not be downloaded as it was pinned.
    """
    jars = pinned_jars()
    folder = kafka_folder() / "jars"
    if missing_jars(jars, folder):
        with exclusive(kafka_folder()):
            missing = missing_jars(jars, folder)
            if missing:
                with console_progress(f"Apache Kafka {KAFKA_VERSION}") as report:
                    download(missing, folder, report)
    return tuple(folder / jar.file_name for jar in jars)


def missing_jars(jars: tuple[Jar, ...], folder: Path) -> tuple[Jar, ...]:
    """Return the jars that the folder lacks or has in another size (digests are checked when a jar arrives)."""

    def present(jar: Jar) -> bool:
        path = folder / jar.file_name
        return path.is_file() and path.stat().st_size == jar.size_bytes

    return tuple(jar for jar in jars if not present(jar))


def download(jars: tuple[Jar, ...], folder: Path, report: Report) -> None:
    """Put every jar into the folder, whole and with the pinned digest, or raise MissingDependency."""
    total_bytes = sum(jar.size_bytes for jar in jars)
    done_bytes = 0
    counting = Lock()

    def count(chunk_bytes: int) -> None:
        nonlocal done_bytes
        with counting:
            done_bytes += chunk_bytes
            report(done_bytes, total_bytes)

    folder.mkdir(parents=True, exist_ok=True)
    # Arrivals land beside the folder first, so that an interrupted download never looks like a jar.
    arrivals = Path(tempfile.mkdtemp(prefix="arriving-", dir=folder.parent))
    try:
        with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
            for _ in pool.map(lambda jar: _fetch(jar, arrivals, folder, count), jars):
                pass
    finally:
        shutil.rmtree(arrivals, ignore_errors=True)


def _fetch(jar: Jar, arrivals: Path, folder: Path, count: Callable[[int], None]) -> None:
    try:
        import requests  # what jgo downloads with
        from jgo.config import GlobalSettings
        from jgo.constants import MAVEN_CENTRAL_URL
        from jgo.maven import MavenContext, PythonResolver
    except ImportError as error:
        raise MissingDependency(
            f"Expected the packages of the embedded stack (controlplane[embedded]), but {error.name} is not installed."
        ) from error

    @contextmanager
    def progress(_name: str, _size_bytes: int) -> Iterator[Callable[[int], None]]:
        yield count

    # A mirror named in the user's jgo settings is asked where the public repository does not answer.
    repositories = {"central": MAVEN_CENTRAL_URL} | GlobalSettings.load().repositories
    reason = ""
    for attempt in range(DOWNLOAD_ATTEMPTS):
        landing = arrivals / f"{jar.file_name}.{attempt}"
        context = MavenContext(
            resolver=PythonResolver(progress_callback=progress), repo_cache=landing, remote_repos=repositories
        )
        try:
            arrived = context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
        except (requests.RequestException, RuntimeError, OSError) as error:
            reason = f"the download failed: {error}"
            continue
        found = hashlib.sha256(arrived.read_bytes()).hexdigest()
        if found == jar.sha256:
            arrived.replace(folder / jar.file_name)
            return
        reason = f"what arrived has SHA-256 {found}"
    raise MissingDependency(
        f"Expected {jar.file_name} with SHA-256 {jar.sha256}, but {reason}. The first start downloads the broker; without "
        "a network, copy the cache folder of a machine that has it and name it in CONTROLPLANE_CACHE_DIR."
    )


@contextmanager
def console_progress(what: str) -> Iterator[Report]:
    """Show a download on standard error: a bar on a terminal, a line per quarter elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    if sys.stderr.isatty():
        columns = (TextColumn(f"Downloading {what} (once)"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(what)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    shown = -1

    def report(done_bytes: int, total_bytes: int) -> None:
        nonlocal shown
        quarter = 4 * done_bytes // total_bytes
        if quarter > shown:
            shown = quarter
            print(f"Downloading {what} (once): {25 * min(quarter, 4)} % of {total_bytes // 2**20} MiB", file=sys.stderr)

    yield report
