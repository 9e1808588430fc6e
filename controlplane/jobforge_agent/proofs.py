"""What can be written neither to the store nor to the log: it is set aside alone, and stops nothing else."""

import logging
from collections.abc import Callable, Iterable
from typing import Final

from controlplane.jobforge_agent.decide import Decision
from controlplane.jobforge_agent.state import Job
from controlplane.log.producer import RecordTooLarge

UNWRITABLE: Final = (ArithmeticError, LookupError, TypeError, ValueError, RecordTooLarge)
"""What is raised for values that neither the store nor the log can hold."""

logger = logging.getLogger(__name__)


def writable(
    decisions: Iterable[tuple[Job, Decision]], prove: Callable[[Decision], None]
) -> list[tuple[Job, Decision]]:
    """Leave out decisions that cannot be written: no record is at fault that could become a dead letter, so their jobs stay as they are."""
    kept = []
    for job, decision in decisions:
        try:
            prove(decision)
        except UNWRITABLE as fault:
            logger.error("What was decided of job %.200s cannot be written: %s", job.job_id, fault)
        else:
            kept.append((job, decision))
    return kept
