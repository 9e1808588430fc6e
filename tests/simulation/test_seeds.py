"""Random histories with crashes: whatever happens, each job concludes once, nothing is lost, and the store is what the log says."""

import os
import subprocess
import sys

import pytest

from tests.simulation.run import run_seed

SEEDS_PER_TEST = 20
FIRST_SEEDS = range(1, 201, SEEDS_PER_TEST)


def play(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *options], env=os.environ | {"PYTHONHASHSEED": "0"}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", FIRST_SEEDS)
def test_what_is_promised_holds_in_every_history(first: int, redis_url: str) -> None:
    played = play("--seed", str(first), "--count", str(SEEDS_PER_TEST), "--redis", redis_url)
    assert played.returncode == 0, played.stdout + played.stderr


def test_a_seed_is_one_history(redis_url: str) -> None:
    stories = {play("--seed", "18", "--redis", redis_url).stdout.rpartition("\n1 histories")[0] for _ in range(2)}
    assert len(stories) == 1
    assert "JobCompleted" in stories.pop()


def test_the_checks_notice_what_is_broken(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulation that finds nothing proves nothing: without fencing, it has to find something."""
    from controlplane.jobforge_agent import ownership

    async def never(*_: object) -> bool:
        return False

    monkeypatch.setattr(ownership.Ownership, "_behind", never)
    meets = frozenset({"store_past", "instances_crash", "limits_of_time"})
    assert any(run_seed(seed, redis_url, meets).failures for seed in range(1, 11))
