"""How deep queues are, told by pool, job type, class of priority and tenant: counted where jobs enter and leave their queues."""

from typing import Final, NamedTuple

import msgspec

from controlplane.jobforge_agent.state import CRITICAL, Job

HIGH, NORMAL = 7, 4
KEYS_TOLD: Final = 500
OTHERS: Final = "(others)"

_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(tuple[str, str, str, str]).decode


class QueueKey(NamedTuple):
    """What the depth of queues is told by."""

    pool: str
    job_type: str
    priority_class: str
    tenant: str


def priority_class(priority: int) -> str:
    """Return the class of a priority from 0 to 9: low, normal, high or critical."""
    if priority >= CRITICAL:
        return "critical"
    return "high" if priority >= HIGH else "normal" if priority >= NORMAL else "low"


def queue_key(job: Job) -> QueueKey:
    """Return what a waiting job is counted under."""
    return QueueKey(job.pool, job.job_type, priority_class(job.priority), job.tenant)


def depth_name(job: Job) -> str:
    """Return the name of that count in the store."""
    return _encode(queue_key(job)).decode()


def depths_of(counts: dict[bytes, bytes]) -> dict[QueueKey, int]:
    """Return the counts that the store has; beyond a number of them, the smallest are told together."""
    found = {QueueKey(*_decode(name)): int(count) for name, count in counts.items()}
    kept = sorted(found, key=lambda key: -found[key])
    told = {key: found[key] for key in kept[:KEYS_TOLD]}
    for key in kept[KEYS_TOLD:]:
        together = QueueKey(key.pool, OTHERS, key.priority_class, OTHERS)
        told[together] = told.get(together, 0) + found[key]
    return told
