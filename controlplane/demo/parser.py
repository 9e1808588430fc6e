"""The runner that parses: `controlplane runner controlplane.demo.parser:runner`."""

import ast

from controlplane.demo.claims import claim_profile
from controlplane.demo.modules import Module, Profile
from controlplane.runner import JobContext, NonRetryable, Runner

runner = Runner("parser", slots=8, labels={"method": "syntax-tree"})

CONFIDENCE = 0.98


def profile_by_parsing(source: str) -> Profile:
    """Return what the syntax tree of a module consists of.

    Raises:
        SyntaxError: it is not valid Python.
    """
    functions = classes = 0
    imports: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                functions += 1
            case ast.ClassDef():
                classes += 1
            case ast.Import(names=names):
                imports.update(alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                imports.add(module.partition(".")[0])
    return Profile(lines=source.count("\n"), functions=functions, classes=classes, imports=sorted(imports))


@runner.capability("python.parse", version="1.0.0", timeout=30)
def parse(module: Module, job: JobContext) -> Profile:
    """Profile a module from its syntax tree."""
    try:
        profile = profile_by_parsing(module.source())
    except SyntaxError as error:
        raise NonRetryable(f"Expected valid Python in {module.path}, but found: {error}.") from error
    claim_profile(job, module, profile, CONFIDENCE)
    return profile
