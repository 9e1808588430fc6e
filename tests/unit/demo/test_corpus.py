"""What the two scanners of the corpus say of a module, and where they differ."""

from pathlib import Path

import pytest

from controlplane.demo.corpus import PARSER, SCANNER, Claim, File, claims, files, packages

SOURCE = '''"""def not_a_function(): it stands in a text."""
import json, os.path
from . import sibling
from ..other import thing

class Base(dict, metaclass=type):
    """Documented."""
    def run(self, one, *, two=2) -> int: ...

async def twice(): ...
def twice(a): ...
'''


def said(source: str) -> list[Claim]:
    return list(claims(File("pack", "pack.sub.module", Path("x")), source))


def values(found: list[Claim], subject: str, predicate: str, source: str) -> list[str]:
    return [one.value.text for one in found if (one.subject, one.predicate, one.source) == (subject, predicate, source)]


def test_the_parser_knows_definitions_imports_and_what_they_are() -> None:
    found = said(SOURCE)
    me = "module:pack.sub.module"
    assert values(found, me, "imports", PARSER) == [
        f"module:{one}" for one in ("json", "os.path", "pack.other", "pack.sub")
    ]
    assert values(found, me, "defines", PARSER) == ["class:pack.sub.module.Base", "function:pack.sub.module.twice"]
    run = "function:pack.sub.module.Base.run"
    assert [values(found, run, one, PARSER)[0] for one in ("defined_in", "line", "lines", "arguments", "annotated", "documented")] == [
        me, "8", "1", "3", "true", "false"
    ]  # fmt: skip
    assert values(found, "class:pack.sub.module.Base", "bases", PARSER) == ["dict"]
    assert values(found, "class:pack.sub.module.Base", "documented", PARSER) == ["true"]


def test_the_scanner_contradicts_it_where_patterns_are_not_enough() -> None:
    found = said(SOURCE)
    me, twice = "module:pack.sub.module", "function:pack.sub.module.twice"
    assert (values(found, twice, "line", PARSER), values(found, twice, "line", SCANNER)) == (["10"], ["11"])
    assert values(found, me, "lines", PARSER) == values(found, me, "lines", SCANNER) == ["11"]
    text = 'X = """\ndef inside(): ...\n"""\n'
    found = said(text)
    assert (values(found, me, "functions", PARSER), values(found, me, "functions", SCANNER)) == (["0"], ["1"])


def test_of_what_does_not_parse_the_scanner_alone_speaks() -> None:
    found = said("def broken(:\n    print 'python 2'\n")
    assert {one.source for one in found if one.predicate != "package"} == {SCANNER}
    assert values(found, "function:pack.sub.module.broken", "line", SCANNER) == ["1"]


def test_installed_packages_are_found_by_name() -> None:
    (typer,) = packages(["Typer"])
    names = {one.module for one in files(typer)}
    assert {"typer", "typer.main"} <= names
    assert len(packages()) > 20
    with pytest.raises(LookupError, match="no-such-package"):
        packages(["typer", "no-such-package"])
