"""For the tests of programs that use ControlPlane: a whole one in this process, without a broker, deciding and projecting as shipped."""

from controlplane.runner.testing import HandlerRun, run_handler, run_handler_async
from controlplane.testing.controlplane import ControlPlaneForTests, JobForTests, NothingMoves

__all__ = ["ControlPlaneForTests", "HandlerRun", "JobForTests", "NothingMoves", "run_handler", "run_handler_async"]
