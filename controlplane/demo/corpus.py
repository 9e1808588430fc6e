"""A real corpus to know things about: the modules, classes and functions of installed packages, as two scanners see them."""

import ast
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Final

import msgspec

from controlplane.events.types import Cardinality, TypedValue, ValueKind

PARSER, SCANNER = "corpus/parser", "corpus/scanner"
CONFIDENCES: Final = {PARSER: 0.99, SCANNER: 0.8}
PREDICATES: Final = {
    "version": Cardinality.SINGLE, "package": Cardinality.SINGLE, "lines": Cardinality.SINGLE, "functions": Cardinality.SINGLE,
    "classes": Cardinality.SINGLE, "imports": Cardinality.MULTIPLE, "defines": Cardinality.MULTIPLE, "defined_in": Cardinality.SINGLE,
    "line": Cardinality.SINGLE, "bases": Cardinality.MULTIPLE, "arguments": Cardinality.SINGLE, "documented": Cardinality.SINGLE,
    "annotated": Cardinality.SINGLE,
}  # fmt: skip

_DEFINITION: Final = re.compile(r"^([ \t]*)(?:async[ \t]+)?(def|class)[ \t]+(\w+)", re.MULTILINE)
_IMPORT: Final = re.compile(r"^\s*(?:from\s+([\w.]+)\s+import\b|import\s+([\w.]+))", re.MULTILINE)


class Claim(msgspec.Struct, frozen=True):
    """What a scanner says."""

    subject: str
    predicate: str
    value: TypedValue
    source: str


class File(msgspec.Struct, frozen=True):
    """One module of a package."""

    package: str
    module: str
    path: Path


def number(value: int) -> TypedValue:
    """Return a number as a value."""
    return TypedValue(kind=ValueKind.NUMBER, text=str(value), number=float(value))


def reference(name: str) -> TypedValue:
    """Return a reference to a subject."""
    return TypedValue(kind=ValueKind.REFERENCE, text=name)


def boolean(value: bool) -> TypedValue:
    """Return a boolean as a value."""
    return TypedValue(kind=ValueKind.BOOLEAN, text="true" if value else "false")


def packages(names: Sequence[str] = ()) -> list[Distribution]:
    """Return the installed packages of these names, or all, in the order of their names.

    Raises:
        LookupError: one of them is not installed.
    """
    found = {(one.metadata["Name"] or "").lower().replace("_", "-"): one for one in distributions()}
    if missing := [name for name in names if name.lower().replace("_", "-") not in found]:
        raise LookupError(f"Expected installed packages, but did not find {', '.join(missing)}.")
    chosen = [name.lower().replace("_", "-") for name in names] or found
    return [found[name] for name in sorted(chosen) if name]


def files(package: Distribution) -> Iterator[File]:
    """Yield the modules that a package installed."""
    for one in package.files or ():
        path = Path(str(one.locate()))
        if (
            one.suffix == ".py"
            and ".." not in one.parts
            and all(part.isidentifier() for part in one.with_suffix("").parts)
        ):
            parts = one.with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
            yield File(package.metadata["Name"], name, path)


def claims(file: File, source: str) -> Iterator[Claim]:
    """Yield what both scanners say of a module; of one that does not parse only the scanner that looks for patterns says anything."""
    yield Claim(f"module:{file.module}", "package", reference(f"package:{file.package}"), PARSER)
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tree = None
    if tree is not None:
        yield from _parsed(file.module, source, tree)
    yield from _scanned(file.module, source)


def _parsed(module: str, source: str, tree: ast.Module) -> Iterator[Claim]:
    me = f"module:{module}"
    counts = {"function": 0, "class": 0}
    imported: set[str] = set()
    seen: set[str] = set()
    waiting: list[tuple[ast.AST, str]] = [(tree, module)]
    while waiting:
        node, inside = waiting.pop()
        for child in ast.iter_child_nodes(node):
            scope = inside
            match child:
                case ast.Import(names=names):
                    imported |= {one.name for one in names}
                case ast.ImportFrom(module=name, level=level):
                    imported.add(_absolute(module, name, level))
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    kind = "class" if isinstance(child, ast.ClassDef) else "function"
                    counts[kind] += 1
                    scope = f"{inside}.{child.name}"
                    subject = f"{kind}:{scope}"
                    if subject not in seen:  # A name that is defined again is the first one, to this scanner.
                        seen.add(subject)
                        yield from _definition(subject, me, child)
                        if inside == module:
                            yield Claim(me, "defines", reference(subject), PARSER)
            waiting.append((child, scope))
    yield from (Claim(me, "imports", reference(f"module:{name}"), PARSER) for name in sorted(imported) if name)
    for predicate, value in (
        ("lines", source.count("\n")),
        ("functions", counts["function"]),
        ("classes", counts["class"]),
    ):
        yield Claim(me, predicate, number(value), PARSER)


def _absolute(module: str, name: str | None, level: int) -> str:
    if not level:
        return name or ""
    home = module.split(".")[: -level or None]
    return ".".join([*home, *([name] if name else [])])


def _definition(
    subject: str, module: str, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
) -> Iterator[Claim]:
    yield Claim(subject, "defined_in", reference(module), PARSER)
    yield Claim(subject, "line", number(node.lineno), PARSER)
    yield Claim(subject, "lines", number((node.end_lineno or node.lineno) - node.lineno + 1), PARSER)
    yield Claim(subject, "documented", boolean(ast.get_docstring(node, clean=False) is not None), PARSER)
    if isinstance(node, ast.ClassDef):
        for base in node.bases:
            yield Claim(subject, "bases", TypedValue(kind=ValueKind.STRING, text=ast.unparse(base)[:200]), PARSER)
        return
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    yield Claim(subject, "arguments", number(len(arguments)), PARSER)
    yield Claim(subject, "annotated", boolean(node.returns is not None), PARSER)


def _scanned(module: str, source: str) -> Iterator[Claim]:
    """Look for patterns only: text in strings is taken for code, and of a name that comes twice the last one counts."""
    me = f"module:{module}"
    lines = 1
    at = 0
    last: dict[str, int] = {}
    counts = {"def": 0, "class": 0}
    for found in _DEFINITION.finditer(source):
        lines += source.count("\n", at, found.start())
        at = found.start()
        counts[found[2]] += 1
        if not found[1]:
            last[f"{'class' if found[2] == 'class' else 'function'}:{module}.{found[3]}"] = lines
    for subject, line in last.items():
        yield Claim(subject, "line", number(line), SCANNER)
    yield Claim(me, "lines", number(source.count("\n")), SCANNER)
    yield Claim(me, "functions", number(counts["def"]), SCANNER)
    yield Claim(me, "classes", number(counts["class"]), SCANNER)
    for name in sorted({first or second for first, second in _IMPORT.findall(source)}):
        if not name.startswith("."):
            yield Claim(me, "imports", reference(f"module:{name}"), SCANNER)
