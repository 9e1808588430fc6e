"""Two replays held against each other: decisions that differ, how long who waited, how busy runners were. Pure."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from controlplane.jobforge_agent.depths import priority_class
from controlplane.jobforge_agent.state import SECOND
from controlplane.jobforge_agent.whatif.replay import Run
from controlplane.jobforge_agent.whatif.scenario import Decided, Scenario

DIFFERENCES_SHOWN: Final = 100
POINTS: Final = 200
ALL: Final = "(all)"


class Waits(msgspec.Struct, frozen=True, kw_only=True):
    """How long jobs waited for their first attempt, in seconds."""

    jobs: int
    mean: float
    p50: float
    p95: float
    longest: float


class WaitsOfBoth(msgspec.Struct, frozen=True, kw_only=True):
    """Waits of one group of jobs under both policies."""

    priority_class: str
    tenant: str
    recorded: Waits
    other: Waits


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that another runner would have got, or nobody."""

    job_id: str
    attempt_number: int
    recorded_runner: str | None
    other_runner: str | None
    recorded_wait_seconds: float | None
    other_wait_seconds: float | None
    other_reason: str


class Utilisation(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a runner's slots that was used, in [0, 1]."""

    runner: str
    recorded: float
    other: float


class Fidelity(msgspec.Struct, frozen=True, kw_only=True):
    """How well the replay under the recorded policy tells what really happened."""

    first_attempts: int
    same_runner: float
    """The part of them that went to a runner of the same name."""
    recorded_mean_wait_seconds: float
    replayed_mean_wait_seconds: float


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What another policy would have changed."""

    jobs: int
    decisions: int
    differing: int
    """Attempts that go to another runner process; later or earlier alone is told by the waits."""
    differences: tuple[Difference, ...]
    """The first of them."""
    waits: tuple[WaitsOfBoth, ...]
    utilisation: tuple[Utilisation, ...]
    seconds_recorded: float
    """From the beginning to the last conclusion."""
    seconds_other: float
    unfinished_recorded: int
    unfinished_other: int
    refused_by_rules: int
    """Assignments of the other policy that limits, slots or the queue did not allow."""
    depth_recorded: tuple[tuple[float, float], ...]
    """Points (seconds since the beginning, jobs that wait)."""
    depth_other: tuple[tuple[float, float], ...]
    fidelity: Fidelity


def compare(scenario: Scenario, recorded: Run, other: Run) -> Comparison:
    """Hold the replay under the recorded policy against the one under another."""
    ours, theirs = _by_attempt(recorded.decided), _by_attempt(other.decided)
    differing = [
        key for key in sorted(ours.keys() | theirs.keys(), key=lambda key: _moment(key, ours, theirs))
        if key not in ours or key not in theirs or ours[key].runner_id != theirs[key].runner_id
    ]  # fmt: skip
    return Comparison(
        jobs=len(scenario.jobs), decisions=len(ours), differing=len(differing),
        differences=tuple(_difference(key, ours, theirs, recorded, other) for key in differing[:DIFFERENCES_SHOWN]),
        waits=tuple(_waits(recorded, other)), utilisation=tuple(_utilisation(recorded, other)),
        seconds_recorded=(recorded.ends - scenario.begin) / SECOND, seconds_other=(other.ends - scenario.begin) / SECOND,
        unfinished_recorded=len(recorded.jobs) - len(recorded.concluded),
        unfinished_other=len(other.jobs) - len(other.concluded), refused_by_rules=other.refused,
        depth_recorded=_points(recorded, scenario.begin), depth_other=_points(other, scenario.begin),
        fidelity=_fidelity(scenario, recorded),
    )  # fmt: skip


Key = tuple[str, int]


def _by_attempt(decided: Iterable[Decided]) -> dict[Key, Decided]:
    return {(one.job_id, one.attempt_number): one for one in decided}


def _moment(key: Key, ours: Mapping[Key, Decided], theirs: Mapping[Key, Decided]) -> tuple[int, Key]:
    return (ours.get(key) or theirs[key]).at, key


def _difference(
    key: Key, ours: Mapping[Key, Decided], theirs: Mapping[Key, Decided], recorded: Run, other: Run
) -> Difference:
    mine, new = ours.get(key), theirs.get(key)
    return Difference(
        job_id=key[0], attempt_number=key[1], recorded_runner=mine.runner_name if mine else None, other_runner=new.runner_name if new else None,
        recorded_wait_seconds=_seconds(recorded.first_waits.get(key[0])),
        other_wait_seconds=_seconds(other.first_waits.get(key[0])), other_reason=new.reason if new else "",
    )  # fmt: skip


def _seconds(micros: int | None) -> float | None:
    return None if micros is None else micros / SECOND


def _waits(recorded: Run, other: Run) -> Iterable[WaitsOfBoth]:
    groups: dict[tuple[str, str], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for place, run in enumerate((recorded, other)):
        for job_id, micros in run.first_waits.items():
            job = run.jobs[job_id]
            for group in ((ALL, ALL), (priority_class(job.priority), job.tenant)):
                groups[group][place].append(micros)
    for (name, tenant), (ours, theirs) in sorted(groups.items()):
        yield WaitsOfBoth(priority_class=name, tenant=tenant, recorded=waits_of(ours), other=waits_of(theirs))


def waits_of(micros: Sequence[int]) -> Waits:
    """Return the distribution of waiting times; percentiles are of the nearest rank."""
    if not micros:
        return Waits(jobs=0, mean=0.0, p50=0.0, p95=0.0, longest=0.0)
    found = sorted(micros)

    def rank(part: float) -> float:
        return found[max(0, math.ceil(part * len(found)) - 1)] / SECOND

    return Waits(
        jobs=len(found), mean=sum(found) / len(found) / SECOND, p50=rank(0.5), p95=rank(0.95), longest=found[-1] / SECOND
    )  # fmt: skip


def _utilisation(recorded: Run, other: Run) -> Iterable[Utilisation]:
    def part(run: Run, names: Iterable[str]) -> float:
        offered = sum(run.offered.get(name, 0) for name in names)
        return sum(run.busy.get(name, 0) for name in names) / offered if offered else 0.0

    names = sorted(recorded.offered.keys() | other.offered.keys())
    for name in names:
        yield Utilisation(runner=name, recorded=part(recorded, [name]), other=part(other, [name]))
    yield Utilisation(runner=ALL, recorded=part(recorded, names), other=part(other, names))


def _points(run: Run, begin: int) -> tuple[tuple[float, float], ...]:
    """Return the depth of the queues at evenly spread moments."""
    span = max(1, run.ends - begin)
    points: list[tuple[float, float]] = []
    at, waiting = 0, 0
    for number in range(POINTS + 1):
        moment = begin + span * number // POINTS
        while at < len(run.depth) and run.depth[at][0] <= moment:
            waiting = run.depth[at][1]
            at += 1
        points.append(((moment - begin) / SECOND, float(waiting)))
    return tuple(points)


def _fidelity(scenario: Scenario, recorded: Run) -> Fidelity:
    then = {one.job_id: one for one in scenario.decided if one.attempt_number == 1}
    now = {one.job_id: one for one in recorded.decided if one.attempt_number == 1}
    both = [job_id for job_id in then if job_id in now]
    same = sum(then[job_id].runner_name == now[job_id].runner_name for job_id in both)
    ready = {job_id: now[job_id].at - recorded.first_waits[job_id] for job_id in both}
    count = len(both) or 1
    return Fidelity(
        first_attempts=len(both), same_runner=same / count,
        recorded_mean_wait_seconds=sum(then[one].at - ready[one] for one in both) / count / SECOND,
        replayed_mean_wait_seconds=sum(recorded.first_waits[one] for one in both) / count / SECOND,
    )  # fmt: skip
