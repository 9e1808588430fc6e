"""A pytest plugin: `pytest_plugins = ["controlplane.testing.plugin"]` in a conftest.py."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from controlplane.runner import Runner
from controlplane.testing.controlplane import ControlPlaneForTests


@pytest.fixture
def control_plane() -> Iterator[Callable[..., ControlPlaneForTests]]:
    """Return what starts a control plane for runners; it ends with the test."""
    with ExitStack() as started:

        def start(*runners: Runner) -> ControlPlaneForTests:
            return started.enter_context(ControlPlaneForTests(*runners))

        yield start
