"""What gives way gives way by itself: the threads that answer keep their priority."""

import os
import sys
import threading

import pytest

from controlplane.truthcore_projector.background import NICENESS, giving_way


@pytest.mark.skipif(sys.platform != "linux", reason="Expected Linux, whose threads have priorities of their own.")
def test_only_the_thread_that_folds_gives_way() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = niceness()
    with giving_way("fold") as executor:
        assert executor.submit(niceness).result() == max(before, NICENESS)
    assert niceness() == before
