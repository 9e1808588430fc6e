"""Many jobs in one request: what was refused for now is sent again, under its ids."""

from collections.abc import Sequence

from controlplane.api.models import Acknowledgement
from controlplane.client import calls
from controlplane.client.calls import Call
from controlplane.client.errors import ControlPlaneError

Outcome = Acknowledgement | ControlPlaneError


class Sending:
    """The lines of one request and what became of each, over as many requests as it takes: at most those of any other call."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        """Take lines that have ids, so that sending them again is safe."""
        self._lines = lines
        self._open = list(range(len(lines)))
        self._attempt = 0
        self.outcomes: list[Outcome] = [_unanswered() for _ in lines]

    def call(self) -> Call[list[Outcome]]:
        """Return the call for the lines that are open."""
        return calls.bulk([self._lines[index] for index in self._open])

    def take(self, answers: list[Outcome]) -> float | None:
        """Take the answers of the open lines; return after how many seconds the rest is sent again, or None when nothing is."""
        self._attempt += 1
        pauses: dict[int, float] = {}
        for place, index in enumerate(self._open):
            # A body that did not come in time is answered as far as it came.
            self.outcomes[index] = outcome = answers[place] if place < len(answers) else _unanswered()
            if isinstance(outcome, ControlPlaneError):
                pause = calls.pause_before(self._attempt, outcome)
                if pause is not None:
                    pauses[index] = pause
        self._open = list(pauses)
        return max(pauses.values(), default=None)


def _unanswered() -> ControlPlaneError:
    text = "Expected an answer for every line, but found none for this one."
    return ControlPlaneError({"message": text, "code": "no_answer", "category": "UNAVAILABLE", "retryable": True})
