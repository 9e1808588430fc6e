"""What a disk that is full for a moment leaves behind: nothing, once there is room again."""

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from controlplane.local.folder import HeldFolder, StackRecord, hold, is_held, read_record
from controlplane.local.process import Restart
from controlplane.local.stack import EmbeddedStack
from controlplane.local.supervisor import Supervisor
from tests.integration.local.waiting import wait_until

AT_ONCE = Restart(first_pause_seconds=0.01, longest_pause_seconds=0.05)


def test_a_record_that_cannot_be_written_is_written_with_the_next_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = EmbeddedStack(tmp_path)
    stack._held = hold(tmp_path)
    with monkeypatch.context() as full:
        full.setattr(HeldFolder, "write", _no_room)
        stack._record()
        with pytest.raises(OSError, match="no room"):
            stack.stop()
    assert not is_held(tmp_path)  # Let go of all the same.
    stack._held = hold(tmp_path)
    stack.publish("gateway", "http://127.0.0.1:1")
    assert read_record(tmp_path).addresses == {"gateway": "http://127.0.0.1:1"}
    stack.stop()


def _no_room(_: HeldFolder, record: StackRecord) -> None:
    raise OSError("no room")


def test_a_child_whose_log_cannot_be_written_comes_back_when_it_can(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    with Supervisor(log_folder=folder) as supervisor:
        child = supervisor.add("sleeper", [sys.executable, "-c", "import signal; signal.pause()"], restart=AT_ONCE)
        child.wait_ready()
        shutil.rmtree(folder)
        folder.write_text("in the way")
        before = child.restarts
        os.kill(child.pid or 0, signal.SIGKILL)
        wait_until(lambda: child.restarts > before + 1, "another try")
        folder.unlink()
        folder.mkdir()
        wait_until(lambda: child.pid is not None, "the child")
