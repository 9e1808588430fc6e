"""The runner that counts by pattern: `controlplane runner controlplane.demo.scanner:runner`."""

import re

from controlplane.demo.claims import claim_profile
from controlplane.demo.modules import Module, Profile
from controlplane.runner import JobContext, Runner

runner = Runner("scanner", slots=8, labels={"method": "pattern"})

CONFIDENCE = 0.8

FUNCTION = re.compile(r"^\s*(?:async\s+)?def\s+\w+\s*\(", re.MULTILINE)
CLASS = re.compile(r"^\s*class\s+\w+", re.MULTILINE)
IMPORT = re.compile(r"^\s*(?:from\s+(\w+)[\w.]*\s+import\b|import\s+(\w+))", re.MULTILINE)


def profile_by_pattern(source: str) -> Profile:
    """Return what a module seems to consist of; text in strings and comments is taken for code."""
    imports = {first or second for first, second in IMPORT.findall(source)}
    return Profile(
        lines=source.count("\n"),
        functions=len(FUNCTION.findall(source)),
        classes=len(CLASS.findall(source)),
        imports=sorted(imports),
    )


@runner.capability("python.scan", version="1.0.0", timeout=30)
def scan(module: Module, job: JobContext) -> Profile:
    """Profile a module by pattern."""
    profile = profile_by_pattern(module.source())
    claim_profile(job, module, profile, CONFIDENCE)
    return profile
