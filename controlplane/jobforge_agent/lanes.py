"""Which lanes a router looks into where there are more than it can look into at once: pure functions of the first job of each and of the room that there is.

They come to what the policy would come to if it saw all of them: whose turn it is first, and for whom a runner is held.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from controlplane.jobforge_agent.policy import Assignment, Candidate, Shares, full
from controlplane.jobforge_agent.rules import lane_named
from controlplane.jobforge_agent.state import CRITICAL, CRITICAL_BOOST_MICROS, Job, Lane

LANES_AT_ONCE: Final = 64


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """Lanes to look into, in their turn."""

    open: list[str]
    """Those whose first job finds room."""
    crowded: list[str]
    """Those whose first job would find room, were it not for those before them."""
    holding: list[str]
    """Those that find none, and for whom a runner is held that jobs behind them would take: looked into with all others."""
    waiting: list[str]
    """The rest. What a limit stops among them is set aside once somebody looks."""

    def portions(self) -> Iterator[list[str]]:
        """Yield lanes to look into, some at a time; the next ones are for whoever could do nothing for those before."""
        turns = [*self.open, *self.crowded]
        for first in range(0, len(turns) or bool(self.holding), LANES_AT_ONCE):
            some = turns[first : first + LANES_AT_ONCE]
            rest = self.waiting[: LANES_AT_ONCE - len(some)]
            yield list(dict.fromkeys((*self.holding, *some, *rest)))


def in_turn(heads: Mapping[str, float], shares: Mapping[str, Shares], now: int) -> list[str]:
    """Return lanes by their turn: those with critical jobs by age; of each pool, those whose tenants had least, then by age.

    Pools alternate: what tenants had of one says nothing about those of another.
    """

    def turn(name: str) -> tuple[bool, float, float]:
        score = heads[name]
        if is_critical(score, now):
            return False, 0.0, score
        lane = lane_named(name)
        had = shares.get(lane.pool, Shares())
        return True, max(had.floor, had.used.get(lane.tenant, 0.0)), score

    places: Counter[str] = Counter()
    found: list[tuple[bool, int, float, str]] = []
    for waits, _, score, name in sorted((*turn(name), name) for name in heads):
        pool = lane_named(name).pool
        found.append((waits, places[pool] if waits else 0, score, name))
        places[pool] += waits
    return [name for *_, name in sorted(found)]


def look(turns: list[str], runners: Mapping[str, Candidate]) -> Look:
    """Give the first job of each lane room as the policy would. It owns the runners and changes them.

    A lane that is looked into in vain keeps another one out. But a job that waits for room keeps its place: its runner is held for it as
    the policy holds it, and is no room for the lanes behind.
    """
    kinds: dict[Lane, _Kind] = {}
    held: set[str] = set()
    found = Look(open=[], crowded=[], holding=[], waiting=[])
    for name in turns:
        lane = lane_named(name)
        key = msgspec.structs.replace(lane, tenant="")
        kind = kinds.get(key)
        if kind is None:
            able = [runner for runner in runners.values() if can(runner, lane)]
            kind = kinds[key] = _Kind(able=able, free=[one for one in able if full(lane, one) is None])
        if len(found.open) >= LANES_AT_ONCE:  # The rest is only asked about where all of these come to nothing.
            (found.open if kind.free else found.waiting).append(name)
            continue
        kind.free = [one for one in kind.free if full(lane, one) is None and one.runner_id not in held]
        if kind.free:
            chosen = min(kind.free, key=lambda one: (one.load * one.pace, one.pace, one.runner_id))
            chosen.busy += lane.slots
            kind.begun = True
            found.open.append(name)
            continue
        (found.crowded if kind.begun else found.waiting).append(name)
        if kind.able and not kind.holds:
            kind.holds = True  # Whoever comes behind would hold the same.
            least = min(kind.able, key=lambda one: (one.load, one.runner_id))
            if least.runner_id not in held and least.busy < least.slots:
                found.holding.append(name)
            held.add(least.runner_id)
    return msgspec.structs.replace(found, holding=found.holding[:LANES_AT_ONCE])


class _Kind(msgspec.Struct, kw_only=True):
    """What the same runners can take."""

    able: list[Candidate]
    free: list[Candidate]
    begun: bool = False
    """Whether one of its lanes found room."""
    holds: bool = False


def in_order(
    chosen: Sequence[Assignment], passed_over: Mapping[str, float], runners: Mapping[str, Candidate], now: int
) -> list[Assignment]:
    """Leave out what passes older work of its class in a lane that was not looked into, on a runner that takes that work, too.

    Whoever is left out is looked at again with it: `passed_over` are the crowded lanes, by the scores of their first jobs.
    """
    older: dict[tuple[str, str | None], list[tuple[float, Lane]]] = defaultdict(list)
    for name, score in passed_over.items():
        lane = lane_named(name)
        older[lane.pool, None if is_critical(score, now) else lane.tenant].append((score, lane))
    bounds: dict[tuple[str, str | None], int] = {}
    for one in chosen:
        line = _line(one.job)
        if any(score < one.job.score and can(runners[one.runner_id], lane) for score, lane in older.get(line, ())):
            bounds[line] = min(one.job.score, bounds.get(line, one.job.score))
    return [one for one in chosen if (line := _line(one.job)) not in bounds or one.job.score < bounds[line]]


def _line(job: Job) -> tuple[str, str | None]:
    """Return among whom a job keeps its place: critical jobs go before those of all tenants."""
    return job.pool, None if job.priority >= CRITICAL else job.tenant


def is_critical(score: float, now: int) -> bool:
    """Say whether a place in the queue is a critical job's."""
    return score <= now - CRITICAL_BOOST_MICROS / 2


def can(runner: Candidate, lane: Lane) -> bool:
    """Say whether a runner takes a lane's jobs when it has room."""
    return (
        runner.closed_to is None
        and runner.pool == lane.pool
        and (lane.job_type, lane.contract_major) in runner.offers
        and lane.slots <= runner.slots
        and all(runner.labels.get(label) == value for label, value in lane.labels)
    )
