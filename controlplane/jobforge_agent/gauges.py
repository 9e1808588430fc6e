"""What the gauges of runners and breakers say, from what the store and the controls hold: by name, never by id."""

from collections.abc import Iterable, Mapping

from controlplane.events.types import BreakerChanged, RunnerRegistered

_KINDS = {"type": "job_type", "runner": "runner"}


def slots_of(
    runners: Mapping[str, RunnerRegistered], busy: Mapping[str, int], draining: Iterable[str]
) -> dict[str, dict[str, int]]:
    """Return the slots of runners by name and state: busy, free, or draining, which take no more work."""
    closed = set(draining)
    found: dict[str, dict[str, int]] = {}
    for runner_id, runner in runners.items():
        states = found.setdefault(runner.name, {"busy": 0, "free": 0, "draining": 0})
        taken = min(busy.get(runner_id, 0), runner.slots)
        states["busy"] += taken
        states["draining" if runner_id in closed else "free"] += runner.slots - taken
    return found


def breakers_of(
    breakers: Iterable[BreakerChanged], runners: Mapping[str, RunnerRegistered]
) -> dict[tuple[str, str], str]:
    """Return the state of every breaker that is not closed, by kind and name; of runners of one name, the worst."""
    found: dict[tuple[str, str], str] = {}
    for breaker in breakers:
        _, kind, name = breaker.subject.split(":", 2)
        if kind == "runner":
            if name not in runners:
                continue
            name = runners[name].name
        key = (_KINDS[kind], name)
        if found.get(key) != "OPEN":
            found[key] = breaker.state
    return found
