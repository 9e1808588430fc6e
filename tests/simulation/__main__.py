"""`python -m tests.simulation --seed 7`: play the history of a seed and tell it; with `--count`, play many and tell those that failed."""

import argparse
import os
import sys
import time
from contextlib import ExitStack

from tests.simulation.guards import GUARDS, found_without
from tests.simulation.history import Outcome
from tests.simulation.run import own_valkey, run_seeds


def main() -> int:
    """Play histories; returns how many failed, 1 at most."""
    arguments = _arguments()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets of texts is drawn anew by every process unless it is told not to.
        os.execve(  # noqa: S606 -- it becomes itself, with one variable more
            sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], os.environ | {"PYTHONHASHSEED": "0"}
        )  # fmt: skip
    began = time.monotonic()
    failed: list[Outcome] = []
    with ExitStack() as stack:
        url = arguments.redis or stack.enter_context(own_valkey())
        if arguments.without:
            seed = found_without(arguments.without, url)
            print(
                f"Without the guard {arguments.without}: {'not noticed' if seed is None else f'seed {seed} shows it'}"
            )
            return int(seed is None)
        seeds = range(arguments.seed, arguments.seed + arguments.count)
        for done, outcome in enumerate(run_seeds(seeds, url, arguments.processes), start=1):
            if outcome.failures:
                failed.append(outcome)
                print(f"seed {outcome.seed}: {outcome.failures[0]}", flush=True)
            if arguments.count == 1:
                print("\n".join(outcome.story), flush=True)
            if done % 100 == 0:
                print(f"{done} histories, {len(failed)} failed, {time.monotonic() - began:.0f} s", flush=True)
    if arguments.count > 1 and failed:
        print("\n".join(failed[0].story))
        print(f"Failed: {' '.join(str(one.seed) for one in failed)}")
        print(f"Repeat one with: make simulate SEED={failed[0].seed}")
    print(
        f"{arguments.count} histories from seed {arguments.seed}, {len(failed)} failed, {time.monotonic() - began:.1f} s"
    )
    return min(1, len(failed))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds")
    parser.add_argument("--processes", type=int, default=1, help="how many at once")
    parser.add_argument("--without", choices=GUARDS, help="take a guard out, and see that a history shows it")
    parser.add_argument("--redis", help="URL of a Valkey or Redis to use; none: one of its own")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
