"""The examples of the documentation, run as a reader would run them.

A comment on the line above a fenced block says what is to be done with it:

- `<!-- runnable -->`: Python is run; in a console block each line after `$ ` is run by bash, and the lines below it, if any, are the
  output to be seen, where `...` stands for anything.
- `<!-- runnable: eventually -->`: the same, but the commands ask about what is still on its way, so each is repeated until it prints what
  the page shows, as a reader would.
- `<!-- runnable: background -->`: the commands of the block go on running until the end of the page; the lines below each must appear.
- `<!-- file: name -->`: the block is saved under this name, for the blocks after it.
- `<!-- output -->`: what the block before it printed.
- `<!-- not run: reason -->`: the block cannot be run here, and why.

All blocks of a page share one folder and one environment, with ports and a data folder of their own.
"""

import doctest
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

COMMAND_LIMIT_SECONDS: Final = 120
EVENTUALLY_SECONDS: Final = 30
POLL_SECONDS: Final = 0.05
MUST_SAY_WHETHER_THEY_RUN: Final = frozenset({"python", "py", "pycon", "console", "bash", "sh", "shell"})
MARKER: Final = re.compile(r"^\s*<!-- (runnable|file|output|not run)(?:: (.+?))? -->\s*$")
FENCE: Final = re.compile(r"^(\s*)(`{3,}|~{3,})\s*([\w+-]*)")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block of a page."""

    line: int
    language: str
    marker: str
    argument: str
    content: str


def blocks(markdown: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page with the markers above them."""
    lines = markdown.splitlines()
    above = ""
    number = 0
    while number < len(lines):
        opening = FENCE.match(lines[number])
        if not opening:
            above = lines[number] if lines[number].strip() else above
            number += 1
            continue
        indent, fence, language = opening.groups()
        end = next(
            (
                n
                for n in range(number + 1, len(lines))
                if lines[n].strip().startswith(fence) and not lines[n].strip(fence[0] + " ")
            ),
            len(lines),
        )
        marker = MARKER.match(above)
        yield Block(
            line=number + 1,
            language=language,
            marker=marker[1] if marker else "",
            argument=(marker[2] or "") if marker else "",
            content="".join(f"{line.removeprefix(indent)}\n" for line in lines[number + 1 : end]),
        )
        above, number = "", end + 1


def unmarked(markdown: str) -> list[int]:
    """Return the lines of blocks that a reader would run, but of which the page does not say whether they are run."""
    return [
        block.line for block in blocks(markdown) if block.language in MUST_SAY_WHETHER_THEY_RUN and not block.marker
    ]


def matches(expected: str, found: str) -> bool:
    """Return whether an output is the expected one: `...` stands for anything, white space is not compared."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(expected.strip() + "\n", found.strip() + "\n", flags)


def commands(content: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a console block with the output that the page shows below it."""
    for part in re.split(r"^\$ ", content, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        length = 1 + next((n for n, line in enumerate(lines) if not line.rstrip().endswith("\\")), len(lines) - 1)
        yield "".join(lines[:length]), "".join(lines[length:])


class ExampleError(AssertionError):
    """An example does not do what the page says."""


@dataclass(kw_only=True)
class Page:
    """One page while its examples run: a folder, an environment, and what keeps running."""

    folder: Path
    environment: dict[str, str]
    running: ExitStack
    printed: str = ""

    def run(self, block: Block) -> None:
        """Do what the marker of a block says.

        Raises:
            ExampleError: the example fails, or prints something else.
        """
        match block.marker, block.language:
            case "file", _:
                path = self.folder / block.argument
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.content)
            case "output", _:
                self._expect(block.content, self.printed, "the block before it")
            case "runnable", "python" | "py":
                script = self.folder / f"example_of_line_{block.line}.py"
                script.write_text(block.content)
                self._run([sys.executable, str(script)], block.content)
            case "runnable", _ if block.argument == "background":
                for command, expected in commands(block.content):
                    self.running.enter_context(self._started(command, expected))
            case "runnable", _ if block.argument == "eventually":
                for command, expected in commands(block.content):
                    self._run_until(["bash", "-euo", "pipefail", "-c", command], command, expected)
            case "runnable", _:
                for command, expected in commands(block.content):
                    self._run(["bash", "-euo", "pipefail", "-c", command], command)
                    if expected.strip():
                        self._expect(expected, self.printed, command)

    def _run(self, command: Sequence[str], shown: str) -> None:
        done = subprocess.run(
            command,
            check=False,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_SECONDS,
        )
        self.printed = done.stdout
        if done.returncode:
            raise ExampleError(
                f"Expected to run:\n{shown}\nbut it ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
            )

    def _run_until(self, command: Sequence[str], shown: str, expected: str) -> None:
        until = time.monotonic() + EVENTUALLY_SECONDS
        while True:
            try:
                self._run(command, shown)
                return self._expect(expected, self.printed, shown)
            except ExampleError:
                if time.monotonic() > until:
                    raise

    def _expect(self, expected: str, found: str, command: str) -> None:
        if not matches(expected, found):
            raise ExampleError(f"Expected from {command.strip()}:\n{expected}\nbut found:\n{found}")

    @contextmanager
    def _started(self, command: str, expected: str) -> Iterator[None]:
        """Keep a command running during the block, once it has printed what the page shows."""
        output = self.folder / f"output_{time.monotonic_ns()}.txt"
        with output.open("w") as sink:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self.environment,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        try:
            until = time.monotonic() + COMMAND_LIMIT_SECONDS
            while not matches(f"...{expected.strip()}...", output.read_text()):
                if process.poll() is not None or time.monotonic() > until:
                    raise ExampleError(
                        f"Expected {command.strip()} to print:\n{expected}\nbut found:\n{output.read_text()}"
                    )
                time.sleep(POLL_SECONDS)
            yield
            if process.poll() is not None:
                raise ExampleError(
                    f"Expected {command.strip()} to go on, but it ended before the page did:\n{output.read_text()}"
                )
        finally:
            process.send_signal(signal.SIGTERM)  # Does nothing to a process that has ended.
            process.wait(COMMAND_LIMIT_SECONDS)


def free_port() -> str:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of one page: the installed command, and ports and data of its own."""
    gateway, truthcore = free_port(), free_port()
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("CONTROLPLANE_")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "COLUMNS": "200",
        "NO_COLOR": "1",
        "CONTROLPLANE_DATA_DIR": str(folder / "data"),
        "CONTROLPLANE_GATEWAY_PORT": gateway,
        "CONTROLPLANE_GATEWAY_URL": f"http://127.0.0.1:{gateway}",
        "CONTROLPLANE_TRUTHCORE_PORT": truthcore,
        "CONTROLPLANE_TRUTHCORE_URLS": f"http://127.0.0.1:{truthcore}",
    }


def run_examples(markdown: str, folder: Path) -> None:
    """Run all examples of a page in a folder, in order.

    Raises:
        ExampleError: an example fails, or prints something else than the page shows.
    """
    with ExitStack() as running:
        page = Page(folder=folder, environment=environment(folder), running=running)
        for block in blocks(markdown):
            page.run(block)
