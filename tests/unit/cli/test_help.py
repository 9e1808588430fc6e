"""Every command explains itself, speaks JSON where it asks a gateway, completes, and says what to do when nobody answers."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from typer.testing import CliRunner

from controlplane.cli.asking import without_answer
from controlplane.cli.main import app
from controlplane.cli.top import bar, spark


def commands(group: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, one in group.commands.items():
        if hasattr(one, "commands"):  # Typer's groups are none of click's.
            yield from commands(one, (*names, name))
        else:
            yield (*names, name), one


COMMANDS = dict(commands(typer.main.get_command(app)))


WITHOUT_JSON = {
    ("up",), ("runner",), ("service",), ("init",), ("tokens", "init"), ("certs", "authority", "announce"), ("certs", "authority", "adopt"),
    ("certs", "authority", "retire"), ("audit", "checkpoints", "export"), ("audit", "prove"), ("bench", "all"),
}  # fmt: skip
"""They run or make something, or print JSON anyway; docs/cli.md names them."""


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_a_command_says_what_it_does_and_speaks_json(names: tuple[str, ...]) -> None:
    command = COMMANDS[names]
    assert command.help
    assert command.help.rstrip().endswith((".", ")")), command.help
    options = {option for parameter in command.params for option in parameter.opts}
    assert ("--json" in options) is (names not in WITHOUT_JSON)


def test_the_first_page_names_the_groups_and_examples() -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    for words in ("Run it", "Jobs", "Truth and why", "Operate", "controlplane up", "--install-completion"):
        assert words in text


def test_when_nobody_answers_it_says_how_to_start_it(unused_tcp_port: int) -> None:
    address = f"http://127.0.0.1:{unused_tcp_port}"
    done = CliRunner().invoke(app, ["runners", "--gateway", address])
    assert (done.exit_code, done.output.strip()) == (3, f"controlplane: {without_answer(address)}")
    assert "controlplane up" in done.output


def test_the_shell_completes_commands() -> None:
    environment = {
        **os.environ,
        "_CONTROLPLANE_COMPLETE": "complete_bash",
        "COMP_WORDS": "controlplane eve",
        "COMP_CWORD": "1",
    }
    command = Path(sys.executable).with_name("controlplane")
    done = subprocess.run([command], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["events"]


def test_a_scaffold_passes_its_own_tests(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["init", "wordcount", "--folder", str(tmp_path)])
    assert done.exit_code == 0, done.output
    made = tmp_path / "wordcount"
    tested = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", made, made], cwd=made, capture_output=True, text=True, check=False)  # fmt: skip
    assert "2 passed" in tested.stdout, tested.stdout
    assert CliRunner().invoke(app, ["init", "wordcount", "--folder", str(tmp_path)]).exit_code == 2
    assert CliRunner().invoke(app, ["init", "Word Count", "--folder", str(tmp_path)]).exit_code == 2


def test_pictures_of_numbers_are_as_high_and_wide_as_they_say() -> None:
    assert spark([0, 1, None, 4, 8]) == " ▁ ▄█"
    assert spark([0, None]) == "  "
    assert (bar(0, 4), bar(0.5, 4), bar(2, 4)) == ("░░░░", "██░░", "████")
