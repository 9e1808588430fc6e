"""Guards to take out of the shipped code, to see that the check that watches over each notices: `python -m tests.simulation --without fencing`."""

import builtins
from collections.abc import Callable, Sequence
from typing import Any, Final

import pytest

from controlplane.jobforge_agent import bulk, ownership, policy, router, rules, schedules, upkeep
from controlplane.jobforge_agent.control_store import LiveControls
from controlplane.jobforge_agent.store import Store
from tests.simulation.run import run_seed

Break = Callable[[pytest.MonkeyPatch], None]


def _script(name: str, guard: str, without: str) -> Break:
    def take_out(patch: pytest.MonkeyPatch) -> None:
        text = Store._text

        def mutated(store: Store, wanted: str) -> str:
            found = text(store, wanted)
            assert wanted != name or guard in found
            return found.replace(guard, without) if wanted == name else found

        patch.setattr(Store, "_text", mutated)
        patch.setattr(rules, "allowance", lambda *_: 100)

    return take_out


def _no_fencing(patch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> bool:
        return False

    patch.setattr(ownership.Ownership, "_behind", never)


def _no_controls(patch: pytest.MonkeyPatch) -> None:
    async def forget(*_: object) -> None: ...

    patch.setattr(LiveControls, "follow", forget)


def _nothing_is_critical(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(policy, "CRITICAL", 99)


def _youngest_first(patch: pytest.MonkeyPatch) -> None:
    def reversed_(jobs: Sequence[Any], key: Any) -> list[Any]:
        return builtins.sorted(jobs, key=key, reverse=True)

    patch.setattr(policy, "sorted", reversed_, raising=False)


def _nothing_costs(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(router, "cost", lambda *_: 0.0)


def _no_trials(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "on_trial", lambda *_: False)


def _times_are_missed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(schedules, "due", lambda *_: None)


def _nothing_runs(patch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> bool:
        return False

    patch.setattr(upkeep.Upkeep, "_runs", never)


def _nothing_matches(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(bulk, "matches", lambda *_: False)


EMPTIED: Final = frozenset({
    "limits", "store_empty", "pauses", "slow_step", "instances_deaf", "instances_freeze"
})  # fmt: skip
OTHERS: Final = range(1, 9)
"""Played when the code has changed so much that those show it no longer."""
GUARDS: Final[dict[str, tuple[Break, frozenset[str], tuple[int, ...], str]]] = {
    "fencing": (_no_fencing, frozenset({"store_past", "instances_crash", "limits_of_time"}), (1, 2), " concluded "),
    "running": (_script("claim", ">= limit[2]", ">= limit[2] + 100"), frozenset({"limits", "rush"}), (1,), " run, but "),
    "rate": (_script("claim", ">= limit[3]", ">= limit[3] + 100"), frozenset({"limits", "rush"}), (1,), " start in "),
    "pause": (_no_controls, frozenset({"pauses"}), (1,), "is paused"),
    "breaker": (_no_controls, frozenset({"outages"}), (1,), "is open"),
    "trial": (_no_trials, frozenset({"outages", "rush"}), (16, 19), "is on trial"),
    "critical": (_nothing_is_critical, frozenset({"rush"}), (4,), "which is critical"),
    "age": (_youngest_first, frozenset({"rush"}), (1,), "which is older"),
    "part": (_nothing_costs, frozenset({"rush"}), (3, 4), "waited for its part"),
    "schedule": (_times_are_missed, frozenset({"schedules"}), (1,), "were dealt with"),
    "overlap": (_nothing_runs, frozenset({"schedules", "attempts_end_badly"}), (1,), "without overlap"),
    "emptied": (_script("control", "return 'lost'", "before = '0'"), EMPTIED, (5, 6, 8), "is not in the store"),
    "bulk": (_nothing_matches, frozenset({"bulk"}), (1,), "was applied to partition"),
}  # fmt: skip
"""What is taken out, what the histories meet, which of them showed it last, and what is said then."""


def found_without(guard: str, url: str) -> int | None:
    """Take a guard out of this process for good, and return the first seed whose history shows that it is missing, or None."""
    take_out, meets, seeds, told = GUARDS[guard]
    take_out(pytest.MonkeyPatch())
    candidates: list[int] = [*seeds, *(one for one in OTHERS if one not in seeds)]
    for seed in candidates:
        if any(told in failure for failure in run_seed(seed, url, meets).failures):
            return seed
    return None
