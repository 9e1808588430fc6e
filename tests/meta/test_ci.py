"""What runs for every change: the two commands, their verdict, and nothing left running afterwards."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.meta.repository import ROOT, text


def ci(folder: Path, *, check: str, test: str) -> subprocess.CompletedProcess[str]:
    """Run CI on a checkout whose two commands are these."""
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci")
    # A browser and a Redis are there, so that the run does not try to install them.
    (folder / "commands").mkdir()
    for program in ("chromium", "redis-server"):
        (folder / "commands" / program).symlink_to("/bin/true")
    (folder / "Makefile").write_text(f"check:\n\t@{check}\ntest:\n\t@{test}\n")
    search = f"{folder / 'commands'}:/usr/local/bin:/usr/bin:/bin"
    return subprocess.run(
        [str(folder / ".ci" / "run")],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": search, "HOME": str(folder)},
    )


def test_it_runs_what_the_documentation_says(tmp_path: Path) -> None:
    done = ci(tmp_path, check="echo checked", test="echo '= 7 passed in 1s ='")
    assert (done.returncode, done.stdout.split("\n", 1)) == (0, ["checked", "= 7 passed in 1s =\n"])
    assert "the two commands above" in text("CONTRIBUTING.md")


@pytest.mark.parametrize(("check", "test"), [("false", "true"), ("true", "false")])
def test_it_fails_when_either_command_fails(check: str, test: str, tmp_path: Path) -> None:
    assert ci(tmp_path, check=check, test=test).returncode != 0


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="Expected /proc, where processes are found.")
def test_it_fails_and_names_what_was_left_running(tmp_path: Path) -> None:
    done = ci(tmp_path, check="true", test="setsid sleep 600 >/dev/null 2>&1 & echo $$! > left")
    assert done.returncode != 0
    assert "is left: sleep 600" in done.stderr
