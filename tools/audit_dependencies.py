"""Look the pinned packages up among the known vulnerabilities: `python -m tools.audit_dependencies requirements.lock`.

pip-audit asks OSV, a database of vulnerabilities, and never a package registry. It calls a package that it could not look up "skipped" and is
content, and it ends with a traceback where the database cannot be reached; here both are said as what they are (ADR 85).
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

ALL_WITHIN_SECONDS: Final = 120
ANSWER_WITHIN_SECONDS: Final = 5


class Verdict(NamedTuple):
    """What was found: whether a vulnerability is known, whether every package was looked up, and the words for people."""

    vulnerable: bool
    complete: bool
    words: str


def judged(answer: dict[str, Any]) -> Verdict:
    """Return what pip-audit's JSON document says."""
    packages = answer["dependencies"]
    untold = [one["name"] for one in packages if "skip_reason" in one]
    found = [
        f"{one['name']} {one['version']}: {flaw['id']}"
        + (f", repaired in {', '.join(flaw['fix_versions'])}" if flaw["fix_versions"] else ", not repaired yet")
        for one in packages
        for flaw in one.get("vulns", [])
    ]
    words = [f"KNOWN VULNERABILITY: {line}" for line in found]
    if untold:
        words.append(
            f"NOT AUDITED: {len(untold)} of {len(packages)} packages could not be looked up: {', '.join(untold[:10])}"
            + (" ..." if len(untold) > 10 else "")
        )
    words.append(
        f"{len(packages) - len(untold)} of {len(packages)} packages looked up, {len(found)} vulnerabilities known."
    )
    return Verdict(bool(found), bool(packages) and not untold, "\n".join(words))


def ask(lock: Path) -> Verdict:
    """Return the verdict on a lock file; one that could not be reached is no verdict, and says so."""
    command = [
        sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--require-hashes", "--disable-pip", "--format", "json",
        "--vulnerability-service", "osv", "--progress-spinner", "off", "--timeout", str(ANSWER_WITHIN_SECONDS),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ALL_WITHIN_SECONDS)  # noqa: S603 -- our own
    except subprocess.TimeoutExpired:
        return Verdict(False, False, f"NOT AUDITED: the database did not answer within {ALL_WITHIN_SECONDS} seconds.")
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        reason = (done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]
        return Verdict(False, False, f"NOT AUDITED: no package of {lock} could be looked up. {reason[:300]}")
    return judged(answer)


def main() -> int:
    """Print the verdict; 1 for a known vulnerability, 3 with --strict where a package could not be looked up, else 0."""
    parser = argparse.ArgumentParser(description="Look pinned packages up among the known vulnerabilities.")
    parser.add_argument("lock", type=Path)
    parser.add_argument("--strict", action="store_true", help="exit with 3 where a package could not be looked up")
    arguments = parser.parse_args()
    verdict = ask(arguments.lock)
    print(verdict.words, file=sys.stderr)
    return 1 if verdict.vulnerable else 3 if arguments.strict and not verdict.complete else 0


if __name__ == "__main__":
    sys.exit(main())
