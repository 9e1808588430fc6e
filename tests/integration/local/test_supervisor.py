"""The supervisor on real children: small Python programs."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.local.errors import ChildNotReady
from controlplane.local.folder import birth
from controlplane.local.process import NEVER, Phase, Probe, Restart
from controlplane.local.supervisor import Supervisor
from tests.integration.local.waiting import wait_until

# A child that says when it serves, and when it was asked to end.
SERVE = """
import pathlib, signal, sys
def end(*_):
    print("asked to end", flush=True)
    with open(sys.argv[2], "a") as order:
        order.write(pathlib.Path(sys.argv[1]).name + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
pathlib.Path(sys.argv[1]).touch()
while True:
    signal.pause()
"""
IGNORE = """
import pathlib, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).touch()
while True:
    signal.pause()
"""
WITH_GRANDCHILD = """
import pathlib, subprocess, sys, signal
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
signal.pause()
"""
SUPERVISE_UNTIL_KILLED = """
import signal, sys
from pathlib import Path
from controlplane.local.supervisor import Supervisor
folder = Path(sys.argv[1])
supervisor = Supervisor(log_folder=folder)
for name in ("one", "two"):
    marker = folder / name
    supervisor.add(name, [sys.executable, "-c", sys.argv[2], str(marker)], ready=lambda marker=marker: None if marker.exists() and marker.read_text() else "no marker")
supervisor.wait_ready()
print(*supervisor.pids().values(), flush=True)
signal.pause()
"""


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with Supervisor(log_folder=tmp_path / "logs") as supervisor:
        yield supervisor


def program(text: str, *arguments: Path) -> list[str]:
    return [sys.executable, "-c", text, *map(str, arguments)]


def missing(marker: Path) -> str | None:
    return None if marker.exists() else f"there is no {marker.name}"


def exists(marker: Path) -> Probe:
    return lambda: missing(marker)


def test_children_stop_in_reverse_order(tmp_path: Path) -> None:
    order = tmp_path / "order"
    with Supervisor(log_folder=tmp_path / "logs") as supervisor:
        for name in ("first", "second", "third"):
            marker = tmp_path / name
            supervisor.add(name, program(SERVE, marker, order), ready=exists(marker))
        supervisor.wait_ready()
        assert {child.phase for child in supervisor.children.values()} == {Phase.READY}
        pids = supervisor.pids()
        assert list(pids) == ["first", "second", "third"]
    assert order.read_text().split() == ["third", "second", "first"]
    assert (tmp_path / "logs" / "second.log").read_text() == "asked to end\n"
    assert [birth(pid) for pid in pids.values()] == [None] * 3


def test_a_child_that_will_not_end_is_killed(supervisor: Supervisor, tmp_path: Path) -> None:
    marker = tmp_path / "ready"
    child = supervisor.add(
        "deaf", program(IGNORE, marker), ready=exists(marker), stop_within_seconds=0.2, restart=NEVER
    )
    child.wait_ready()
    child.stop()
    assert child.exit_code == -signal.SIGKILL
    assert child.phase is Phase.DOWN
    assert child.pid is None


def test_a_crashed_child_comes_back_and_a_finished_one_does_not(supervisor: Supervisor, tmp_path: Path) -> None:
    marker = tmp_path / "ready"
    quickly = Restart(first_pause_seconds=0.01)
    child = supervisor.add("server", program(SERVE, marker, tmp_path / "order"), ready=exists(marker), restart=quickly)
    child.wait_ready()
    before = child.pid
    assert before is not None
    marker.unlink()
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: child.pid not in {None, before}, "another process")
    child.wait_ready()
    assert child.restarts == 1
    assert child.pid is not None
    os.kill(child.pid, signal.SIGTERM)  # It ends with exit code 0: it was asked to drain by someone else.
    assert child.wait_end(20)
    assert (child.phase, child.exit_code, child.restarts) == (Phase.ENDED, 0, 1)
    assert supervisor.wait_until_one_ended(20) == (child,)


def test_a_killed_child_stays_down_until_it_is_started(supervisor: Supervisor, tmp_path: Path) -> None:
    marker = tmp_path / "ready"
    child = supervisor.add("server", program(SERVE, marker, tmp_path / "order"), ready=exists(marker))
    child.wait_ready()
    child.kill()
    assert (child.pid, child.phase, child.exit_code) == (None, Phase.DOWN, -signal.SIGKILL)
    child.start()
    assert child.phase is Phase.READY
    assert child.restarts == 0


def test_a_child_that_ends_early_is_quoted(supervisor: Supervisor) -> None:
    child = supervisor.add("broken", program("import sys; sys.exit('no configuration')"), restart=NEVER)
    assert child.wait_end(20)
    with pytest.raises(ChildNotReady) as refusal:
        child.wait_ready()
    assert "Expected broken to be ready within 60 s, but it ended with exit code 1." in str(refusal.value)
    assert str(refusal.value).endswith("no configuration")


def test_a_program_that_does_not_exist_is_named(supervisor: Supervisor, tmp_path: Path) -> None:
    child = supervisor.add("absent", [str(tmp_path / "absent")], ready=lambda: "never", restart=NEVER)
    with pytest.raises(ChildNotReady, match=r"it cannot be run: .*No such file or directory"):
        child.wait_ready()


def test_a_child_that_never_answers_says_what_was_found(supervisor: Supervisor, tmp_path: Path) -> None:
    child = supervisor.add("mute", program(IGNORE, tmp_path / "x"), ready=lambda: "its port is silent", restart=NEVER)
    with pytest.raises(ChildNotReady, match=r"ready within 0\.3 s, but its port is silent"):
        child.wait_ready(0.3)
    child.kill()


def test_what_a_child_started_ends_with_it(supervisor: Supervisor, tmp_path: Path) -> None:
    marker = tmp_path / "grandchild"
    child = supervisor.add(
        "parent",
        program(WITH_GRANDCHILD, marker),
        ready=lambda: None if marker.exists() and marker.read_text() else "no grandchild",
        restart=NEVER,
    )
    child.wait_ready()
    grandchild = int(marker.read_text())
    born = birth(grandchild)
    assert born is not None
    child.kill()
    wait_until(lambda: birth(grandchild) != born, "the grandchild's end")


def test_nothing_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", SUPERVISE_UNTIL_KILLED, str(tmp_path), WITH_GRANDCHILD]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        children = [int(pid) for pid in process.stdout.readline().split()]
        everyone = [*children, *(int((tmp_path / name).read_text()) for name in ("one", "two"))]
        births = {pid: birth(pid) for pid in everyone}
        assert len(births) == 4
        assert None not in births.values()
        process.kill()
    wait_until(lambda: all(birth(pid) != born for pid, born in births.items()), "the end of all four")


def test_a_name_is_used_once(supervisor: Supervisor) -> None:
    supervisor.add("one", program("pass"), begin=False)
    with pytest.raises(ValueError, match="Expected a new name for a child, but one exists"):
        supervisor.add("one", program("pass"), begin=False)
