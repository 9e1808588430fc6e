"""Architecture decisions: one page each, in one form, each held by a test that exists."""

import re
from collections import Counter
from collections.abc import Iterator

from tests.meta.repository import ROOT, files, text

PAGES = [name for name in files() if name.startswith("docs/adr/")]
PARTS = ("**Context.**", "**Decision.**", "**Consequences.**", "**Held by**")


def test_numbers_are_unique() -> None:
    numbers = Counter(name.removeprefix("docs/adr/")[:4] for name in PAGES)
    assert [number for number, count in numbers.items() if count > 1 or not number.isdigit()] == []


def faults(page: str) -> Iterator[str]:
    """Yield what is wrong with one page."""
    content = text(page)
    if not content.startswith(f"# {int(page.removeprefix('docs/adr/')[:4])}. "):
        yield f"{page}: expected the number of the file in the title, but it starts with {content[:20]!r}."
    places = [content.find(part) for part in PARTS]
    if -1 in places or places != sorted(places):
        yield f"{page}: expected {PARTS} in this order, but they are at {places}."
    named = re.findall(r"`(tests/[\w/.]+)|`make (\w+)", content[places[-1] :])
    if not named:
        yield f"{page}: expected a test or a check that holds the decision, but none is named."
    yield from (
        f"{page}: expected {path} to hold it, but there is no such file."
        for path, _ in named
        if path and not (ROOT / path).exists()
    )


def test_a_page_has_its_number_its_parts_in_order_and_the_test_that_holds_it() -> None:
    assert [fault for page in PAGES for fault in faults(page)] == []
