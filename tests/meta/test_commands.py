"""The commands that the documentation names exist in the Makefile, and the Makefile explains each."""

import re

from tests.meta.repository import ROOT, files_named, text

TARGETS = set(re.findall(r"^([a-z][a-z-]*):", text("Makefile"), re.MULTILINE))
DOCUMENTED = set(re.findall(r"^([a-z][a-z-]*):.*## \S", text("Makefile"), re.MULTILINE))


def test_commands_in_the_documentation_exist() -> None:
    named = re.compile(r"(?:^|[`$] ?|&& )make ([a-z][a-z-]*)", re.MULTILINE)
    unknown = {page: set(named.findall(text(page))) - TARGETS for page in [*files_named(".md"), ".ci/run"]}
    assert {page: commands for page, commands in unknown.items() if commands} == {}


def test_every_command_is_explained() -> None:
    assert sorted(TARGETS - DOCUMENTED) == []


def test_the_commands_that_people_rely_on_exist() -> None:
    assert {
        "help",
        "setup",
        "demo",
        "test",
        "check",
        "bench",
        "simulate",
        "schemas",
        "docs",
        "lock",
        "clean",
    } <= TARGETS


def test_links_between_pages_lead_somewhere() -> None:
    links = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
    assert [
        f"{page} -> {target}"
        for page in files_named(".md")
        for target in links.findall(text(page))
        if not ((ROOT / page).parent / target).exists()
    ] == []
