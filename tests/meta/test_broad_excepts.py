"""A broad `except` hides faults. Each place that needs one is listed here with its reason."""

import ast
from collections import Counter
from collections.abc import Iterator
from typing import Final

from tests.meta.repository import files_named, text

ALLOWED: Final[dict[str, tuple[int, str]]] = {
    # file: (how many, why)
    "controlplane/jobforge_agent/batch.py": (
        1,
        "A record that cannot be decided, for whatever reason, is set aside with its envelope; those behind it go on.",
    ),
    "controlplane/runner/attempt.py": (
        2,
        "What an attempt says and submits is made of a stranger's words: what cannot be written is its failure, and must not keep it from ending.",
    ),
    "controlplane/runner/attempts.py": (
        1,
        "A handler is a stranger's code: whatever it raises is that attempt's failure.",
    ),
    "controlplane/runner/errors.py": (
        1,
        "An exception's text is made by a stranger's __str__: that it cannot be made must not hide that the handler failed.",
    ),
    "controlplane/runner/joblogs.py": (
        2,
        "A line is formatted by a stranger's code: a slip in it is told in the line, or on standard error, as logging does; the job goes on.",
    ),
    "controlplane/runner/threads.py": (
        1,
        "The same code in a thread: what it raises is handed to whoever waits for it.",
    ),
    "controlplane/runner/worker.py": (
        1,
        "The same code in a worker process: what it raises is told to its runner.",
    ),
    "controlplane/truthcore_projector/decode.py": (
        1,
        "DataFusion raises Exception itself for bytes that are not Avro; the handler finds the records at fault, or raises again.",
    ),
}
BROAD: Final = {"Exception", "BaseException"}


def broad_handlers(source: str) -> Iterator[int]:
    """Yield the line of every handler that catches anything and keeps it; one that cleans up and raises again hides nothing."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler) and ast.dump(node.body[-1]) != ast.dump(ast.Raise()):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(kind is None or (isinstance(kind, ast.Name) and kind.id in BROAD) for kind in caught):
                yield node.lineno
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if name == "suppress" and any(isinstance(kind, ast.Name) and kind.id in BROAD for kind in node.args):
                yield node.lineno


def test_broad_excepts_are_only_where_a_process_supervises_its_work() -> None:
    found = Counter(
        name for name in files_named(".py") for _ in broad_handlers(text(name)) if name.startswith("controlplane/")
    )
    assert dict(found) == {name: count for name, (count, _) in ALLOWED.items()}


def test_all_forms_of_broad_excepts_are_seen() -> None:
    forms = [
        "try: pass\nexcept: pass",
        "try: pass\nexcept Exception: pass",
        "try: pass\nexcept (ValueError, BaseException) as error: pass",
        "with suppress(Exception): pass",
        "with contextlib.suppress(KeyError, Exception): pass",
    ]
    assert [len(list(broad_handlers(form))) for form in forms] == [1] * len(forms)
    assert list(broad_handlers("try: pass\nexcept BaseException:\n  close()\n  raise")) == []
    assert list(broad_handlers("try: pass\nexcept (OSError, ValueError): pass")) == []
