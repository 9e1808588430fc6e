"""What no file of the repository may contain, and how long one may get."""

import re
from typing import Final

import pytest

from tests.meta.repository import GENERATED, files, files_named, text

LINES_AT_MOST: Final = 400

# Written in pieces, so that this file does not contain what it looks for.
REGISTRY_HOSTS: Final = tuple(
    re.escape(".".join(parts))
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("repo1", "maven", "org"),
        ("repo", "maven", "apache", "org"),
        ("registry", "npmjs", "org"),
        ("crates", "io"),
        ("proxy", "golang", "org"),
    )
)
MACHINE_PATHS: Final = (r"(?<![\w.])/work/", r"/tmp/" + "cp", r"(?<![\w.])/root/", r"/home/\w+/", r"/Users/\w+/")


@pytest.mark.parametrize("expression", [*REGISTRY_HOSTS, *MACHINE_PATHS])
def test_nothing_names_a_registry_or_a_path_of_one_machine(expression: str) -> None:
    pattern = re.compile(expression)
    found = [
        f"{name}:{number}: {line.strip()[:120]}"
        for name in files()
        if name != "tests/meta/test_files.py"
        for number, line in enumerate(text(name).splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []


def test_no_file_outgrows_its_reader() -> None:
    lengths = {name: len(text(name).splitlines()) for name in files_named(".py", ".js", ".css", ".lua")}
    assert {name: length for name, length in lengths.items() if length > LINES_AT_MOST and name not in GENERATED} == {}


def test_no_work_is_left_as_a_note() -> None:
    note = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    found = [
        name
        for name in files_named(".py", ".lua", ".js", ".toml", ".yaml", ".yml", ".avsc", ".md")
        if name != "tests/meta/test_files.py" and note.search(text(name))
    ]
    assert found == []


def test_names_say_what_a_module_is_about() -> None:
    vague = re.compile(r"(^|/)(utils?|helpers?|managers?|base|common|misc)(\.py|/)")
    assert [name for name in files_named(".py") if vague.search(name)] == []
