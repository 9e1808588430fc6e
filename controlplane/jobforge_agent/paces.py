"""How fast runners are, compared with each other: what the router knows of them besides their slots."""

from collections.abc import Mapping, Sequence
from typing import Final

from controlplane.events.types import AttemptSucceeded
from controlplane.jobforge_agent.batch import Consumed
from controlplane.jobforge_agent.decide import Decision
from controlplane.jobforge_agent.state import Job

SMOOTHING: Final = 0.1
"""Weight of the newest attempt in a moving average."""
LEAST, MOST = 0.25, 4.0
RUNNERS_KEPT: Final = 10_000


class Paces:
    """Moving averages of how long attempts took, by runner and job type.

    A hint for routing alone: it is kept by each instance for itself, and lost with it.
    """

    def __init__(self) -> None:
        """Know nothing: everybody is as fast as everybody."""
        self._of_type: dict[str, float] = {}
        self._of_runner: dict[str, float] = {}

    def take(self, runner_id: str, job_type: str, micros: int) -> None:
        """Add how long an attempt took."""
        usual = self._of_type.get(job_type, float(micros)) or 1.0
        self._of_type[job_type] = usual + SMOOTHING * (micros - usual)
        pace = min(MOST, max(LEAST, micros / usual))
        if len(self._of_runner) >= RUNNERS_KEPT and runner_id not in self._of_runner:
            self._of_runner.pop(next(iter(self._of_runner)))
        known = self._of_runner.get(runner_id, 1.0)
        self._of_runner[runner_id] = known + SMOOTHING * (pace - known)

    def learn(self, taken: Sequence[tuple[int, Sequence[Consumed]]], known: Mapping[str, Job]) -> None:
        """Learn from attempts that succeeded."""
        for consumed in (one for _, batch in taken for one in batch if type(one.event) is AttemptSucceeded):
            job = known.get(consumed.event.job_id)
            if job is not None and job.leased and job.routed_at:
                self.take(consumed.event.runner_id, job.job_type, consumed.at - job.routed_at)

    def learn_of_slow(self, decisions: Sequence[tuple[Job, Decision]], now: int) -> None:
        """Learn of attempts that took too long: nothing else would keep a runner that hangs from being the idle one that is given the next."""
        for job, decision in decisions:
            if job.leased and decision.observed:
                self.take(job.runner_id or "", job.job_type, now - job.routed_at)

    def of(self, runner_id: str) -> float:
        """Return how long a runner takes, compared with what is usual: 2 is half as fast."""
        return self._of_runner.get(runner_id, 1.0)
