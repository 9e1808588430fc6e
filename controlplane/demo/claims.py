"""What both runners claim about a module, each with its own confidence."""

from controlplane.demo.modules import Module, Profile
from controlplane.runner import JobContext


def claim_profile(job: JobContext, module: Module, profile: Profile, confidence: float) -> None:
    """Claim the counts of a module as numbers, and each of its imports as a value of its own."""
    subject = f"module:{module.name}"
    job.claim(subject, "lines", profile.lines, confidence=confidence)
    job.claim(subject, "functions", profile.functions, confidence=confidence)
    job.claim(subject, "classes", profile.classes, confidence=confidence)
    for name in profile.imports:
        job.claim(subject, "imports", f"module:{name}", confidence=confidence)
