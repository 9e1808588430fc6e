"""Restart pauses, logs, and marks of processes."""

import os
from pathlib import Path

import pytest

from controlplane.local.folder import birth
from controlplane.local.process import LOG_LIMIT_BYTES, Restart, log_tail, rotate_log


@pytest.mark.parametrize(
    ("crashes_in_a_row", "pause_seconds"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 3.0), (5, 3.0), (10_000, 3.0)]
)
def test_pauses_double_up_to_the_longest(crashes_in_a_row: int, pause_seconds: float) -> None:
    restart = Restart(first_pause_seconds=0.5, longest_pause_seconds=3.0)
    assert restart.pause_seconds(crashes_in_a_row) == pause_seconds


def test_a_grown_log_is_set_aside(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"
    rotate_log(log)
    assert log.parent.is_dir()
    log.write_bytes(b"x" * (LOG_LIMIT_BYTES + 1))
    rotate_log(log)
    assert not log.exists()
    assert log.with_name("child.log.1").stat().st_size == LOG_LIMIT_BYTES + 1


def test_the_tail_of_a_log_says_when_there_is_none(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    assert log_tail(log) == "(no log)"
    log.write_text("")
    assert log_tail(log) == "(empty)"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    assert log_tail(log, 2) == "line 98\nline 99"


def test_a_process_has_one_birth() -> None:
    own = birth(os.getpid())
    assert own is not None
    assert birth(os.getpid()) == own
    assert birth(2**22 + 1) is None  # above any pid
