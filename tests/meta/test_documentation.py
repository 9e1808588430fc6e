"""Every example in the documentation is run, or the page says why not."""

import re
import subprocess
from pathlib import Path
from textwrap import dedent

import pytest

from tests.meta.documentation import ExampleError, blocks, run_examples, unmarked
from tests.meta.repository import ROOT, files_named, text


def pages_with_examples() -> list[str]:
    """Return the committed pages that have something to run: every pytest worker must see the same."""
    names = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    return [name for name in names if any(block.marker == "runnable" for block in blocks(text(name)))]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", pages_with_examples())
def test_examples_do_what_the_page_says(page: str, tmp_path: Path) -> None:
    run_examples(text(page), tmp_path)


def test_every_example_is_run_or_says_why_not() -> None:
    silent = {page: unmarked(text(page)) for page in files_named(".md")}
    assert {page: lines for page, lines in silent.items() if lines} == {}


def page(content: str) -> str:
    """Return a page written with ''' for its fences."""
    return dedent(content).replace("'''", "```")


RIGHT = """
    <!-- file: names/greeting.py -->
    '''python
    GREETING = "Hello"
    '''

    <!-- runnable -->
    '''python
    from names.greeting import GREETING
    print(GREETING, 42)
    '''
    Prints:
    <!-- output -->
    '''
    Hello ...
    '''
    <!-- runnable: background -->
    '''console
    $ python -u -c 'import time; print("ready at port 7"); time.sleep(600)'
    ready at port ...
    '''
    <!-- runnable -->
    '''console
    $ echo one \\
        two
    one two
    $ true
    '''
    <!-- runnable: eventually -->
    '''console
    $ echo x >> tries; wc -l < tries
    3
    '''
    <!-- not run: it would take a week -->
    '''bash
    sleep 604800
    '''
"""


def test_a_page_that_tells_the_truth_passes(tmp_path: Path) -> None:
    run_examples(page(RIGHT), tmp_path)
    assert unmarked(page(RIGHT)) == []


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("Hello ...", "Goodbye ...", r"Expected from the block before it:\s+Goodbye"),
        ("print(GREETING, 42)", "print(GREETNG)", "NameError"),
        ("one two\n", "one three\n", "one three"),
        ("$ true", "$ false", "it ended with 1"),
        ("ready at port ...", "ready at last", "to print:\\s+ready at last"),
    ],
)
def test_a_page_that_does_not_fails(right: str, wrong: str, message: str, tmp_path: Path) -> None:
    content = RIGHT.replace(right, wrong)
    assert content != RIGHT
    if wrong == "ready at last":
        content = content.replace("time.sleep(600)", "exit()")
    with pytest.raises(ExampleError, match=re.compile(message)):
        run_examples(page(content), tmp_path)


ENDS_EARLY = """
    <!-- runnable: background -->
    '''console
    $ bash -c 'echo $$ > pid; echo ready'
    ready
    '''
    <!-- runnable -->
    '''console
    $ until grep -q ' Z ' /proc/$(cat pid)/stat; do sleep 0.02; done
    '''
"""


@pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="Expected /proc, which tells when a process has ended."
)
def test_a_page_whose_server_ends_early_fails(tmp_path: Path) -> None:
    with pytest.raises(ExampleError, match="it ended before the page did"):
        run_examples(page(ENDS_EARLY), tmp_path)


def test_an_example_that_says_nothing_is_found() -> None:
    assert unmarked(page("Run this:\n'''python\nprint(1)\n'''\n\n'''json\n{}\n'''\n")) == [2]
